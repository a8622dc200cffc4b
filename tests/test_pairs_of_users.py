"""Pairs of functions as users write them: other names of sites, global latents alone, scalars."""

import importlib

import numpy as np
import pytest
from command_line import ok
from scipy.stats import lognorm

from ppl_vae import check, data, fit, posterior
from ppl_vae.backends.common.terms import Terms
from ppl_vae.errors import ProgramError

both = pytest.mark.parametrize("backend", ["pyro", "numpyro"])
LIBRARIES = {"pyro": ("pyro", "torch"), "numpyro": ("numpyro", "jax.numpy")}
RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 3)).astype("f")
Y = (X.sum(1) + 1).astype("f")


def regression(backend):
    """Return a pair with global latents alone: y ~ N(x w + b, 1), of which b is a single number."""
    library, array = map(importlib.import_module, LIBRARIES[backend])
    dist = library.distributions

    def model(x, y=None):
        w = library.sample("w", dist.Normal(array.zeros(3), 1.0).to_event(1))
        b = library.sample("b", dist.Normal(0.0, 5.0))
        with library.plate("data", len(x)):
            library.sample("y", dist.Normal(x @ w + b, 1.0), obs=y)

    def guide(x, y=None):
        library.sample("w", dist.Normal(library.param("loc", array.zeros(3)), 0.1).to_event(1))
        library.sample("b", dist.Normal(library.param("at", array.zeros(())), 0.1))

    return model, guide


@both
def test_global_latents_alone_have_a_posterior(backend):
    run = fit(regression(backend), data.of({"x": X, "y": Y}, valid=4, test=0), max_steps=1)
    drawn = run.draws({"x": X[:3], "y": Y[:3]}, 5)
    assert drawn.posterior["w"].shape == (5, 3) and drawn.posterior["b"].shape == (5,)
    noise = drawn.posterior_predictive["y"] - drawn.posterior["w"] @ X[:3].T - drawn.posterior["b"][:, None]
    assert noise.shape == (5, 3) and np.abs(noise).max() < 4.5
    residual = Y[:3] - drawn.posterior["w"] @ X[:3].T - drawn.posterior["b"][:, None]
    exact = -0.5 * residual**2 - 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(drawn.log_likelihood["y"], exact, atol=1e-5)
    assert posterior(run, {"x": X[:3], "y": Y[:3]}, num_samples=5)["posterior"]["b"].shape == (1, 5)


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_a_single_number_that_is_global_passes_the_check(backend):
    found = check(regression(backend), data.of({"x": X, "y": Y}), backend=backend)
    assert not [one.message for one in found.findings if one.status == "failed"]


@both
@pytest.mark.parametrize(
    "name", ["AutoMultivariateNormal", pytest.param("AutoNormal", marks=pytest.mark.slow)]
)
def test_an_autoguide_counts_all_that_it_draws(backend, name):
    library, array = map(importlib.import_module, LIBRARIES[backend])
    autoguide = importlib.import_module(f"{backend}.infer.autoguide")
    start = importlib.import_module(f"{backend}.infer{'.autoguide' if backend == 'pyro' else ''}")
    dist = library.distributions

    def model(x):
        scale = library.sample("scale", dist.LogNormal(0.0, 1.0))
        with library.plate("data", len(x)):
            library.sample("x", dist.Normal(array.zeros(3), scale).to_event(1), obs=x)

    at_two = start.init_to_value(values={"scale": array.asarray(2.0)})
    guide = getattr(autoguide, name)(model, init_scale=0.1, init_loc_fn=at_two)
    run = fit((model, guide), data.of(X, valid=4, test=0), max_steps=1, lr=1e-7)

    def terms(tracer, batch):
        pair = tracer.pair(batch)
        found = Terms(tracer.F, pair, 24)
        return {"kl": sum(found.kl_global.values()), "scale": pair.guide["scale"].value}

    with run.bound.passes(0) as passes:
        found = passes("terms", terms, {"x": X})
    scale = found["scale"].astype(float)
    exact = lognorm(0.1, scale=2.0).logpdf(scale) - lognorm(1.0).logpdf(scale)
    np.testing.assert_allclose(found["kl"], exact, atol=1e-4)


def written(backend):
    """Return a pair whose observed site has another name than the field, as the libraries' examples do."""
    library, array = map(importlib.import_module, LIBRARIES[backend])
    dist = library.distributions

    def model(x):
        with library.plate("data", len(x)):
            z = library.sample("z", dist.Normal(0.0, 1.0))
            library.sample("obs", dist.Normal(z[..., None] + array.zeros(3), 1.0).to_event(1), obs=x)

    def guide(x):
        with library.plate("data", len(x)):
            library.sample("z", dist.Normal(library.param("slope", array.ones(())) * x.mean(-1), 0.3))

    return model, guide


@both
def test_a_reconstruction_is_called_by_the_field_that_its_site_observes(backend):
    run = fit(written(backend), data.of(X, valid=4, test=0), max_steps=1)
    np.testing.assert_allclose(run.reconstruct(X)["x"], X.mean(1, keepdims=True) * np.ones(3), atol=1e-2)
    with pytest.raises(ProgramError, match="two plain functions: its model needs data"):
        run.sample(2, covariates={"x": X[:2]})


FILE = """
import pyro
import pyro.distributions as dist


def model(x):
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(0.0, 1.0))
        pyro.sample("obs", dist.Normal(z[..., None] + 0 * x, 1.0).to_event(1), obs={observed})


def guide(x):
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(x.mean(-1), 0.3))
"""


@pytest.mark.parametrize(("observed", "made"), [("x", "x_mean"), ("2 * x", "obs_mean")])
def test_the_command_writes_reconstructions_whatever_their_site_is_called(observed, made, tmp_path):
    file, table, folder = tmp_path / "pair.py", tmp_path / "x.npy", tmp_path / "run"
    file.write_text(FILE.format(observed=observed))
    np.save(table, X)
    fit(str(file), str(table), max_steps=1, out=folder)
    ok("reconstruct", folder)
    with np.load(folder / "reconstructions-test.npz") as file:
        found = dict(file)
    assert set(found) == {"x", made} and found["x"].shape == found[made].shape
    np.testing.assert_allclose(found[made], found["x"].mean(1, keepdims=True) * np.ones(3), atol=1e-5)
