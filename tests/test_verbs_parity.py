"""Encode, decode, reconstruct, sample and score: the same answers on both backends where nothing is drawn."""

from dataclasses import dataclass

import numpy as np
import pytest
from exact import X, decoder, draw, evidence, program, weights
from scipy import stats
from small_programs import BACKENDS, CASES, FEW, MORE_LIKELIHOODS, ROWS, batch, bound

from ppl_vae import Program, bind
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import PlainProgram


def both(case):
    """Return the twins and the verbs of each backend."""
    return [(bound(case, backend).eval(), backend_named(backend)) for backend in BACKENDS]


def close(found, expected, atol=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype.kind == value.dtype.kind, name
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=atol, err_msg=name)


MORE = [f"vae mlp {name}" for name in (*MORE_LIKELIHOODS, "rgb_logistic_mixture:17:2")]


@pytest.mark.parametrize("case", [*FEW, *MORE, "vae mlp categorical:4", "vae mlp normal_predicted"])
def test_means_of_guide_and_likelihood_are_the_same(case):
    rows = batch(case)
    (theirs, pyro), (ours, numpyro) = both(case)
    latents = pyro.encode(theirs, rows)
    close(numpyro.encode(ours, rows), latents)
    close(numpyro.reconstruct(ours, rows), pyro.reconstruct(theirs, rows), atol=1e-4)
    if not case.startswith("counts"):
        points = {name: value for name, value in latents.items() if not name.endswith("_codes")}
        close(numpyro.decode(ours, points), pyro.decode(theirs, points), atol=1e-4)


@pytest.mark.parametrize("case", [*FEW, *MORE])
def test_draws_have_the_same_names_shapes_and_kinds_of_numbers(case):
    rows = batch(case)
    covariates = {name: value for name, value in rows.items() if name != "x"}
    n = ROWS if covariates else 7
    (theirs, pyro), (ours, numpyro) = both(case)
    for made in (
        [verbs.sample(b, n, covariates=covariates, seed=1) for b, verbs in ((theirs, pyro), (ours, numpyro))],
        [verbs.encode(b, rows, draw=True) for b, verbs in ((theirs, pyro), (ours, numpyro))],
    ):
        expected, found = made
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].shape == value.shape and found[name].dtype.kind == value.dtype.kind, name
            assert np.isfinite(found[name]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_seed_decides_the_draws_and_rows_differ(backend):
    made, verbs = bound("vae mlp bernoulli", backend), backend_named(backend)
    one, same, other = (verbs.sample(made, 5, seed=seed) for seed in (1, 1, 2))
    for name, value in one.items():
        np.testing.assert_array_equal(same[name], value)
    assert (one["z"] != other["z"]).all()
    assert len(np.unique(one["z"][:, 0])) == 5
    assert set(np.unique(one["x"])) == {0.0, 1.0}


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_of_the_prior_have_its_mean_and_covariance(backend):
    w, b = decoder()
    made = bind(program(), backend)
    made.load_weights(weights(w, b))
    x = backend_named(backend).sample(made, 20000, seed=3)["x"]
    cov = w @ w.T + 0.25 * np.eye(X)
    np.testing.assert_allclose(x.mean(0), b, atol=4 * np.sqrt(cov.max() / 20000))
    np.testing.assert_allclose(np.cov(x.T), cov, atol=4 * cov.max() * np.sqrt(2 / 20000))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("budget", [4, 64, 1000, 10**6])
def test_chunks_of_rows_and_samples_change_nothing(backend, budget):
    # With the exact posterior every sample has the weight p(x): a sample too many would show.
    w, b = decoder()
    made, rows = bind(program(), backend, num_data=37), draw(37, w, b)
    made.load_weights(weights(w, b))
    scores = backend_named(backend).score(made, {"x": rows}, 7, budget=budget)
    np.testing.assert_allclose(scores.iw, evidence(rows, w, b), atol=1e-4)
    np.testing.assert_allclose(scores.elbo, evidence(rows, w, b), atol=1e-4)
    assert scores.k == 7 and scores.dims == X and not scores.discrete


@pytest.mark.parametrize("case", CASES)
def test_scores_describe_the_observation_alike(case):
    rows = {name: value[:3] for name, value in batch(case).items()}
    theirs, ours = (verbs.score(b, rows) for b, verbs in both(case))
    for name in ("dims", "discrete", "num_data", "iw", "k"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert ours.kl.keys() == theirs.kl.keys() and ours.kl_global.keys() == theirs.kl_global.keys()
    assert (ours.iw_note is None) == (theirs.iw_note is None)
    if case.startswith("vqvae"):
        np.testing.assert_allclose(ours.elbo, theirs.elbo, rtol=1e-5)
    for name, value in ours.kl_global.items():
        assert value == pytest.approx(theirs.kl_global[name], rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scoring_leaves_mode_and_codebook_as_they_were(backend):
    made, verbs = bound("vqvae ema", backend).train(), backend_named(backend)
    before = made.weights()
    verbs.score(made, batch("vqvae ema"))
    verbs.sample(made, 2)
    verbs.encode(made, batch("vqvae ema"))
    assert made.training
    for name, value in made.weights().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("latents", "message"),
    [
        ({}, "there are no latents"),
        ({"w": np.zeros((2, 3), "f")}, "the model has no local latent 'w': it has z"),
        ({"z": np.zeros((2, 4), "f")}, r"latent 'z' has shape \(4,\) per row, the model's is \(3,\)"),
    ],
)
def test_latents_that_do_not_fit_are_refused(backend, latents, message):
    made, verbs = bound("vae mlp bernoulli", backend), backend_named(backend)
    with pytest.raises(DataError, match=message):
        verbs.decode(made, latents)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows_are_refused(backend):
    made, verbs = bound("vae mlp bernoulli", backend), backend_named(backend)
    with pytest.raises(DataError, match="there are no rows"):
        verbs.score(made, {"x": np.zeros((0, 2, 7, 5), "f")})


@dataclass(frozen=True)
class Outside(Program):
    """Observes each entry of a row by itself, outside the event."""

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(1))
            with ppl.plate("entries", 3, dim=-2):
                ppl.sample("x", ppl.dist.Normal(z[..., 0], 1.0), obs=None if x is None else x.T)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(x.mean(-1)[:, None], 1e-4).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_term_with_more_than_one_number_per_row_is_summed(backend):
    x = np.random.default_rng(0).normal(size=(5, 3)).astype("f")
    scores = backend_named(backend).score(bind(Outside(), backend), {"x": x})
    expected = stats.norm.logpdf(x, x.mean(1, keepdims=True)).sum(1)
    np.testing.assert_allclose(scores.log_likelihood, expected, atol=5e-3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_plain_functions_cannot_be_sampled_without_data(backend):
    made = backend_named(backend).PlainBound(
        PlainProgram(lambda x: None, lambda x: None, "mine", backend), ("x",), 5
    )
    with pytest.raises(
        ProgramError, match="mine is two plain functions.*only a declared Program draws from the prior"
    ):
        backend_named(backend).sample(made, 3)
