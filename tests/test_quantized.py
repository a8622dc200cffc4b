"""The distributions of a VQ-VAE (arXiv:1711.00937) against their formulas, gradients included."""

from dataclasses import dataclass

import numpy as np
import pytest
from on_backend import BACKENDS, side
from scipy import stats
from scipy.special import log_softmax, softmax

from ppl_vae import Program, evaluate, fit

RNG = np.random.default_rng(0)
Z, BOOK, LOGITS = RNG.normal(size=(4, 6, 3)), RNG.normal(size=(5, 3)), RNG.normal(size=5)
CODES = np.square(Z[..., None, :] - BOOK).sum(-1).argmin(-1)
WEIGHT = RNG.normal(size=Z.shape)


@pytest.fixture(params=BACKENDS)
def on(request):
    yield from side(request.param)


def guide(on):
    """A function of encoder output and codebook, at the nearest codes."""
    return lambda z, book: on.dist.VectorQuantized(z, on.array(CODES), book)


def prior(on, grid=(4, 6)):
    return on.dist.Codebook(on.array(BOOK), on.array(LOGITS), grid)


def into_book(gradient):
    """Add up what each code gets from the places that chose it."""
    return np.stack([gradient[places].sum(0) for places in np.equal.outer(np.arange(5), CODES)])


def test_the_draw_is_the_code_and_its_gradient_passes_straight_to_the_encoder(on):
    made = guide(on)(on.array(Z), on.array(BOOK))
    np.testing.assert_allclose(on.host(on.reparametrised_draw(made)), BOOK[CODES], atol=1e-12)
    np.testing.assert_allclose(on.host(made.mean), BOOK[CODES])
    found = on.gradients(
        lambda z, book: (on.reparametrised_draw(guide(on)(z, book)) * on.array(WEIGHT)).sum(), Z, BOOK
    )
    np.testing.assert_allclose(found[0], WEIGHT)
    np.testing.assert_array_equal(found[1], np.zeros_like(BOOK))


def test_the_commitment_pulls_the_encoder_alone(on):
    made = guide(on)(on.array(Z), on.array(BOOK))
    np.testing.assert_allclose(on.host(made.commitment_error()), np.square(Z - BOOK[CODES]).sum(-1))
    found = on.gradients(lambda z, book: guide(on)(z, book).commitment_error().sum(), Z, BOOK)
    np.testing.assert_allclose(found[0], 2 * (Z - BOOK[CODES]))
    np.testing.assert_array_equal(found[1], np.zeros_like(BOOK))


def test_the_codebook_error_pulls_the_codes_alone(on):
    made = guide(on)(on.array(Z), on.array(BOOK))
    np.testing.assert_allclose(on.host(made.codebook_error()), np.square(Z - BOOK[CODES]).sum(-1))
    found = on.gradients(lambda z, book: guide(on)(z, book).codebook_error().sum(), Z, BOOK)
    np.testing.assert_array_equal(found[0], np.zeros_like(Z))
    np.testing.assert_allclose(found[1], into_book(2 * (BOOK[CODES] - Z)))


def test_the_kl_is_the_surprise_of_the_codes(on):
    q, p = guide(on)(on.array(Z), on.array(BOOK)), prior(on)
    np.testing.assert_allclose(on.host(on.kl(q, p)), -log_softmax(LOGITS)[CODES])
    # The same for sites with the grid in the event, as programs write it.
    np.testing.assert_allclose(
        on.host(on.kl(q.to_event(1), p.to_event(1))), -log_softmax(LOGITS)[CODES].sum(-1)
    )
    np.testing.assert_array_equal(on.host(q.log_prob(on.array(Z))), np.zeros((4, 6)))
    # The gradient of the prior: softmax less one, for each code that was chosen.
    (found,) = on.gradients(
        lambda logits: on.kl(q, on.dist.Codebook(on.array(BOOK), logits, (4, 6))).sum(), LOGITS
    )
    counts = np.bincount(CODES.reshape(-1), minlength=5)
    np.testing.assert_allclose(found, CODES.size * softmax(LOGITS) - counts)


