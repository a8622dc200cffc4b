"""The log density of every likelihood from a decoder's outputs, against SciPy's and NumPy's."""

from types import SimpleNamespace

import numpy as np
import pytest
from on_backend import BACKENDS, side
from scipy import stats
from scipy.special import expit, log_expit, log_softmax, logit, logsumexp

from ppl_vae import likelihoods

RNG = np.random.default_rng(4)
ROWS, SHAPE, LEVELS = 3, (4, 2), 17


@pytest.fixture(params=BACKENDS)
def on(request):
    yield from side(request.param)


def softplus(raw):
    return np.log1p(np.exp(raw)) + 1e-4


def cells(x, loc, scale):
    """Return the log mass of a logistic variable in the cell around each grid point; end cells are open."""
    half = 0.5 / (LEVELS - 1)
    upper = np.where(x > 1 - half, 1.0, stats.logistic.cdf(x + half, loc, scale))
    lower = np.where(x < half, 0.0, stats.logistic.cdf(x - half, loc, scale))
    return np.log(upper - lower)


def mixed(x, o, f):
    weights, loc, scale = (np.moveaxis(part, 0, -1) for part in (o[:2], o[2:4], o[4:]))
    masses = cells(x[..., None], expit(loc), softplus(scale - 2))
    return logsumexp(log_softmax(weights, -1) + masses, -1)


def chosen(index, o):
    """Return the log mass of a class or level by its number, from logits [K, ...]."""
    return np.take_along_axis(log_softmax(o, 0), index[None].astype(int), 0)[0]


def negative_binomial(x, o, f):
    r, mean = softplus(f), np.exp(o[0])
    return stats.nbinom(r, r / (r + mean)).logpmf(x)


def zero_inflated(x, o, f):
    counted = log_expit(-o[1]) + negative_binomial(x, o, f)
    return np.where(x == 0, np.logaddexp(log_expit(o[1]), counted), counted)


def logit_laplace(x, o, f):
    mapped = 0.8 * x + 0.1
    jacobian = np.log(0.8) - np.log(mapped) - np.log1p(-mapped)
    return stats.laplace(o[0], softplus(o[1])).logpdf(logit(mapped)) + jacobian


BITS = RNG.integers(0, 2, (ROWS, *SHAPE)).astype(float)
GREY = RNG.integers(0, LEVELS, (ROWS, *SHAPE)) / (LEVELS - 1)
UNIT, REALS = RNG.random((ROWS, *SHAPE)), RNG.normal(size=(ROWS, *SHAPE))
COUNTS, LABELS = RNG.poisson(1.0, (ROWS, *SHAPE)).astype(float), RNG.integers(0, 5, (ROWS, *SHAPE))
# The data, the shape of the free array, and the log density of data x at outputs o and a free array f.
DENSITIES = {
    "bernoulli": (BITS, None, lambda x, o, f: x * log_expit(o[0]) + (1 - x) * log_expit(-o[0])),
    "normal": (REALS, (), lambda x, o, f: stats.norm(o[0], softplus(f)).logpdf(x)),
    "normal_fixed:0.3": (REALS, None, lambda x, o, f: stats.norm(o[0], 0.3).logpdf(x)),
    "normal_per_dim": (REALS, SHAPE, lambda x, o, f: stats.norm(o[0], softplus(f)).logpdf(x)),
    "normal_predicted": (REALS, None, lambda x, o, f: stats.norm(o[0], softplus(o[1])).logpdf(x)),
    "student_t:4": (REALS, SHAPE, lambda x, o, f: stats.t(4, o[0], softplus(f)).logpdf(x)),
    "discretized_logistic:17": (GREY, None, lambda x, o, f: cells(x, expit(o[0]), softplus(o[1] - 2))),
    "logistic_mixture:17:2": (GREY, None, mixed),
    "grey_levels:17": (GREY, None, lambda x, o, f: chosen(np.round(x * (LEVELS - 1)), o)),
    "continuous_bernoulli": (UNIT, None, lambda x, o, f: o[0] * x - np.log(np.expm1(o[0]) / o[0])),
    "logit_laplace": (UNIT, None, logit_laplace),
    "poisson": (COUNTS, None, lambda x, o, f: stats.poisson(np.exp(o[0])).logpmf(x)),
    "negative_binomial": (COUNTS, SHAPE, negative_binomial),
    "zero_inflated_negative_binomial": (COUNTS, SHAPE, zero_inflated),
    "categorical:5": (LABELS, None, lambda x, o, f: chosen(x, o)),
}


def test_every_likelihood_is_tested():
    names = {text.partition(":")[0] for text in DENSITIES}
    assert names | {"rgb_logistic_mixture"} == set(likelihoods.KNOWN)


@pytest.mark.parametrize("text", DENSITIES)
def test_the_log_density_is_its_formula(on, text):
    kind, (x, shape, formula) = likelihoods.parse(text), DENSITIES[text]
    assert kind.free(SHAPE) == shape
    outputs = RNG.normal(size=(kind.outputs, ROWS, *SHAPE))
    free = None if shape is None else RNG.normal(size=shape)
    values = kind.parameters(on.F, on.array(outputs), None if free is None else on.array(free))
    made = on.dist.likelihood(text, SimpleNamespace(values=values, event_dim=2))
    expected = formula(x, outputs, free).sum((1, 2))
    # NumPyro computes the beta function of its negative binomial in single precision.
    np.testing.assert_allclose(on.host(made.log_prob(on.array(x))), expected, rtol=1e-5, atol=1e-5)


def test_the_mixture_over_channels_gets_its_parameters_in_their_order(on):
    """Its masses are tested against their formula where the distribution is."""
    kind, outputs = likelihoods.parse("rgb_logistic_mixture:17:2"), RNG.normal(size=(8, ROWS, 3, 2, 2))
    values = kind.parameters(on.F, on.array(outputs), None)
    x = on.array(RNG.integers(0, LEVELS, (ROWS, 3, 2, 2)) / (LEVELS - 1))
    weights, loc, scale, coupling = (np.moveaxis(part, 0, -1) for part in np.split(outputs, 4))
    parts = (weights, expit(loc), softplus(scale - 2), np.tanh(coupling))
    expected = on.dist.RGBLogisticMixture(*map(on.array, parts), levels=LEVELS).log_prob(x)
    made = on.dist.likelihood(kind, SimpleNamespace(values=values, event_dim=3))
    np.testing.assert_allclose(on.host(made.log_prob(x)), on.host(expected))
