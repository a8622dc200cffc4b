"""The project's own distributions on both backends, against their formulas and SciPy's."""

import numpy as np
import pytest
from on_backend import BACKENDS, side
from scipy import stats
from scipy.special import expit, logit, logsumexp

from ppl_vae.distributions import OWN

GRID = np.arange(256) / 255
# Sums of masses: single precision is good to about 1e-7 of arguments up to 1e3 near a narrow mode.
CLOSE = {"float32": 2e-4, "float64": 1e-12}


@pytest.fixture(params=BACKENDS)
def on(request):
    """A backend in double precision."""
    yield from side(request.param)


@pytest.fixture(params=[(name, dtype) for name in BACKENDS for dtype in CLOSE], ids="-".join)
def either(request):
    """A backend in each precision."""
    yield from side(*request.param)


def log_mass(on, distribution, values, whole=False):
    """Return log masses; `whole` where they are those of one distribution alone."""
    function = on.whole(distribution.log_prob) if whole else distribution.log_prob
    return np.asarray(on.host(function(on.array(values))), np.float64)


# Discretized logistics.


def cells(loc, scale, levels):
    """The masses of the cells around grid points, the end ones reaching to infinity."""
    grid = np.arange(levels) / (levels - 1)
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    return np.diff(stats.logistic(loc, scale).cdf(edges))


@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("scale", [1e-3, 0.01, 0.1, 5.0])
def test_the_masses_of_a_logistic_over_grey_levels(either, levels, scale):
    for loc in (-0.5, 0.0, 0.004, 0.37, 0.9961, 1.0, 1.7):
        made = either.dist.DiscretizedLogistic(either.array(loc), either.array(scale), levels=levels)
        found = log_mass(either, made, np.arange(levels) / (levels - 1))
        assert np.isfinite(found).all()
        assert np.exp(found).sum() == pytest.approx(1, abs=CLOSE[either.dtype.name])
        np.testing.assert_allclose(np.exp(found), cells(loc, scale, levels), atol=CLOSE[either.dtype.name])


def test_levels_1_and_254_are_inner_cells(either):
    # An edge test such as x > 0.99 or x < 0.004 would give them the mass of everything beyond.
    made = either.dist.DiscretizedLogistic(either.array(0.5), either.array(0.1))
    np.testing.assert_allclose(np.exp(log_mass(either, made, GRID)), cells(0.5, 0.1, 256), rtol=1e-4)


MIXTURE = {
    "logits": np.array([[0.3, -1.0, 2.0], [40.0, -40.0, 0.0]]),
    "loc": np.array([[0.1, 0.5, 0.95], [-0.2, 0.5, 1.3]]),
    "scale": np.array([[0.02, 0.3, 0.01], [1e-3, 3.0, 0.1]]),
}


def mixture(on, levels):
    return on.dist.LogisticMixture(**{n: on.array(v) for n, v in MIXTURE.items()}, levels=levels)


@pytest.mark.parametrize("levels", [3, 256])
def test_the_masses_of_a_mixture_of_logistics(either, levels):
    made = mixture(either, levels)
    assert (tuple(made.batch_shape), tuple(made.event_shape)) == ((2,), ())
    found = np.exp(log_mass(either, made, np.arange(levels)[:, None] / (levels - 1), whole=True))
    weights = np.exp(MIXTURE["logits"] - logsumexp(MIXTURE["logits"], axis=-1, keepdims=True))
    for row in range(2):
        parts = zip(weights[row], MIXTURE["loc"][row], MIXTURE["scale"][row], strict=True)
        expected = sum(weight * cells(loc, scale, levels) for weight, loc, scale in parts)
        np.testing.assert_allclose(found[:, row], expected, atol=CLOSE[either.dtype.name])
    np.testing.assert_allclose(found.sum(0), 1, atol=CLOSE[either.dtype.name])
    mean = (weights * MIXTURE["loc"].clip(0, 1)).sum(-1)
    np.testing.assert_allclose(either.host(made.mean), mean, rtol=1e-5)


