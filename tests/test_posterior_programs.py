"""Posterior draws of the gallery, of nested plates, and of plain programs."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
import pyro
import pytest
import torch
from posteriors import BACKENDS, PROGRAMS, draws, gallery
from pyro import poutine
from scipy.stats import norm

from ppl_vae import Program, bind
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import ProgramError
from ppl_vae.program import PlainProgram

LATENTS = {
    "vae": {"z": (6, 9, 3)},
    "linear_gaussian": {"z": (6, 9, 2)},
    "hvae": {"z_1": (6, 9, 5), "z_2": (6, 9, 3)},
    "counts": {"effect": (6, 2, 11), "dispersion": (6, 11), "z": (6, 9, 3)},
    "vqvae": {"z": (6, 9, 2, 2, 4), "z_codes": (6, 9, 2, 2)},
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize(("backend", "budget"), [("pyro", 700), ("pyro", 2**22), ("numpyro", 700)])
def test_shapes_and_densities_of_the_gallery(name, budget, backend):
    bound, rows = gallery(name, backend)
    found = draws(bound, rows, 6, budget=budget)
    assert {site: value.shape for site, value in found.posterior.items()} == LATENTS[name]
    assert {site: value.shape for site, value in found.prior.items()} == LATENTS[name]
    for group in (found.posterior_predictive, found.prior_predictive):
        assert {site: value.shape for site, value in group.items()} == {"x": (6, *rows["x"].shape)}
    assert all(np.isfinite(value).all() for value in (*found.prior.values(), *found.posterior.values()))
    np.testing.assert_array_equal(found.observed_data["x"], rows["x"])
    # One draw at a time, all rows together: global latents must be the same for every chunk of rows.
    # The density is Pyro's on both backends.
    twin, _ = gallery(name, "pyro")
    batch = {field: torch.from_numpy(value) for field, value in rows.items()}
    for number in range(6):
        value = {site: torch.from_numpy(v[number]) for site, v in found.posterior.items()}
        with torch.no_grad(), twin.unscaled():
            trace = poutine.trace(poutine.condition(twin.model, data=value)).get_trace(**batch)
            expected = trace.nodes["x"]["fn"].log_prob(batch["x"])
        np.testing.assert_allclose(found.log_likelihood["x"][number], expected, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_global_latents_are_weighed_apart(backend):
    bound, rows = gallery("counts", backend)
    found = draws(bound, rows, 6, budget=700)
    networks = gallery("counts", "pyro")[0].networks
    net = {name: networks[name]() for name in ("effect", "dispersion")}
    values = {name: torch.from_numpy(found.posterior[name]) for name in net}
    kinds = {"effect": torch.distributions.Normal, "dispersion": torch.distributions.LogNormal}
    with torch.no_grad():
        terms = [
            kinds[name](0.0, 1.0).log_prob(values[name]) - kinds[name](*net[name]).log_prob(values[name])
            for name in net
        ]
    np.testing.assert_allclose(found.log_weight_global, sum(t.flatten(1).sum(1) for t in terms), rtol=1e-4)
    assert "'effect' is global" in found.note
    assert not found.row_statistics


@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_are_those_of_the_vectors(backend):
    bound, rows = gallery("vqvae", backend)
    bound.train()
    before = bound.weights()
    found = draws(bound, rows, 6)
    vectors = before["codebook.vectors"]
    for group in (found.posterior, found.prior):
        np.testing.assert_allclose(group["z"], vectors[group["z_codes"]], atol=1e-6)
    assert (found.posterior["z"] == found.posterior["z"][:1]).all()
    assert len(np.unique(found.prior["z_codes"])) > 4
    # The prior gives each of 4 codes a probability of 1/8; the guide is certain.
    np.testing.assert_allclose(found.log_weight, found.log_likelihood["x"] - 4 * np.log(8), rtol=1e-6)
    # A guide without noise leaves nothing for the cut into chunks to change.
    parts = draws(bound, rows, 6, budget=700)
    np.testing.assert_allclose(parts.posterior["z"], found.posterior["z"], atol=1e-6)
    np.testing.assert_allclose(parts.log_likelihood["x"], found.log_likelihood["x"], rtol=1e-5)
    assert all((bound.weights()[name] == value).all() for name, value in before.items())


@dataclass(frozen=True)
class Nested(Program):
    """Three groups in every row, and a level of each group that all rows share."""

    def model(self, ppl, net, x=None):
        rows, groups = ppl.minibatch(x), ppl.plate("group", 3, dim=-2)
        with groups:
            level = ppl.sample("level", ppl.dist.Normal(ppl.array(0.0), 1.0))
        with rows, groups:
            w = ppl.sample("w", ppl.dist.Normal(level, 1.0))
        with rows:
            ppl.sample("x", ppl.dist.Normal(w.sum(-2)[..., None, :], 1.0), obs=x)

    def guide(self, ppl, net, x):
        rows, groups = ppl.minibatch(x), ppl.plate("group", 3, dim=-2)
        with groups:
            level = ppl.sample("level", ppl.dist.Normal(ppl.array(0.0), 0.1))
        with rows, groups:
            ppl.sample("w", ppl.dist.Normal(x / 3 + level, 0.1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_plates_of_a_program_become_axes_behind_the_rows(backend):
    x = np.arange(5, dtype=np.float32)
    found = draws(bind(Nested(), backend, num_data=5), {"x": x}, 4000, budget=900)
    assert found.plates == {"level": ("group",), "w": ("data", "group"), "x": ("data",)}
    w, level = (found.posterior[name].astype(np.float64) for name in ("w", "level"))
    assert (w.shape, level.shape) == ((4000, 5, 3), (4000, 3))
    level = level[:, None]
    # The guide's noise has scale 0.1: 60,000 draws lie within 6 of them of their row and their group's level.
    assert np.abs(w - level - x[:, None] / 3).max() < 0.6
    likelihood = norm(w.sum(-1), 1).logpdf(x)
    np.testing.assert_allclose(found.log_likelihood["x"], likelihood, atol=1e-4)
    ratio = norm(level, 1).logpdf(w) - norm(x[:, None] / 3 + level, 0.1).logpdf(w)
    np.testing.assert_allclose(found.log_weight, likelihood + ratio.sum(-1), atol=1e-3)
    noise = found.posterior_predictive["x"] - w.sum(-1)
    assert abs(noise.mean()) < 4.5 / np.sqrt(noise.size)
    # Rows of one prior draw share its levels: the covariance of two rows' sums is that of three levels.
    sums = found.prior["w"].sum(-1)
    assert abs(np.cov(sums[:, 0], sums[:, 4])[0, 1] - 3) < 4.5 * np.sqrt((3**2 + 6**2) / 4000)


def plain(backend, with_guide=True):
    """Return two plain functions of a library, bound: x ~ N(z, 1), z ~ N(mean, 1), the guide exact."""
    library, zero = {"pyro": (pyro, torch.zeros(())), "numpyro": (numpyro, jnp.zeros(()))}[backend]
    dist, rows = library.distributions, {"name": "rows", "size": 1000, "dim": -1}

    def model(x):
        mean = library.param("mean", zero)
        with library.plate(**rows, subsample_size=len(x)):
            z = library.sample("z", dist.Normal(mean, 1.0))
            assert z.ndim == 1, "a plain program is not asked to broadcast"
            library.sample("x", dist.Normal(z, 1.0), obs=x)

    def guide(x):
        with library.plate(**rows, subsample_size=len(x)):
            if with_guide:
                library.sample("z", dist.Normal(x / 2, 0.5**0.5))

    return backend_named(backend).PlainBound(PlainProgram(model, guide, "mine", backend), ("x",))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["guide", "importance"])
def test_plain_functions_draw_one_by_one_and_unscaled(method, backend):
    x = np.array([0.5, -2.0, 1.0], np.float32)
    found = draws(plain(backend), {"x": x}, 8, method=method, budget=10)
    assert (found.program, found.rows, found.plates["z"]) == ("mine", "rows", ("rows",))
    # x ~ N(0, 2), whatever the 1,000 rows that the program says there are.
    np.testing.assert_allclose(found.log_weight, [norm(0, 2**0.5).logpdf(x)] * 8, atol=1e-5)
    assert found.prior_predictive["x"].shape == (8, 3)
    assert all(len(np.unique(group["z"])) > 3 for group in (found.posterior, found.prior))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("name", "message"), [("counts", "'effect' is global"), ("vqvae", "'z' has one value only")]
)
def test_importance_is_refused_where_weights_mean_nothing(name, message, backend):
    bound, rows = gallery(name, backend)
    with pytest.raises(ProgramError, match=f"{message}.*method='guide'"):
        draws(bound, rows, 3, method="importance")


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_guide_that_lacks_a_site_is_refused_by_its_name(backend):
    with pytest.raises(ProgramError, match="site 'z' of the model has no site in the guide"):
        draws(plain(backend, with_guide=False), {"x": np.zeros(3, np.float32)}, 3)
