"""Likelihoods on both backends: masses that sum to one, known moments, known constants."""

import importlib

import numpy as np
import pytest
from scipy import stats

from ppl_vae import likelihoods
from ppl_vae.errors import UsageError
from ppl_vae.networks import Likelihood, LikelihoodParameters

BACKENDS = ("pyro", "numpyro")


def distributions(backend):
    return importlib.import_module(f"ppl_vae.backends.{backend}.distributions")


def array(backend, value):
    if backend == "pyro":
        import torch

        return torch.as_tensor(np.asarray(value, np.float32))
    import jax.numpy as jnp

    return jnp.asarray(value, jnp.float32)


def draws(backend, distribution, n):
    if backend == "pyro":
        import torch

        torch.manual_seed(0)
        return distribution.sample((n,)).numpy()
    import jax

    return np.asarray(distribution.sample(jax.random.key(0), (n,)))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("levels", [2, 17, 256])
@pytest.mark.parametrize("loc", [-0.5, 0.0, 0.004, 0.37, 0.9961, 1.0, 1.7])
@pytest.mark.parametrize("scale", [1e-3, 0.01, 0.1, 5.0])
def test_the_masses_of_all_grey_levels_sum_to_one(backend, levels, loc, scale):
    grid = np.arange(levels) / (levels - 1)
    made = distributions(backend).DiscretizedLogistic(
        array(backend, loc), array(backend, scale), levels=levels
    )
    log_mass = np.asarray(made.log_prob(array(backend, grid)), np.float64)
    assert np.isfinite(log_mass).all()
    # Single precision: the argument of the exponential is good to about 1e-6 of values up to 1e3 near the
    # mode.
    assert np.exp(log_mass).sum() == pytest.approx(1.0, abs=2e-4)
    cdf = stats.logistic(loc, scale).cdf
    edges = np.concatenate([[-np.inf], (grid[1:] + grid[:-1]) / 2, [np.inf]])
    np.testing.assert_allclose(np.exp(log_mass), np.diff(cdf(edges)), atol=2e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_level_254_is_an_inner_cell(backend):
    # An edge test such as x > 0.99 would give it the mass of everything above it.
    made = distributions(backend).DiscretizedLogistic(array(backend, 0.5), array(backend, 0.1), levels=256)
    masses = np.exp(np.asarray(made.log_prob(array(backend, np.array([253, 254, 255]) / 255)), np.float64))
    assert masses[0] > masses[1]
    assert masses[2] > 2 * masses[1]


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_of_the_discretized_logistic_follow_its_masses(backend):
    made = distributions(backend).DiscretizedLogistic(array(backend, 0.8), array(backend, 0.1), levels=9)
    n = 40_000
    found = np.bincount(np.rint(draws(backend, made, n) * 8).astype(int), minlength=9)
    masses = np.exp(np.asarray(made.log_prob(array(backend, np.arange(9) / 8)), np.float64))
    assert stats.chisquare(found, masses / masses.sum() * n).pvalue > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_normal_with_fixed_sigma_is_the_squared_error_up_to_a_known_constant(backend):
    rng = np.random.default_rng(0)
    x, loc, sigma = rng.random((5, 3, 4)), rng.random((5, 3, 4)), 0.3
    values = (array(backend, loc), array(backend, np.full_like(loc, sigma)))
    made = distributions(backend).likelihood("normal_fixed:0.3", LikelihoodParameters(values, 2))
    constant = -12 * np.log(sigma * np.sqrt(2 * np.pi))
    expected = -((x - loc) ** 2).sum((1, 2)) / (2 * sigma**2) + constant
    np.testing.assert_allclose(np.asarray(made.log_prob(array(backend, x))), expected, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_negative_binomial_goes_by_mean_and_concentration(backend):
    mean, r = 3.7, 1.9
    made = distributions(backend).NegativeBinomial2(array(backend, mean), array(backend, r))
    counts = np.arange(200)
    log_mass = np.asarray(made.log_prob(array(backend, counts)), np.float64)
    np.testing.assert_allclose(np.exp(log_mass), stats.nbinom(r, r / (r + mean)).pmf(counts), atol=1e-5)
    assert np.exp(log_mass).sum() == pytest.approx(1, abs=1e-4)
    assert (np.exp(log_mass) * (counts - mean) ** 2).sum() == pytest.approx(mean + mean**2 / r, rel=1e-3)


EXAMPLES = {
    "bernoulli": [0, 1],
    "discretized_logistic:17": np.arange(17) / 16,
    "poisson": np.arange(60),
    "negative_binomial": np.arange(400),
    "categorical:5": np.arange(5),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", EXAMPLES)
def test_every_discrete_likelihood_of_the_head_sums_to_one(backend, text):
    made = head(backend, text)
    values = np.asarray(EXAMPLES[text])
    x = np.broadcast_to(values.reshape(-1, 1, 1), (len(values), 4, 3)).astype(np.float32)
    # One pixel at a time: the base distribution under to_event.
    base = made.base_dist
    if text.startswith("categorical"):
        x = x.astype(np.int64)
    value = array(backend, x) if not text.startswith("categorical") else integers(backend, x)
    mass = np.exp(np.asarray(base.log_prob(value[:, None]), np.float64)).sum(0)
    np.testing.assert_allclose(mass, 1, atol=1e-3)
    assert likelihoods.is_discrete(text)


def integers(backend, x):
    if backend == "pyro":
        import torch

        return torch.as_tensor(x)
    import jax.numpy as jnp

    return jnp.asarray(x)


def head(backend, text):
    """The likelihood of a head with random weights, for 2 rows of shape (4, 3)."""
    rng = np.random.default_rng(1)
    z = rng.normal(size=(2, 3)).astype("f")
    network = Likelihood(text, 3, (5,), (4, 3))
    if backend == "pyro":
        import torch

        from ppl_vae.backends.pyro.networks import module

        torch.manual_seed(0)
        with torch.no_grad():
            return distributions(backend).likelihood(text, module(network)(torch.from_numpy(z)))
    from ppl_vae.backends.numpyro.networks import Seeded, module

    return distributions(backend).likelihood(text, module(Seeded(0), network)(z))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", ["normal", "normal_per_dim", "normal_predicted", "normal_fixed:0.1"])
def test_every_normal_likelihood_is_a_density(backend, text):
    made = head(backend, text)
    assert tuple(made.event_shape) == (4, 3)
    assert tuple(made.batch_shape) == (2,)
    grid = np.linspace(-8, 8, 4001)
    x = np.broadcast_to(grid.reshape(-1, 1, 1, 1), (4001, 1, 4, 3))
    mass = np.exp(np.asarray(made.base_dist.log_prob(array(backend, x)), np.float64)).sum(0) * (
        grid[1] - grid[0]
    )
    np.testing.assert_allclose(mass, 1, atol=1e-3)
    assert not likelihoods.is_discrete(text)


@pytest.mark.parametrize(
    "text",
    ["gauss", "bernoulli:2", "normal_fixed:0", "normal_fixed:x", "categorical:1", "discretized_logistic:2.5"],
)
def test_a_likelihood_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match="likelihood"):
        likelihoods.parse(text)