def test_the_masses_of_free_grey_levels(either):
    logits = np.stack([np.linspace(-60, 40, 256), np.random.default_rng(0).normal(size=256)])
    made = either.dist.GreyLevels(either.array(logits))
    assert made.levels == 256 and tuple(made.batch_shape) == (2,)
    found = log_mass(either, made, GRID[:, None])
    expected = (logits - logsumexp(logits, axis=-1, keepdims=True)).T
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.exp(found).sum(0), 1, atol=1e-5)
    np.testing.assert_allclose(either.host(made.mean), (np.exp(expected) * GRID[:, None]).sum(0), rtol=1e-5)


PIXEL = {
    "logits": np.array([[0.2, -0.4], [0.1, 0.3], [0.0, 0.5]]),
    "loc": np.array([[0.1, 0.9], [0.4, 0.6], [0.5, 1.1]]),
    "scale": np.array([[0.1, 0.3], [0.05, 0.2], [0.4, 0.1]]),
    "coupling": np.array([[0.8, -0.5], [0.3, 0.9], [-0.7, 0.6]]),
}


def pixels(on, height=1, width=1, **changes):
    """One pixel's parameters [3, K] at each of height x width places."""
    shape = (3, height, width, 2)
    arrays = {name: np.broadcast_to(v[:, None, None], shape) for name, v in (PIXEL | changes).items()}
    return on.dist.RGBLogisticMixture(**{name: on.array(v) for name, v in arrays.items()}, levels=3)


COLOURS = np.stack(np.meshgrid(*[np.arange(3) / 2] * 3, indexing="ij"), -1).reshape(27, 3)


def masses_of_colours():
    """The formula, component by component, of every colour of three levels."""
    loc, scale, coupling = (PIXEL[name] for name in ("loc", "scale", "coupling"))
    weights, total = np.exp(PIXEL["logits"].sum(0)), np.zeros(27)
    for k, weight in enumerate(weights / weights.sum()):
        for place, (red, green, _) in enumerate(COLOURS):
            means = (
                loc[0, k],
                loc[1, k] + coupling[0, k] * (red - 0.5),
                loc[2, k] + coupling[1, k] * (red - 0.5) + coupling[2, k] * (green - 0.5),
            )
            channels = [cells(mean, scale[c, k], 3) for c, mean in enumerate(means)]
            levels = (COLOURS[place] * 2).astype(int)
            total[place] += weight * np.prod(
                [mass[level] for mass, level in zip(channels, levels, strict=True)]
            )
    return total


def test_the_masses_of_a_mixture_over_channels(either):
    made = pixels(either)
    assert (tuple(made.batch_shape), tuple(made.event_shape)) == ((), (3, 1, 1))
    found = np.exp(log_mass(either, made, COLOURS[:, :, None, None], whole=True))
    np.testing.assert_allclose(found, masses_of_colours(), rtol=1e-5)
    assert found.sum() == pytest.approx(1, abs=1e-5)
    # Pixels are independent, and particles of the parameters are seen by the same data.
    image = COLOURS[[3, 25]].T[:, None]
    wide = pixels(either, 1, 2).expand((5,))
    together = log_mass(either, wide, image, whole=True)
    np.testing.assert_allclose(together, np.log(found[[3, 25]]).sum().repeat(5), rtol=1e-5)
    assert tuple(wide.mean.shape) == (5, 3, 1, 2)


def test_draws_of_a_mixture_over_channels_follow_its_masses(on):
    drawn = on.draws(pixels(on), 20_000)
    assert drawn.shape == (20_000, 3, 1, 1)
    found = np.bincount((drawn[:, :, 0, 0] * 2).round().astype(int) @ [9, 3, 1], minlength=27)
    assert stats.chisquare(found, masses_of_colours() * 20_000).pvalue > 1e-4
    # The mean of one component of small scale is where its channels lie.
    one = pixels(on, logits=np.array([[0.0, -90.0]] * 3), scale=np.full((3, 2), 1e-3))
    green = 0.4 + 0.8 * (0.1 - 0.5)
    blue = 0.5 + 0.3 * (0.1 - 0.5) - 0.7 * (green - 0.5)
    np.testing.assert_allclose(on.host(one.mean)[:, 0, 0], [0.1, green, blue])


