"""Posterior draws against closed forms: weights, moments, densities, predictions, the prior."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
import pyro
import pytest
import torch
from exact import SIGMA, decoder, draw, evidence, posterior, program, weights
from pyro import poutine
from scipy.stats import multivariate_normal, norm

from ppl_vae import Program, bind, load
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.errors import DataError, ProgramError, UsageError
from ppl_vae.program import PlainProgram

W, B = decoder()
ROWS = {"x": draw(7, W, B)}
rng = np.random.default_rng(3)
IMAGES = {"x": (rng.random((9, 1, 8, 8)) > 0.5).astype(np.float32)}
COUNTS = {
    "x": rng.poisson(3.0, (9, 11)).astype(np.float32),
    "batch": np.arange(9) % 2,
    "size": np.linspace(0.5, 2.0, 9, dtype=np.float32),
}
PROGRAMS = {
    "vae": (load("vae", x_shape=(1, 8, 8), z_dim=3, hidden=(8,)), IMAGES),
    "linear_gaussian": (program(), {"x": draw(9, W, B)}),
    "hvae": (load("hvae", x_shape=(1, 8, 8), z_dims=(5, 3), hidden=(8, 6)), IMAGES),
    "counts": (load("counts", x_shape=(11,), num_batches=2, z_dim=3, hidden=(8,)), COUNTS),
    "vqvae": (
        load("vqvae", x_shape=(3, 8, 8), codes=8, code_dim=4, hidden=8),
        {"x": rng.random((9, 3, 8, 8), np.float32)},
    ),
}
LATENTS = {
    "vae": {"z": (6, 9, 3)},
    "linear_gaussian": {"z": (6, 9, 2)},
    "hvae": {"z_1": (6, 9, 5), "z_2": (6, 9, 3)},
    "counts": {"effect": (6, 2, 11), "dispersion": (6, 11), "z": (6, 9, 3)},
    "vqvae": {"z": (6, 9, 2, 2, 4), "z_codes": (6, 9, 2, 2)},
}


def draws(bound, rows, num_samples, **options):
    return import_module(f"ppl_vae.backends.{bound.backend}.posterior").draws(
        bound, rows, num_samples, **options
    )


def linear(**changes):
    bound = bind(program(), num_data=7)
    bound.load_weights(weights(W, B, **changes))
    return bound


def gallery(name):
    declared, rows = PROGRAMS[name]
    return bind(declared, num_data=9), rows


@pytest.mark.parametrize("method", ["guide", "importance"])
def test_an_exact_guide_has_equal_weights_the_evidence(method):
    found = draws(linear(), ROWS, 50, method=method)
    exact = evidence(ROWS["x"], W, B)
    np.testing.assert_allclose(found.log_weight, np.broadcast_to(exact, (50, 7)), atol=1e-4)
    np.testing.assert_allclose(found.row_statistics["log_evidence"], exact, atol=1e-4)
    np.testing.assert_allclose(found.row_statistics["ess"], found.proposals, rtol=1e-6)
    np.testing.assert_array_equal(found.row_statistics["pareto_k"], np.zeros(7))
    assert found.proposals == {"guide": 50, "importance": 500}[method]


def moments_off(found, shift=0.0, inflate=1.0):
    """Return how far the draws' moments are from N(A x + a + shift, inflate^2 S), in standard errors."""
    matrix, offset, cov = posterior(W, B)
    z = found.posterior["z"].astype(np.float64)
    # S draws picked by weights carry the error of S independent draws and that of the weighted proposals.
    effective = 1 / len(z) if found.method == "guide" else 1 / len(z) + 1 / found.row_statistics["ess"].min()
    cov = cov * inflate**2
    mean_error = np.sqrt(np.diag(cov) * effective)
    cov_error = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) * effective)
    centred = z - z.mean(0)
    covs = np.einsum("sni,snj->nij", centred, centred) / (len(z) - 1)
    means = np.abs(z.mean(0) - ROWS["x"] @ matrix.T - offset - shift) / mean_error
    return means, np.abs(covs - cov) / cov_error