def test_other_pairs_have_no_closed_form(on):
    with pytest.raises(NotImplementedError):
        on.kl(prior(on), guide(on)(on.array(Z), on.array(BOOK)))


def test_the_prior_over_codes(on):
    made = prior(on)
    assert (tuple(made.batch_shape), tuple(made.event_shape)) == ((4, 6), (3,))
    np.testing.assert_allclose(on.host(made.log_prob(on.array(Z))), log_softmax(LOGITS)[CODES])
    np.testing.assert_array_equal(on.host(made.nearest(on.array(Z))), CODES)
    mean = np.broadcast_to(softmax(LOGITS) @ BOOK, Z.shape)
    np.testing.assert_allclose(on.host(made.mean), mean)
    drawn = on.draws(prior(on, ()), 20_000)
    found = np.square(drawn[:, None] - BOOK).sum(-1)
    np.testing.assert_allclose(found.min(-1), 0, atol=1e-12)
    counts = np.bincount(found.argmin(-1), minlength=5)
    assert stats.chisquare(counts, softmax(LOGITS) * len(drawn)).pvalue > 1e-4


def test_perplexity_and_usage(on):
    found = guide(on)(on.array(Z), on.array(BOOK)).metrics()
    share = np.bincount(CODES.reshape(-1), minlength=5) / CODES.size
    used = share[share > 0]
    assert float(found["perplexity"]) == pytest.approx(np.exp(-(used * np.log(used)).sum()))
    assert float(found["usage"]) == len(used) / 5


def test_more_particles_have_the_same_codes(on):
    wide = guide(on)(on.array(Z), on.array(BOOK)).expand((2, 4, 6))
    assert tuple(wide.batch_shape) == (2, 4, 6)
    np.testing.assert_allclose(on.host(wide.mean), np.broadcast_to(BOOK[CODES], (2, 4, 6, 3)))
    assert tuple(prior(on).expand((2, 4, 6)).batch_shape) == (2, 4, 6)
    np.testing.assert_allclose(
        on.host(on.kl(wide, prior(on))), np.broadcast_to(-log_softmax(LOGITS)[CODES], (2, 4, 6))
    )


@dataclass(frozen=True)
class TwoBooks(Program):
    """Two sites of codes, of codebooks of 3 and 8 vectors."""

    x_shape: tuple[int, ...] | None = None
    sites: tuple[str, ...] = ("a", "b")

    def networks(self, nn):
        books = {"a": nn.CodebookState(3, 2), "b": nn.CodebookState(8, 2)}
        return {name: books[name] for name in self.sites} | {"e": nn.MLP(4, (), 2), "d": nn.MLP(2, (), 4)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            total = 0.0
            for site in self.sites:
                book = getattr(net, site)()
                total = total + ppl.sample(site, ppl.dist.Codebook(book.vectors, book.logits))
            ppl.sample("x", ppl.dist.Normal(net.d(total), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            z_e = net.e(x)
            for site in self.sites:
                book = getattr(net, site)(z_e)
                ppl.sample(site, ppl.dist.VectorQuantized(z_e, book.index, book.vectors))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sites", [("b",), ("a", "b")])
def test_the_use_of_a_codebook_is_that_of_its_own_size(backend, sites):
    x = np.random.default_rng(0).normal(size=(60, 4)).astype("f")
    run = fit(TwoBooks(sites=sites), x, backend=backend, max_steps=2, batch_size=16)
    found, latents = evaluate(run, "train"), run.encode(run.data.rows("train"))
    for site in sites:
        end = "" if len(sites) == 1 else f"/{site}"
        used = len(np.unique(latents[f"{site}_codes"]))
        assert found[f"usage{end}"] == used / {"a": 3, "b": 8}[site]
