"""Counts drawn from the program itself: training finds the global latent and the dispersion again."""

import numpy as np
import pyro
import pytest
import torch

from ppl_vae import ELBO, bind, data, fit, load
from ppl_vae.errors import DataError

GENES, BATCHES, ROWS = 6, 2, 1500


def program():
    return load("counts", x_shape=(GENES,), num_batches=BATCHES, z_dim=1, hidden=(32,), decoder_hidden=())


def simulated():
    """Rows of the program with a decoder of moderate effect, and the globals behind them."""
    rng = np.random.default_rng(0)
    truth = bind(program(), seed=1)
    weights = truth.weights()
    weights["mean.body.layers.0.weight"] = rng.normal(size=(GENES, 1)).astype("f") * 0.3
    weights["mean.body.layers.0.bias"] = np.full(GENES, 2.5, "f")
    truth.load_weights(weights)
    covariates = {"batch": rng.integers(0, BATCHES, ROWS), "size": rng.uniform(0.5, 1.5, ROWS).astype("f")}
    torch.manual_seed(0)
    with torch.no_grad():
        given = {name: torch.from_numpy(value) for name, value in covariates.items()}
        trace = pyro.poutine.trace(truth.model).get_trace(n=ROWS, **given)
    drawn = {name: trace.nodes[name]["value"].numpy() for name in ("effect", "dispersion", "x")}
    pyro.clear_param_store()
    return {"x": drawn["x"].astype(np.int64), **covariates}, drawn


def positive(raw):
    return np.log1p(np.exp(raw)) + 1e-4


@pytest.mark.parametrize("backend", [pytest.param("pyro", marks=pytest.mark.slow), "numpyro"])
def test_effect_and_dispersion_are_recovered_within_their_intervals(backend):
    rows, truth = simulated()
    options = {"max_steps": 2500, "batch_size": 250, "lr": "cosine:4e-2:1e-4:2500", "keep": "last"}
    run = fit(program(), data.of({"train": rows}, valid=0), ELBO(), backend=backend, **options)
    found = run.bound.weights()
    # The mean of a gene is shared between the decoder's bias and the effects: their difference is identified.
    loc, scale = found["effect.loc"], positive(found["effect.raw"])
    effect = (loc[1] - loc[0] - truth["effect"][1] + truth["effect"][0]) / np.hypot(*scale)
    loc, scale = found["dispersion.loc"], positive(found["dispersion.raw"])
    dispersion = (loc - np.log(truth["dispersion"])) / scale
    errors = np.abs(np.concatenate([effect, dispersion]))
    # 95 % intervals of 12 numbers: fewer than 10 inside has a probability of 2 %, and a mean-field guide's
    # intervals are if anything too narrow. An interval is a tenth of the prior's or less.
    assert (errors < 1.96).sum() >= 10
    assert errors.max() < 4
    assert np.hypot(*positive(found["effect.raw"])).max() < 0.15
    assert scale.max() < 0.1


@pytest.mark.parametrize("likelihood", ["negative_binomial", "poisson"])
def test_draws_have_the_mean_of_their_size_and_batch(likelihood):
    made = load("counts", x_shape=(4,), num_batches=2, likelihood=likelihood)
    run = fit(made, {"x": np.ones((20, 4), int), "batch": np.arange(20) % 2}, max_steps=1, batch_size=5)
    small, large = (
        run.sample(2000, covariates={"batch": np.zeros(2000, int), "size": np.full(2000, size, "f")})
        for size in (1.0, 5.0)
    )
    np.testing.assert_allclose(large["x_mean"], 5 * small["x_mean"], rtol=1e-4)
    assert small["x"].mean() == pytest.approx(small["x_mean"].mean(), rel=0.2)
    assert set(np.unique(large["x"] % 1)) == {0.0}


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_draws_and_means_follow_what_the_guide_learned_of_the_global_latents(backend):
    rows = {"x": np.ones((20, 4), int), "batch": np.arange(20) % 2}
    made = load("counts", x_shape=(4,), num_batches=2)
    run = fit(made, rows, max_steps=1, batch_size=5, backend=backend)
    weights = run.bound.weights()
    weights["effect.loc"] = np.stack([np.zeros(4), np.full(4, 3.0)]).astype("f")
    weights |= {f"{name}.raw": np.full_like(weights[f"{name}.raw"], -20) for name in ("effect", "dispersion")}
    run.bound.load_weights(weights)
    latents = run.encode(rows)
    drawn, decoded = (
        [verb(given, covariates={"batch": np.full(20, batch)}) for batch in (0, 1)]
        for verb, given in ((run.sample, 20), (run.decode, latents))
    )
    # The prior's effects have a scale of 1; the guide's are all but certain (1e-4): a factor e^3 between
    # the batches, for the same latents.
    np.testing.assert_allclose(decoded[1]["x"] / decoded[0]["x"], np.exp(3.0), rtol=2e-3)
    np.testing.assert_allclose(drawn[1]["x_mean"] / drawn[0]["x_mean"], np.exp(3.0), rtol=2e-3)
    array = run.decode(latents["z"], covariates={"batch": rows["batch"]})["x"]
    np.testing.assert_array_equal(array, run.decode(latents, covariates={"batch": rows["batch"]})["x"])
    with pytest.raises(DataError, match="effect, dispersion come from the guide, which needs 'batch'"):
        run.sample(3)