def test_resampling_by_weights_corrects_a_wrong_guide():
    bound = linear(shift=0.3, inflate=1.5)
    # 7 rows with 2 means and 3 covariances: 4.5 standard errors are passed by chance once in 4,000 seeds.
    means, covs = moments_off(draws(bound, ROWS, 4000, method="importance"))
    assert means.max() < 4.5
    assert covs.max() < 4.5
    raw = draws(bound, ROWS, 4000)
    means, covs = moments_off(raw)
    assert means.min() > 20
    assert covs[:, [0, 1], [0, 1]].min() > 20
    # They are what they are labelled: draws of the guide.
    means, covs = moments_off(raw, shift=0.3, inflate=1.5)
    assert max(means.max(), covs.max()) < 4.5


def test_weighted_draws_of_the_guide_speak_of_the_posterior():
    found = draws(linear(shift=0.3, inflate=1.5), ROWS, 4000)
    share = np.exp(found.log_weight - found.log_weight.max(0))
    mean = np.einsum("sn,snz->nz", share / share.sum(0), found.posterior["z"])
    matrix, offset, cov = posterior(W, B)
    error = np.sqrt(np.diag(cov) / found.row_statistics["ess"].min())
    assert (np.abs(mean - ROWS["x"] @ matrix.T - offset) / error).max() < 4.5
    assert np.abs(found.row_statistics["log_evidence"] - evidence(ROWS["x"], W, B)).max() < 0.1


@pytest.mark.parametrize(("inflate", "low", "high"), [(0.5, 0.55, 0.95), (1.5, -2.0, 0.3)])
def test_pareto_k_tells_a_narrow_guide_from_a_wide_one(inflate, low, high):
    # Proposals of variance c^2 < 1 for a target of variance 1: the weights have tail index 1 - c^2.
    # For c > 1 they are bounded.
    found = draws(linear(inflate=inflate), ROWS, 2000, method="importance", predictive=False)
    assert low < np.median(found.row_statistics["pareto_k"]) < high


@pytest.mark.parametrize("budget", [1, 13, 999, 2**22])
@pytest.mark.parametrize("method", ["guide", "importance"])
def test_densities_belong_to_their_draws_in_chunks_of_any_size(method, budget):
    found = draws(linear(shift=0.2), ROWS, 5, method=method, budget=budget, oversampling=3)
    z = found.posterior["z"].astype(np.float64)
    likelihood = norm(z @ W.T + B, SIGMA).logpdf(ROWS["x"]).sum(-1)
    np.testing.assert_allclose(found.log_likelihood["x"], likelihood, atol=1e-4)
    matrix, offset, cov = posterior(W, B)
    guide = multivariate_normal(np.zeros(2), cov).logpdf(z - ROWS["x"] @ matrix.T - offset - 0.2)
    prior = norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(found.log_weight, likelihood + prior - guide, atol=1e-4)
    np.testing.assert_array_equal(found.observed_data["x"], ROWS["x"])


@pytest.mark.parametrize("budget", [500, 2**22])
def test_predictions_and_prior_are_draws_of_the_model(budget):
    found = draws(linear(), ROWS, 400, budget=budget)
    for z, x in [(found.posterior, found.posterior_predictive), (found.prior, found.prior_predictive)]:
        noise = (x["x"] - z["z"].astype(np.float64) @ W.T - B) / SIGMA
        # 11,200 standard normal numbers, each beside its own latent: within 4.5 standard errors.
        assert abs(noise.mean()) < 4.5 / np.sqrt(noise.size)
        assert abs(noise.var() - 1) < 4.5 * np.sqrt(2 / noise.size)
    z = found.prior["z"].reshape(-1, 2)
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(len(z))
    assert np.abs(np.cov(z.T) - np.eye(2)).max() < 4.5 * np.sqrt(2 / len(z))


def test_guide_prior_and_predictions_have_noise_of_their_own():
    found = draws(linear(), ROWS, 500)
    noise = [found.posterior["z"] - found.posterior["z"].mean(0), found.prior["z"]]
    noise += [
        (group["x"] - group["x"].mean(0))[..., :2]
        for group in (found.posterior_predictive, found.prior_predictive)
    ]
    correlation = np.corrcoef([part.ravel() for part in noise])
    # Within one kind of draw latents and observations belong together; across kinds nothing does.
    for one, other in [(0, 1), (0, 3), (1, 2), (2, 3)]:
        assert abs(correlation[one, other]) < 4.5 / np.sqrt(noise[0].size / 4)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("budget", [700, 2**22])