# Counts.


@pytest.mark.parametrize("r", [0.05, 1.9, 19.9, 20.1, 1e6])
@pytest.mark.parametrize("gate", [-50.0, 0.4, 5.0])
def test_the_masses_of_counts_with_extra_zeros(either, r, gate):
    for mu, most in ((0.1, 400), (50.0, 60_000)):
        made = either.dist.ZeroInflatedNegativeBinomial2(*map(either.array, (mu, r, gate)))
        counts = np.arange(most)
        found = log_mass(either, made, counts.astype(float))
        expected = expit(-gate) * stats.nbinom(r, r / (r + mu)).pmf(counts) + expit(gate) * (counts == 0)
        double = either.dtype == np.float64
        # At r = 1e6 SciPy's own masses lose digits.
        atol, rtol = (1e-15, 1e-6 if r > 100 else 1e-9) if double else (2e-6, 2e-4)
        np.testing.assert_allclose(np.exp(found), expected, atol=atol, rtol=rtol)
        assert np.exp(found).sum() == pytest.approx(1, abs=1e-6 if double else 1e-3)
        assert (np.exp(found) * counts).sum() == pytest.approx(either.host(made.mean), rel=1e-3)


# Densities.


LOGITS = [0.0, 1e-8, -1e-3, 0.2999, 0.3001, -0.3001, 1.0, -5.0, 40.0, -90.0]


NODES, WEIGHTS = np.polynomial.legendre.leggauss(60)


def over(points):
    """Nodes and weights of Gauss and Legendre between neighbouring points, 60 each."""
    low, high = np.sort(np.clip(points, 0, 1))[:-1, None], np.sort(np.clip(points, 0, 1))[1:, None]
    return ((low + high + (high - low) * NODES) / 2).reshape(-1), ((high - low) * WEIGHTS / 2).reshape(-1)


@pytest.mark.parametrize("t", LOGITS)
def test_the_continuous_bernoulli_is_a_density_with_its_mean(on, t):
    made = on.dist.ContinuousBernoulli(logits=on.array(t))
    # A density that decays over 1 / |t| is cut where it does.
    x, weight = over([0, 1, 10 / (abs(t) + 20), 1 - 10 / (abs(t) + 20)])
    density = np.exp(log_mass(on, made, x))
    assert (density * weight).sum() == pytest.approx(1, abs=1e-11)
    assert float(made.mean) == pytest.approx((x * density * weight).sum(), abs=1e-11)


@pytest.mark.parametrize("dtype", CLOSE)
def test_the_continuous_bernoulli_is_torchs_where_that_is_exact(dtype):
    import torch

    (ours,) = side("pyro", dtype)
    t, x = np.array([-20.0, -2.0, 0.5, 3.0])[:, None], np.linspace(0, 1, 11)
    theirs = torch.distributions.ContinuousBernoulli(logits=torch.tensor(t))
    found = log_mass(ours, ours.dist.ContinuousBernoulli(logits=ours.array(t)), x)
    np.testing.assert_allclose(found, theirs.log_prob(torch.tensor(x)), rtol=1e-5, atol=1e-6)


