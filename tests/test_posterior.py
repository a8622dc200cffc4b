"""Posterior draws against closed forms: weights, moments, densities, predictions, the prior."""

import re

import numpy as np
import pyro
import pytest
import torch
from exact import SIGMA, evidence, posterior, program, weights
from posteriors import BACKENDS, ROWS, B, W, draws, linear
from scipy.stats import multivariate_normal, norm

from ppl_vae import bind, reading
from ppl_vae.errors import DataError, ProgramError, UsageError


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("method", ["guide", "importance"])
def test_an_exact_guide_has_equal_weights_the_evidence(method, backend):
    found = draws(linear(backend), ROWS, 50, method=method)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_resampling_by_weights_corrects_a_wrong_guide(backend):
    bound = linear(backend, shift=0.3, inflate=1.5)
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


@pytest.mark.parametrize("backend", BACKENDS)
def test_weighted_draws_of_the_guide_speak_of_the_posterior(backend):
    found = draws(linear(backend, shift=0.3, inflate=1.5), ROWS, 4000)
    share = np.exp(found.log_weight - found.log_weight.max(0))
    mean = np.einsum("sn,snz->nz", share / share.sum(0), found.posterior["z"])
    matrix, offset, cov = posterior(W, B)
    error = np.sqrt(np.diag(cov) / found.row_statistics["ess"].min())
    assert (np.abs(mean - ROWS["x"] @ matrix.T - offset) / error).max() < 4.5
    assert np.abs(found.row_statistics["log_evidence"] - evidence(ROWS["x"], W, B)).max() < 0.1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("inflate", "low", "high"), [(0.5, 0.55, 0.95), (1.5, -2.0, 0.3)])
def test_pareto_k_tells_a_narrow_guide_from_a_wide_one(inflate, low, high, backend):
    # Proposals of variance c^2 < 1 for a target of variance 1: the weights have tail index 1 - c^2.
    # For c > 1 they are bounded.
    found = draws(linear(backend, inflate=inflate), ROWS, 2000, method="importance", predictive=False)
    assert low < np.median(found.row_statistics["pareto_k"]) < high


@pytest.mark.parametrize(
    ("backend", "budget"),
    [(backend, budget) for backend in BACKENDS for budget in (1, 13, 2**22)] + [("pyro", 999)],
)
@pytest.mark.parametrize("method", ["guide", "importance"])
def test_densities_belong_to_their_draws_in_chunks_of_any_size(method, budget, backend):
    found = draws(
        linear(backend, shift=0.2), ROWS, 5, method=method, budget=budget, oversampling=3, predictive=False
    )
    z = found.posterior["z"].astype(np.float64)
    likelihood = norm(z @ W.T + B, SIGMA).logpdf(ROWS["x"]).sum(-1)
    np.testing.assert_allclose(found.log_likelihood["x"], likelihood, atol=1e-4)
    matrix, offset, cov = posterior(W, B)
    guide = multivariate_normal(np.zeros(2), cov).logpdf(z - ROWS["x"] @ matrix.T - offset - 0.2)
    prior = norm.logpdf(z).sum(-1)
    np.testing.assert_allclose(found.log_weight, likelihood + prior - guide, atol=1e-4)
    np.testing.assert_array_equal(found.observed_data["x"], ROWS["x"])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("budget", [500, 2**22])
def test_predictions_and_prior_are_draws_of_the_model(budget, backend):
    found = draws(linear(backend), ROWS, 400, budget=budget)
    for z, x in [(found.posterior, found.posterior_predictive), (found.prior, found.prior_predictive)]:
        noise = (x["x"] - z["z"].astype(np.float64) @ W.T - B) / SIGMA
        # 11,200 standard normal numbers, each beside its own latent: within 4.5 standard errors.
        assert abs(noise.mean()) < 4.5 / np.sqrt(noise.size)
        assert abs(noise.var() - 1) < 4.5 * np.sqrt(2 / noise.size)
    z = found.prior["z"].reshape(-1, 2)
    assert np.abs(z.mean(0)).max() < 4.5 / np.sqrt(len(z))
    assert np.abs(np.cov(z.T) - np.eye(2)).max() < 4.5 * np.sqrt(2 / len(z))


