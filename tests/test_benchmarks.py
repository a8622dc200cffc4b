"""The benchmarks run, and every contender is given the same work."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def steps(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("steps")


def test_the_hand_written_peer_is_the_same_model(steps):
    from ppl_vae import ELBO, bind, load
    from ppl_vae.backends.pyro.objectives import Objective

    x = (torch.rand(9, 1, 4, 4) < 0.3).float()
    bound = bind(load("vae", x_shape=(1, 4, 4), hidden=(8,), z_dim=3), num_data=9).train()
    peer = steps.HandWrittenVAE(16, (8,), 3)
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in bound.parameters())
    for theirs, ours in zip(peer.parameters(), bound.parameters(), strict=True):
        theirs.data.copy_(ours)
    losses = []
    for call in (lambda: peer(x), lambda: Objective(bound, ELBO(), 9)({"x": x}, torch.ones(())).value):
        torch.manual_seed(0)
        losses.append(call().item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.slow
def test_a_workload_is_measured(steps):
    found = steps.measured(steps.Workload("small", (8,), 2, 16), rounds=2)
    assert found["declared, compiled"]["ratio"] == 1.0
    assert set(found) == {"declared, compiled", "declared", "by hand", "by hand, compiled", "SVI.step"}
    assert all(np.isfinite(row["ms_a_step"]) for row in found.values())