def test_shapes_and_densities_of_the_gallery(name, budget):
    bound, rows = gallery(name)
    found = draws(bound, rows, 6, budget=budget)
    assert {site: value.shape for site, value in found.posterior.items()} == LATENTS[name]
    assert {site: value.shape for site, value in found.prior.items()} == LATENTS[name]
    for group in (found.posterior_predictive, found.prior_predictive):
        assert {site: value.shape for site, value in group.items()} == {"x": (6, *rows["x"].shape)}
    assert all(np.isfinite(value).all() for value in (*found.prior.values(), *found.posterior.values()))
    np.testing.assert_array_equal(found.observed_data["x"], rows["x"])
    # One draw at a time, all rows together: global latents must be the same for every chunk of rows.
    batch = {field: torch.from_numpy(value) for field, value in rows.items()}
    for number in range(6):
        value = {site: torch.from_numpy(v[number]) for site, v in found.posterior.items()}
        with torch.no_grad(), bound.unscaled():
            trace = poutine.trace(poutine.condition(bound.model, data=value)).get_trace(**batch)
            expected = trace.nodes["x"]["fn"].log_prob(batch["x"])
        np.testing.assert_allclose(found.log_likelihood["x"][number], expected, rtol=1e-5)


def test_global_latents_are_weighed_apart():
    bound, rows = gallery("counts")
    found = draws(bound, rows, 6, budget=50)
    net = {name: bound.networks[name]() for name in ("effect", "dispersion")}
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


def test_codes_are_those_of_the_vectors():
    bound, rows = gallery("vqvae")
    bound.train()
    before = bound.weights()
    found = draws(bound, rows, 4)
    vectors = before["codebook.vectors"]
    for group in (found.posterior, found.prior):
        np.testing.assert_allclose(group["z"], vectors[group["z_codes"]], atol=1e-6)
    assert (found.posterior["z"] == found.posterior["z"][:1]).all()
    assert len(np.unique(found.prior["z_codes"])) > 4
    # The prior gives each of 4 codes a probability of 1/8; the guide is certain.
    np.testing.assert_allclose(found.log_weight, found.log_likelihood["x"] - 4 * np.log(8), rtol=1e-6)
    # A guide without noise leaves nothing for the cut into chunks to change.
    parts = draws(bound, rows, 4, budget=777)
    np.testing.assert_allclose(parts.posterior["z"], found.posterior["z"], atol=1e-6)
    np.testing.assert_allclose(parts.log_likelihood["x"], found.log_likelihood["x"], rtol=1e-5)
    assert all((bound.weights()[name] == value).all() for name, value in before.items())


def test_draws_depend_on_the_seed_alone_and_leave_no_trace():
    bound = linear()
    bound.train()
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    first, again, other = (draws(bound, ROWS, 3, seed=seed, method="importance") for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert bound.training
    for group in ("posterior", "posterior_predictive", "prior", "prior_predictive", "log_likelihood"):
        for site, value in getattr(first, group).items():
            np.testing.assert_array_equal(getattr(again, group)[site], value)
            assert (getattr(other, group)[site] != value).all()
    assert len(pyro.get_param_store()) == 0


def test_precision_follows_the_program():
    double = {"x": ROWS["x"].astype(np.float64)}
    assert draws(linear(), double, 2).posterior["z"].dtype == np.float32
    found = draws(linear().double(), ROWS, 2)
    assert {found.posterior["z"].dtype, found.prior_predictive["x"].dtype} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found.log_weight, [evidence(ROWS["x"], W, B)] * 2, atol=1e-5)


def test_predictions_are_made_only_where_asked_for():
    found = draws(linear(), ROWS, 2, predictive=False)
    assert not found.prior
    assert not found.prior_predictive
    assert not found.posterior_predictive


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
            ppl.sample("x", ppl.dist.Normal(w.sum(-2, keepdim=True), 1.0), obs=x)

    def guide(self, ppl, net, x):
        rows, groups = ppl.minibatch(x), ppl.plate("group", 3, dim=-2)
        with groups:
            level = ppl.sample("level", ppl.dist.Normal(ppl.array(0.0), 0.1))
        with rows, groups:
            ppl.sample("w", ppl.dist.Normal(x / 3 + level, 0.1))