def test_the_score_of_the_continuous_bernoulli_is_the_value_less_the_mean(either):
    def total(t):
        return either.dist.ContinuousBernoulli(logits=t).log_prob(either.array(0.7)).sum()

    t = np.array(LOGITS)
    (score,) = either.gradients(total, t)
    far = np.where(np.abs(t) < 0.01, 1.0, t)
    mean = np.where(np.abs(t) < 0.01, 0.5 + t / 12, 0.5 + 0.5 / np.tanh(far / 2) - 1 / far)
    # The closed form begins where 1 / t is 3.3: that many roundings, and no more.
    np.testing.assert_allclose(score, 0.7 - mean, atol=10 * np.finfo(either.dtype).eps, rtol=1e-6)


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.5, 0.05), (-6.0, 0.4), (0.3, 4.0)])
@pytest.mark.parametrize("eps", [0.1, 0.01])
def test_the_logit_laplace_is_a_density_of_the_data(on, loc, scale, eps):
    made = on.dist.LogitLaplace(on.array(loc), on.array(scale), eps=eps)
    # Substituted x = x(y) with y on the logit scale, where the mass is spread out.
    y = np.concatenate([loc + scale * np.linspace(-40, 0, 4001), loc + scale * np.linspace(0, 40, 4001)[1:]])
    y = y[np.abs(y) < 12]
    x = (expit(y) - eps) / (1 - 2 * eps)
    density = np.exp(log_mass(on, made, x)) * expit(y) * expit(-y) / (1 - 2 * eps)
    np.testing.assert_allclose(density, stats.laplace(loc, scale).pdf(y), rtol=1e-6, atol=1e-12)
    # The mass within [0, 1], where the distribution function of the mapped value tells it.
    x, weight = over([0, 1, (expit(loc) - eps) / (1 - 2 * eps)])
    inside = (np.exp(log_mass(on, made, x)) * weight).sum()
    cdf = stats.laplace(loc, scale).cdf
    assert inside == pytest.approx(cdf(logit(1 - eps)) - cdf(logit(eps)), abs=1e-9)
    centre = ((expit(loc) - eps) / (1 - 2 * eps)).clip(0, 1)
    assert float(made.mean) == pytest.approx(centre, abs=1e-12)


# Draws, of 20,000 with a fixed seed; a p-value below 1e-4 is a fault.


def parts(on):
    a = on.array
    return {
        "logistic": on.dist.DiscretizedLogistic(a(0.8), a(0.1), levels=9),
        "mixture": on.dist.LogisticMixture(a([0.0, 1.0]), a([0.1, 0.8]), a([0.05, 0.1]), levels=9),
        "levels": on.dist.GreyLevels(a(np.linspace(-1, 1, 9))),
    }


@pytest.mark.parametrize("name", ["logistic", "mixture", "levels"])
def test_draws_of_grey_levels_follow_their_masses(on, name):
    made = parts(on)[name]
    places = on.draws(made, 20_000) * 8
    np.testing.assert_allclose(places, places.round(), atol=1e-9)
    mass = np.exp(log_mass(on, made, np.arange(9) / 8, whole=True))
    assert stats.chisquare(np.bincount(places.round().astype(int), minlength=9), mass * 20_000).pvalue > 1e-4


def test_draws_of_counts_follow_their_masses(on):
    made = on.dist.ZeroInflatedNegativeBinomial2(*map(on.array, (3.0, 2.0, -1.0)))
    drawn = on.draws(made, 20_000)
    found = np.bincount(drawn.clip(0, 15).astype(int), minlength=16)
    mass = np.exp(log_mass(on, made, np.arange(15.0), whole=True))
    assert stats.chisquare(found, np.append(mass, 1 - mass.sum()) * 20_000).pvalue > 1e-4


@pytest.mark.parametrize("t", [0.0, 1e-3, -0.02, 4.0, -90.0])
def test_draws_of_the_continuous_bernoulli_follow_its_distribution(on, t):
    drawn = on.draws(on.dist.ContinuousBernoulli(logits=on.array(t)), 20_000)
    assert drawn.min() >= 0 and drawn.max() <= 1
    cdf = (lambda x: x) if t == 0 else (lambda x: np.expm1(t * x) / np.expm1(t))
    assert stats.kstest(drawn, cdf).pvalue > 1e-4


