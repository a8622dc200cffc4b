"""The importance weighted bound, compiled or not, is one number."""

import math

import numpy as np
import pytest
import torch
from exact import decoder, draw, evidence, program, weights
from posteriors import BACKENDS, ROWS, linear, quickly
from training_cases import example

from ppl_vae import bind, evaluate, fit, load
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.numpyro import passes
from ppl_vae.backends.pyro import importance
from ppl_vae.backends.pyro.importance import Weights, importance_bounds
from ppl_vae.errors import UsageError


def rows_for(name, n=9):
    program, batch = example(name, n)
    return bind(program, num_data=50).eval(), {k: torch.from_numpy(v) for k, v in batch.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["vae", "hvae"])
def test_compiled_bounds_are_those_by_eager_passes(name):
    bound, rows = rows_for(name)
    batches = [{k: v[part] for k, v in rows.items()} for part in (slice(0, 4), slice(4, 8), slice(8, 9))]
    found = []
    with torch.no_grad(), torch._inductor.config.patch(fallback_random=True):
        for compiled in (False, True):
            torch.manual_seed(3)
            found.append(torch.cat(importance_bounds(bound, batches, 7, 3, compiled)))
    assert found[0].shape == (9,)
    # log p(x, z) is a sum in single precision: 1e-6 of its size.
    torch.testing.assert_close(found[1], found[0], rtol=1e-5, atol=1e-4)


def test_a_bound_is_the_mean_of_all_passes():
    bound, rows = rows_for("vae")
    with torch.no_grad():
        torch.manual_seed(3)
        found = torch.cat(importance_bounds(bound, [rows], 7, 3, compiled=False))
        torch.manual_seed(3)
        weights = torch.cat([Weights(bound, n)(rows).exp()[None] for n in (3, 3, 1)]).sum(0)
    torch.testing.assert_close(found, (weights / 7).log())


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bound_is_added_up_in_parts_of_any_number_of_passes(backend, monkeypatch):
    bound = linear(backend, shift=0.3, inflate=1.5)
    monkeypatch.setattr(passes, "compiled", quickly)
    rows = {"x": ROWS["x"].copy()}
    rows["x"][2] = np.nan  # as of a run that diverged
    found = [score(bound, rows, 7, budget=1).iw]
    monkeypatch.setattr(passes, "TOGETHER", 2)
    monkeypatch.setattr(importance, "KEPT", 2)
    found.append(score(bound, rows, 7, budget=1).iw)
    assert np.isnan(found[0]).tolist() == [row == 2 for row in range(7)]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-12)


def test_a_compiled_evaluation_reaches_the_evidence():
    matrix, offset = decoder()
    x = draw(50, matrix, offset)
    bound = bind(program(), num_data=50)
    bound.load_weights(weights(matrix, offset))
    # With the exact posterior every weight is the evidence: what is left is single precision on about ten
    # nats. A budget of 100 numbers makes chunks of many sizes.
    found = score(bound, {"x": x}, 7, compile="on", budget=100)
    np.testing.assert_allclose(found.iw, evidence(x, matrix, offset), atol=1e-4)
    bound.load_weights(weights(matrix, offset, shift=0.3, inflate=1.5))
    found = score(bound, {"x": x}, 1000, compile="on")
    gap = evidence(x, matrix, offset) - found.iw
    assert -4 * gap.std(ddof=1) / np.sqrt(50) < gap.mean() < 0.01 + 4 * gap.std(ddof=1) / np.sqrt(50)


def test_a_wrong_choice_is_refused():
    run = fit(
        load("vae", hidden=(4,), z_dim=2), np.zeros((12, 1, 2, 2), np.float32), batch_size=4, max_steps=1
    )
    with pytest.raises(UsageError, match="unknown compile 'maybe': choose one of auto, on, off"):
        evaluate(run, "train", compile="maybe")
    with pytest.raises(UsageError, match="compile='off': NumPyro always compiles"):
        fit(load("vae"), np.zeros((12, 1, 2, 2), np.float32), backend="numpyro", compile="off")
    assert math.isfinite(evaluate(run, "train", 2)["iw_nats"])
