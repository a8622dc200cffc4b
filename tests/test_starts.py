"""Training starts at the density of each dimension that fits the data without latents."""

from dataclasses import dataclass

import numpy as np
import pytest
from made import BACKENDS
from on_backend import Jax, Torch
from scipy import stats
from scipy.special import expit, logit

from ppl_vae import Network, Program, data, fit, likelihoods, load, networks
from ppl_vae.backends import backend as backend_named
from ppl_vae.likelihoods import starts

RNG = np.random.default_rng(0)
SIDES = {"pyro": Torch, "numpyro": Jax}
N = 4000
REALS = RNG.normal([0.0, 3.0, -1.0], [1.0, 0.3, 0.7], (N, 3))
BITS = (RNG.random((N, 3)) < [0.1, 0.5, 0.9]).astype(float)
COUNTS = RNG.negative_binomial(3.0, [0.2, 0.5, 0.9], (N, 3)).astype(float)
GREY = RNG.binomial(16, [0.1, 0.5, 0.8], (N, 3)) / 16
UNIT = RNG.beta([1.0, 2.0, 5.0], 2.0, (N, 3))


def fitted(backend, named, x, found=None):
    """Return the distribution that a likelihood starts with, and its log density of rows in nats, [N]."""
    side, kind = SIDES[backend](np.float32), likelihoods.parse(named)
    found = found or kind.start(starts, x)
    outputs, free = (None if one is None else side.array(np.asarray(one, float)) for one in found)
    assert outputs.shape == (kind.outputs, 3)
    assert (None if free is None else tuple(free.shape)) == kind.free((3,))
    parameters = networks.likelihood.LikelihoodParameters(kind.parameters(side.F, outputs, free), 1)
    made = kind.over(side.dist, parameters)
    return made, side.host(made.log_prob(side.array(x)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_normal_likelihoods_start_at_their_greatest_likelihood(backend):
    variance = REALS.var(0)
    for named, spread in (
        ("normal", np.full(3, variance.mean())),
        ("normal_per_dim", variance),
        ("normal_predicted", variance),
    ):
        _, log_density = fitted(backend, named, REALS)
        exact = -0.5 * (np.log(2 * np.pi * spread) + variance / spread).sum()
        assert log_density.mean() == pytest.approx(exact, abs=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_masses_start_at_the_frequencies(backend):
    p = BITS.mean(0)
    entropy = -(p * np.log(p) + (1 - p) * np.log(1 - p)).sum()
    assert fitted(backend, "bernoulli", BITS)[1].mean() == pytest.approx(-entropy, abs=1e-5)
    labels = RNG.integers(0, 4, (N, 3)) % [[2, 3, 4]]
    for named, rows, codes, classes in (
        ("categorical:4", labels, labels, 4),
        ("grey_levels:17", GREY, GREY * 16, 17),
    ):
        shares = np.stack([(codes == k).mean(0) for k in range(classes)])
        # Five per cent of the mass are the same for all classes.
        exact = (shares * np.log(0.95 * shares + 0.05 / classes)).sum()
        assert fitted(backend, named, rows)[1].mean() == pytest.approx(exact, abs=1e-4)


def test_no_probability_starts_at_0_or_1():
    rows = np.column_stack(
        [np.zeros(50), np.ones(50), np.full(50, 40.0)]
    )  # the last is refused when it is scored
    found = likelihoods.parse("bernoulli").start(starts, rows).outputs[0]
    np.testing.assert_allclose(found, logit([0.05, 0.95, 0.95]))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("named", "rows"),
    [
        ("poisson", COUNTS),
        ("negative_binomial", COUNTS),
        ("zero_inflated_negative_binomial", COUNTS),
        ("continuous_bernoulli", UNIT),
        ("student_t", REALS),
        ("normal_fixed:0.5", REALS),
    ],
)
def test_a_likelihood_starts_at_the_mean_of_each_dimension(backend, named, rows):
    made, _ = fitted(backend, named, rows)
    np.testing.assert_allclose(np.asarray(made.mean), rows.mean(0), rtol=2e-3, atol=1e-3)
    if named in ("negative_binomial", "student_t"):
        np.testing.assert_allclose(np.asarray(made.variance), rows.var(0), rtol=5e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("named", ["discretized_logistic:17", "logistic_mixture:17:3", "logit_laplace"])
def test_no_likelihood_starts_below_where_it_starts_at_random(backend, named):
    rows = UNIT if named == "logit_laplace" else GREY
    about_zero = likelihoods.base.Start(np.zeros((likelihoods.parse(named).outputs, 3)))
    blind = fitted(backend, named, rows, about_zero)[1].mean()
    assert fitted(backend, named, rows)[1].mean() > blind + 0.2


@pytest.mark.parametrize("named", ["normal", "normal_per_dim", "negative_binomial", "student_t"])
def test_a_constant_dimension_and_a_constant_table_start_with_finite_values(named):
    for rows in (np.ones((5, 3)), np.column_stack([REALS[:5, :2], np.ones(5)]) ** 2, REALS[:1] ** 2):
        found = likelihoods.parse(named).start(starts, rows)
        assert np.isfinite(found.outputs).all() and np.isfinite(found.free).all()


def test_moments_are_those_of_what_was_observed():
    rows = np.ma.array(np.column_stack([REALS[:50, 0], np.full(50, 7.0), REALS[:50, 2]]))
    rows[:, 2] = np.ma.masked
    first = rows.data[:, 0]
    np.testing.assert_allclose(starts.mean(rows), [first.mean(), 7, (first.mean() + 7) / 2])
    least = 0.1 * np.sqrt(first.var() / 3)  # a tenth of the typical spread
    np.testing.assert_allclose(starts.spread(rows), [first.std(), least, least])
    np.testing.assert_array_equal(starts.spread(np.ones((5, 2))), [1, 1])
    assert starts.mean(np.ma.masked_all((5, 2))).tolist() == [0, 0]


def test_counts_start_at_their_moments_within_bounds():
    np.testing.assert_allclose(starts.log_mean(COUNTS[:40]), np.log(COUNTS[:40].mean(0) + 0.5 / 40))
    np.testing.assert_allclose(starts.log_mean(np.zeros((4, 1))), np.log(0.5 / 4))
    rare = np.repeat([[0.0], [400.0]], [399, 1], 0)  # a mean of 1 and a variance of 399
    rows = np.concatenate([COUNTS[:400, :1], np.ones((400, 1)), rare], 1)
    centre, variance = rows[:, 0].mean(), rows[:, 0].var()
    np.testing.assert_allclose(starts.concentration(rows), [centre**2 / (variance - centre), 100, 0.1])


def test_the_parts_of_a_mixture_start_at_quantiles_of_a_normal():
    middle, spread = GREY.mean(0), GREY.std(0)
    apart = stats.norm.ppf([1 / 6, 1 / 2, 5 / 6])[:, None]
    expected = logit(np.clip(middle + apart * spread, 0.05, 0.95))
    np.testing.assert_allclose(starts.logistic_parts(GREY, 3)[0], expected)


def test_what_couples_the_channels_of_a_mixture_starts_at_0():
    rows = np.stack([GREY, GREY[::-1]], -1)[..., None]
    found = likelihoods.parse("rgb_logistic_mixture:17:2").start(starts, rows).outputs
    parts = starts.logistic_parts(rows, 2)
    nothing = np.zeros((2, 3, 2, 1))
    np.testing.assert_array_equal(found, np.concatenate([nothing, *parts, nothing]))


def test_logistic_variables_start_with_the_spread_of_each_dimension():
    """The standard deviation of a logistic variable is pi / sqrt(3) of its scale; of a part, half of that."""
    _, whole = starts.logistic(GREY)
    _, parts = starts.logistic_parts(GREY, 3)
    for raw, share in ((whole, 1.0), (parts[0], 0.5)):
        scale = np.log1p(np.exp(raw - 2.0)) + starts.SCALE_FLOOR
        np.testing.assert_allclose(scale * np.pi / np.sqrt(3), share * GREY.std(0), rtol=1e-5)


def test_what_is_missing_does_not_count():
    rows = np.ma.array(REALS.copy(), mask=RNG.random(REALS.shape) < 0.3)
    rows.data[rows.mask] = 99.0
    found = likelihoods.parse("normal_per_dim").start(starts, rows)
    np.testing.assert_allclose(found.outputs[0], rows.mean(0))
    np.testing.assert_allclose(np.log1p(np.exp(found.free)) + starts.SCALE_FLOOR, rows.std(0), rtol=1e-6)


def test_the_logits_of_continuous_bernoullis_have_the_means():
    means = np.array([0.05, 0.3, 0.5, 0.500001, 0.9, 0.95])
    found = starts.continuous_logit(np.repeat(means[None], 10, 0))
    safe = np.where(np.abs(found) < 1e-3, 1.0, found)
    exact = np.where(np.abs(found) < 1e-3, 0.5 + found / 12, expit(safe) / (2 * expit(safe) - 1) - 1 / safe)
    np.testing.assert_allclose(exact, means, atol=1e-5)


# In a program.


@dataclass(frozen=True)
class Nested(Network):
    x_shape: tuple[int, ...]

    def layers(self, nn):
        return {"heads": [networks.Likelihood("bernoulli", 2, (4,), self.x_shape)]}

    def apply(self, F, net, z):
        return net.heads[0](z)


@dataclass(frozen=True)
class OfParts(Program):
    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (4,), 2), "decoders": [Nested(self.x_shape)]}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.likelihood("bernoulli", net.decoders[0](z)), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_networks_within_networks_and_lists_start_at_the_data(backend):
    run = fit(OfParts(), BITS[:200], backend=backend, max_steps=1, lr=1e-12)
    found = run.bound.weights()["decoders.0.heads.0.body.layers.1.bias"]
    train = run.data.rows("train")["x"]
    np.testing.assert_allclose(found, logit(starts.probability(train)), rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_convolutional_decoders_start_at_the_mean_of_a_channel(backend):
    digits = data.load("digits", binarize="dynamic")
    run = fit(
        load("vae", network="conv", hidden=(16,), z_dim=2), digits, backend=backend, max_steps=1, lr=1e-12
    )
    grey = digits.raw("train")["x"]
    exact = logit(starts.probability(grey)).mean()
    assert run.bound.weights()["decoder.body.up2.layer.bias"] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_start_at_the_mean_share_of_a_row(backend):
    rows = {"x": COUNTS[:300].astype(int), "batch": np.zeros(300, int), "size": np.full(300, 10.0)}
    run = fit(load("counts", decoder_hidden=()), rows, backend=backend, max_steps=1, lr=1e-12)
    train = run.data.rows("train")["x"]
    exact = starts.log_mean(train) - np.log(10)
    np.testing.assert_allclose(run.bound.weights()["mean.body.layers.0.bias"], exact, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_faces_are_modelled_after_few_steps(backend):
    """Smooth images of small contrast: a sigma that started at 0.69 took the first hundreds of steps."""
    shades, light = 0.05 * RNG.normal(size=(200, 3)) @ RNG.normal(size=(3, 256)), np.linspace(-1, 1, 256)
    faces = 0.5 + 0.15 * light + shades
    run = fit(
        load("vae", likelihood="normal", z_dim=4, hidden=(32,)),
        data.of(faces.astype(np.float32), valid=20, test=20),
        backend=backend,
        max_steps=20,
    )
    scores = run.score(run.data.rows("test")["x"])
    assert -0.5 * np.log(2 * np.pi * 0.69**2) * 256 < -100  # the most that a sigma of 0.69 allows
    assert scores.elbo.mean() > 100


@dataclass(frozen=True)
class Masked(OfParts):
    """Bits of which some are missing."""

    def model(self, ppl, net, x=None, mask=None):
        super().model(ppl, net, x)

    def guide(self, ppl, net, x, mask=None):
        super().guide(ppl, net, x)


@pytest.mark.parametrize("kind", [bool, np.uint8, np.float32])
def test_a_mask_of_any_numbers_says_what_is_missing(kind):
    mask = RNG.random((200, 3)) < 0.7
    found = data.of({"train": {"x": BITS[:200], "mask": mask.astype(kind)}}, valid=0)
    run = fit(Masked(), found, max_steps=1, lr=1e-12)
    exact = logit(starts.probability(np.ma.array(BITS[:200], mask=~mask)))
    biases = run.bound.weights()["decoders.0.heads.0.body.layers.1.bias"]
    np.testing.assert_allclose(biases, exact, rtol=1e-5)


# Which network starts, and from what.


def started(backend, program, rows):
    """Return a bound program's weights before its start from rows, and after."""
    bound = backend_named(backend).bind(program)
    before = bound.weights()
    bound.start({name: values.astype("f") for name, values in rows.items()})
    return before, bound.weights()


@dataclass(frozen=True)
class Between(Program):
    """Networks with outputs of x's shape before the likelihood's, and in the guide."""

    own: bool = False  # the last decoder is a network of the program's own

    def networks(self, nn):
        last = nn.MLP(3, (), 3) if self.own else nn.Likelihood("normal", 3, (), 3)
        first = {name: nn.Likelihood("normal", size, (), 3) for name, size in (("clean", 3), ("middle", 2))}
        return first | {"decoder": last, "encoder": nn.NormalHead(3, (), 2)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.deterministic("middle", ppl.likelihood("normal", net.middle(z)).mean)
            out = net.decoder(net.middle(z).values[0])
            made = ppl.dist.Normal(out, 1.0).to_event(1) if self.own else ppl.likelihood("normal", out)
            ppl.sample("x", made, obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(*net.encoder(net.clean(x).values[0])).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("own", [False, True])
def test_only_the_network_whose_output_scores_the_data_starts_at_it(backend, own):
    before, after = started(backend, Between(own), {"x": REALS})
    changed = {name for name, value in after.items() if (value != before[name]).any()}
    assert changed == (set() if own else {"decoder.raw", "decoder.body.layers.0.bias"})
    if not own:
        np.testing.assert_allclose(after["decoder.body.layers.0.bias"], REALS.mean(0), rtol=1e-5)


@dataclass(frozen=True)
class Steps(Program):
    """Sequences [5, 3] of which a mask leaves numbers out, or one that is a condition alone."""

    masked: bool = True

    def networks(self, nn):
        return {"decoder": nn.Likelihood("normal_per_dim", 2, (), (5, 3)), "encoder": nn.MLP(15, (), 2)}

    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            numbers = ppl.likelihood("normal_per_dim", net.decoder(z)).base_dist
            if self.masked:
                numbers = numbers.mask(mask.reshape(*mask.shape, *[1] * (3 - mask.ndim)) > 0)
            ppl.sample("x", numbers.to_event(2), obs=x)

    def guide(self, ppl, net, x, mask=None):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.encoder(x.reshape(-1, 15)), 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(200,), (200, 5), (200, 5, 1), (200, 1, 3), (200, 5, 3)])
@pytest.mark.parametrize("masked", [True, False])
def test_what_a_mask_leaves_out_does_not_count_where_the_likelihood_is_masked(backend, shape, masked):
    x = RNG.normal(np.arange(3.0), 1.0, (200, 5, 3))
    mask = (RNG.random(shape) < 0.7).astype("f")
    missing = np.broadcast_to(mask.reshape(*shape, *[1] * (3 - len(shape))), x.shape) == 0
    if not masked and shape != x.shape:  # it says of rows or steps what it may
        missing = np.zeros(x.shape, bool)
    _, after = started(backend, Steps(masked), {"x": np.where(missing, 99, x), "mask": mask})
    kept = np.ma.array(x, mask=missing)
    biases = after["decoder.body.layers.0.bias"].reshape(5, 3)
    np.testing.assert_allclose(biases, kept.mean(0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(np.log1p(np.exp(after["decoder.raw"])), kept.std(0), rtol=1e-3)