def test_plates_of_a_program_become_axes_behind_the_rows():
    x = np.arange(5, dtype=np.float32)
    found = draws(bind(Nested(), num_data=5), {"x": x}, 40, budget=60)
    assert found.plates == {"level": ("group",), "w": ("data", "group"), "x": ("data",)}
    w, level = (found.posterior[name].astype(np.float64) for name in ("w", "level"))
    assert (w.shape, level.shape) == ((40, 5, 3), (40, 3))
    level = level[:, None]
    # The guide's noise has scale 0.1: 600 draws stay within 5 of them of their row and their group's level.
    assert np.abs(w - level - x[:, None] / 3).max() < 0.5
    likelihood = norm(w.sum(-1), 1).logpdf(x)
    np.testing.assert_allclose(found.log_likelihood["x"], likelihood, atol=1e-4)
    ratio = norm(level, 1).logpdf(w) - norm(x[:, None] / 3 + level, 0.1).logpdf(w)
    np.testing.assert_allclose(found.log_weight, likelihood + ratio.sum(-1), atol=1e-3)
    noise = found.posterior_predictive["x"] - w.sum(-1)
    assert abs(noise.mean()) < 4.5 / np.sqrt(noise.size)
    # Rows of one prior draw share its levels: the covariance of two rows' sums is that of three levels.
    sums = draws(bind(Nested(), num_data=5), {"x": x}, 4000, budget=900).prior["w"].sum(-1)
    assert abs(np.cov(sums[:, 0], sums[:, 4])[0, 1] - 3) < 4.5 * np.sqrt((3**2 + 6**2) / 4000)


def plain_model(x):
    mean = pyro.param("mean", torch.zeros(()))
    with pyro.plate("rows", 1000, subsample_size=len(x), dim=-1):
        z = pyro.sample("z", pyro.distributions.Normal(mean, 1.0))
        assert z.ndim == 1, "a plain program is not asked to broadcast"
        pyro.sample("x", pyro.distributions.Normal(z, 1.0), obs=x)


def plain_guide(x):
    with pyro.plate("rows", 1000, subsample_size=len(x), dim=-1):
        pyro.sample("z", pyro.distributions.Normal(x / 2, 0.5**0.5))


@pytest.mark.parametrize("method", ["guide", "importance"])
def test_plain_pyro_draws_one_by_one_and_unscaled(method):
    bound = PlainBound(PlainProgram(plain_model, plain_guide, "mine"), ("x",))
    x = np.array([0.5, -2.0, 1.0], np.float32)
    found = draws(bound, {"x": x}, 8, method=method)
    assert (found.program, found.rows, found.plates["z"]) == ("mine", "rows", ("rows",))
    # x ~ N(0, 2), whatever the 1,000 rows that the program says there are.
    np.testing.assert_allclose(found.log_weight, [norm(0, 2**0.5).logpdf(x)] * 8, atol=1e-5)
    assert found.prior_predictive["x"].shape == (8, 3)


@pytest.mark.parametrize(
    ("name", "message"), [("counts", "'effect' is global"), ("vqvae", "'z' has one value only")]
)
def test_importance_is_refused_where_weights_mean_nothing(name, message):
    bound, rows = gallery(name)
    with pytest.raises(ProgramError, match=f"{message}.*method='guide'"):
        draws(bound, rows, 3, method="importance")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "nuts"}, "unknown method 'nuts': choose one of guide, importance"),
        ({"num_samples": 0}, "num_samples=0"),
        ({"num_samples": 2.5}, "num_samples=2.5"),
        ({"oversampling": 0}, "oversampling=0"),
        ({"budget": -1}, "budget=-1"),
        ({"seed": -1}, "seed=-1"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(UsageError, match=message):
        draws(linear(), ROWS, **{"num_samples": 3} | options)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="there are no rows"):
        draws(linear(), {"x": np.empty((0, 4), np.float32)}, 3)


def test_a_guide_that_lacks_a_site_is_refused_by_its_name():
    bound = PlainBound(PlainProgram(plain_model, lambda x: None), ("x",))
    with pytest.raises(ProgramError, match="site 'z' of the model has no site in the guide"):
        draws(bound, {"x": np.zeros(3, np.float32)}, 3)


def test_weights_that_are_no_numbers_are_refused():
    bound = linear()
    with torch.no_grad():
        bound.networks["decoder"].layers[0].bias.fill_(torch.nan)
    with pytest.raises(ProgramError, match="row 0: its importance weights are not finite"):
        draws(bound, ROWS, 3)