@pytest.mark.parametrize("backend", BACKENDS)
def test_guide_prior_and_predictions_have_noise_of_their_own(backend):
    found = draws(linear(backend), ROWS, 500)
    noise = [found.posterior["z"] - found.posterior["z"].mean(0), found.prior["z"]]
    noise += [
        (group["x"] - group["x"].mean(0))[..., :2]
        for group in (found.posterior_predictive, found.prior_predictive)
    ]
    correlation = np.corrcoef([part.ravel() for part in noise])
    # Within one kind of draw latents and observations belong together; across kinds nothing does.
    for one, other in [(0, 1), (0, 3), (1, 2), (2, 3)]:
        assert abs(correlation[one, other]) < 4.5 / np.sqrt(noise[0].size / 4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_depend_on_the_seed_alone_and_leave_no_trace(backend):
    bound, held = linear(backend), set(pyro.get_param_store())
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
    assert set(pyro.get_param_store()) == held


@pytest.mark.parametrize("backend", BACKENDS)
def test_precision_follows_the_program(backend):
    double = {"x": ROWS["x"].astype(np.float64)}
    found = draws(linear(backend), double, 2, predictive=False)
    assert {found.posterior["z"].dtype, found.observed_data["x"].dtype} == {np.dtype(np.float32)}
    assert found.log_weight.dtype == np.float64


def test_a_program_in_double_precision():
    bound = bind(program(), num_data=7).double()
    bound.load_weights(weights(W, B))
    found = draws(bound, ROWS, 2)
    assert {found.posterior["z"].dtype, found.prior_predictive["x"].dtype} == {np.dtype(np.float64)}
    np.testing.assert_allclose(found.log_weight, [evidence(ROWS["x"], W, B)] * 2, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_predictions_are_made_only_where_asked_for(backend):
    found = draws(linear(backend), ROWS, 2, predictive=False)
    assert not found.prior
    assert not found.prior_predictive
    assert not found.posterior_predictive


@pytest.mark.parametrize("backend", BACKENDS)
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
def test_impossible_options_are_refused(options, message, backend):
    with pytest.raises(UsageError, match=message):
        draws(linear(backend), ROWS, **{"num_samples": 3} | options)


@pytest.mark.parametrize("method", ["guide", "importance"])
def test_draws_beyond_memory_are_refused_with_the_number_that_fits(method, monkeypatch):
    monkeypatch.setattr(reading, "memory", lambda: 20_000)
    bound = linear("pyro")
    with pytest.raises(UsageError, match="the result takes 0.. GiB.*take num_samples of at most") as refusal:
        draws(bound, ROWS, 500_000, method=method)
    most = int(re.search(r"at most (\d+)", str(refusal.value))[1])
    found = draws(bound, ROWS, most, method=method)
    groups = (found.posterior, found.log_likelihood, found.posterior_predictive, found.prior)
    groups += (found.prior_predictive, {"log_weight": found.log_weight})
    held = sum(values.nbytes for group in groups for values in group.values())
    assert held <= 10_000
    with pytest.raises(UsageError, match=f"num_samples={most + 1}"):
        draws(bound, ROWS, most + 1, method=method)


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_rows_are_refused(backend):
    with pytest.raises(DataError, match="there are no rows"):
        draws(linear(backend), {"x": np.empty((0, 4), np.float32)}, 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_no_numbers_are_refused(backend):
    bound = linear(backend)
    bound.load_weights(weights(W, B) | {"decoder.layers.0.bias": np.full(4, np.nan, np.float32)})
    with pytest.raises(ProgramError, match="row 0: its importance weights are not finite"):
        draws(bound, ROWS, 3)