def test_draws_of_the_logit_laplace_follow_its_distribution(on):
    drawn = on.draws(on.dist.LogitLaplace(on.array(0.4), on.array(0.8)), 20_000)
    assert stats.kstest(logit(0.8 * drawn + 0.1), stats.laplace(0.4, 0.8).cdf).pvalue > 1e-4


@pytest.mark.parametrize("t", [0.0, 5e-3, -0.02, 3.0, -60.0])
def test_a_draw_of_the_continuous_bernoulli_moves_with_its_logit(on, t):
    # dx/dt at fixed u, from F(x; t) = u: -(dF/dt) / (dF/dx) by finite differences of the exact F.
    def cdf(x, t):
        return x if abs(t) < 1e-12 else np.expm1(t * x) / np.expm1(t)

    draw = lambda t: on.reparametrised_draw(on.dist.ContinuousBernoulli(logits=t))  # noqa: E731
    (found,) = on.gradients(draw, t)
    x, h = float(draw(on.array(t))), 1e-4
    slope = (cdf(x, t + h) - cdf(x, t - h)) / (2 * h)
    density = (cdf(x + 1e-6, t) - cdf(x - 1e-6, t)) / 2e-6
    assert float(found) == pytest.approx(-slope / density, rel=1e-3, abs=1e-5)


# The edges.


EDGES = {
    "DiscretizedLogistic": (
        {"loc": [0.0, 1.0, 0.5, -3.0], "scale": [1e-4, 1e-4, 50.0, 1e-4]},
        [0.0, 1.0, 128 / 255],
    ),
    "LogisticMixture": (
        {"logits": [[90.0, -90.0]], "loc": [[0.0, 1.0]], "scale": [[1e-4, 50.0]]},
        [0.0, 1.0, 128 / 255],
    ),
    "RGBLogisticMixture": (
        {
            "logits": [[[[90.0, -90.0]]]] * 3,
            "loc": [[[[0.0, 1.0]]]] * 3,
            "scale": [[[[1e-4, 50.0]]]] * 3,
            "coupling": [[[[1.0, -1.0]]]] * 3,
        },
        [[[[0.0]], [[1.0]], [[0.0]]], [[[128 / 255]]] * 3],
    ),
    "GreyLevels": ({"logits": [[90.0, -90.0, 0.0]]}, [0.0, 0.5, 1.0]),
    "ContinuousBernoulli": ({"logits": [0.0, 1e-20, 0.3, 100.0, -100.0]}, [0.0, 1.0, 0.5]),
    "LogitLaplace": ({"loc": [0.0, 30.0, -30.0], "scale": [1e-4, 50.0, 1.0]}, [0.0, 1.0, 0.5]),
    "ZeroInflatedNegativeBinomial2": (
        {"mu": [1e-4, 1e4, 1.0], "concentration": [1e-4, 1e6, 20.0], "gate_logits": [60.0, -60.0, 0.0]},
        [0.0, 1.0, 5000.0],
    ),
}  # fmt: skip


@pytest.mark.parametrize(
    "either",
    [
        pytest.param((name, dtype), marks=() if dtype == "float32" else pytest.mark.slow)
        for name in BACKENDS
        for dtype in CLOSE
    ],
    ids="-".join,
    indirect=True,
)
@pytest.mark.parametrize("name", EDGES)
def test_densities_and_gradients_are_finite_at_the_edges(either, name):
    parameters, values = EDGES[name]
    parameters = {key: np.asarray(value) for key, value in parameters.items()}
    for value in values:

        def total(*arrays, value=value):
            made = getattr(either.dist, name)(**dict(zip(parameters, arrays, strict=True)))
            return made.log_prob(either.array(value)).sum()

        assert np.isfinite(either.host(either.whole(total)(*map(either.array, parameters.values()))))
        for key, gradient in zip(parameters, either.gradients(total, *parameters.values()), strict=True):
            assert np.isfinite(gradient).all(), (key, value)


def test_every_distribution_is_tested_at_its_edges():
    assert {one.__name__ for one in OWN} - {"Codebook", "VectorQuantized"} == set(EDGES)
