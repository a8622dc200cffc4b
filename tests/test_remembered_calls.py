"""Within one run of guide and model a network is computed once for the same arguments, on both backends."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
import pytest
from small_programs import BACKENDS, FEW, batch, bound, loss_and_gradients

from ppl_vae import ELBO, Program, bind
from ppl_vae.backends.common import tracing as common
from ppl_vae.backends.common.calls import Calls, NetworkCall


def tracing(backend):
    return import_module(f"ppl_vae.backends.{backend}.tracing")


def calls_of(made, rows):
    """Return the networks that one run of guide and model computes, in order."""
    recorder = import_module(f"ppl_vae.backends.{made.backend}.recorder").Recorder(made)
    recorder.start()
    if made.backend == "pyro":
        import torch

        tracing("pyro").Tracer(made).pair({name: torch.from_numpy(v) for name, v in rows.items()})
    else:
        import jax

        tracing("numpyro").Tracer(made, jax.random.key(0)).pair(rows)
    return [call.network for call in recorder.calls]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_ladder_walks_its_way_down_once(backend):
    found = calls_of(bound("hvae", backend), batch("hvae"))
    assert sorted(found) == sorted(
        ["up.0", "up.1", "up.2", "posterior.0", "posterior.1", "posterior.2", "prior.0", "prior.1", "decoder"]
    )


# To compile the ladders of ladders takes JAX the longest; the ladder alone is among the short ones.
LONG = ("topdown", "numpyro")


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        pytest.param(case, backend, marks=pytest.mark.slow if (case, backend) == LONG else ())
        for case in FEW
        for backend in BACKENDS
    ],
)
def test_remembering_changes_neither_loss_nor_gradient_nor_state(case, backend, monkeypatch):
    rows, found = batch(case), []
    for remembered in (True, False):
        if not remembered:
            monkeypatch.setattr(common, "Calls", lambda remembered=None, **more: Calls(**more))
        made = bound(case, backend).train()
        value, _, grads = loss_and_gradients(made, ELBO(), rows)
        found.append(({"loss": value} | grads, made.weights()))
    for ours, theirs in zip(*found, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            np.testing.assert_allclose(
                ours[name], value, rtol=1e-5, atol=1e-6 * (1 + np.abs(value).max()), err_msg=name
            )


@dataclass(frozen=True)
class Statistics(Program):
    """The model asks a network that keeps statistics again, on an array of its own and on the guide's."""

    def networks(self, nn):
        return {"norm": nn.BatchNorm(2), "start": nn.Parameter((2,))}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.norm(z) + net.start(), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.norm(x) + net.norm(x) + net.start(), 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_arguments_are_another_call(backend):
    rows = {"x": np.random.default_rng(0).normal(size=(5, 2)).astype("f")}
    # norm(x) and start() once each, norm(z) once more.
    assert sorted(calls_of(bind(Statistics(), backend=backend).train(), rows)) == ["norm", "norm", "start"]


def test_a_network_with_a_state_is_asked_again_without_arguments():
    counted, calls = [], Calls(remembered={})
    for stateful in (True, False):
        for _ in range(2):
            calls.once("network", NetworkCall(lambda: counted.append(0), stateful), (), {})
    assert len(counted) == 3


def test_arguments_differ_by_identity_and_by_values_of_python():
    calls, one, other = Calls(remembered={}), np.zeros(2), np.zeros(2)
    asked = [
        ((one,), {}),
        ((one,), {}),
        ((other,), {}),
        ((one, 3), {}),
        (((one, other),), {}),
        ((one,), {"k": other}),
    ]
    counted = []
    for args, kwargs in asked:
        calls.once("network", NetworkCall(lambda *a, **k: counted.append(a), True), args, kwargs)
    assert len(counted) == len(asked) - 1
