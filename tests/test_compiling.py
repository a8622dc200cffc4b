"""When a step is compiled, and that a run remembers it."""

import logging
from itertools import count
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_capture import objective
from torch.utils.data import DataLoader

from ppl_vae import fit, load, open_run
from ppl_vae.api import resume
from ppl_vae.backends.pyro import compiling, devices
from ppl_vae.backends.pyro.capture import untouched
from ppl_vae.backends.pyro.compiling import Compiled, compiled
from ppl_vae.errors import UsageError

X = (np.random.default_rng(0).random((40, 1, 4, 4)) < 0.4).astype(np.float32)
OPTIONS = {"batch_size": 8, "max_steps": 20, "device": "cpu"}


def small():
    return load("vae", hidden=(8,), z_dim=2)


ONE = {"beta": torch.ones(())}


def chosen(steps, choice="auto"):
    loss, batch = objective("vae", "elbo")
    return compiled(loss, batch, ONE, 8, choice, steps), loss


def test_a_short_run_is_not_captured(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "capture", None)  # not callable
    with caplog.at_level(logging.INFO, "ppl_vae"):
        module, loss = chosen(compiling.LEAST_STEPS - 1)
    assert module is loss
    assert not caplog.text


@pytest.mark.parametrize(("nodes", "steps"), [(50, 7334), (100, 5334), (1000, 3534), (10_000, 3354)])
def test_what_a_graph_earns(nodes, steps):
    # 3 s and 0.05 s a node, against 15e-6 s saved a node and step: the first step count that pays.
    assert not compiling.earns(nodes, steps - 1)
    assert compiling.earns(nodes, steps)


def test_a_run_that_saves_less_than_compiling_takes_says_so(caplog):
    with caplog.at_level(logging.INFO, "ppl_vae"):
        module, loss = chosen(4000)
    assert module is loss
    assert "runs uncompiled: to compile it takes about 7 s and saves about 5 s" in caplog.text


@pytest.fixture
def soon(monkeypatch):
    """Small runs are long enough, and a graph goes for its own code, which would take seconds to make."""
    from torch._inductor import compile_fx

    monkeypatch.setattr(compile_fx, "compile_fx", lambda graph, _: graph)
    monkeypatch.setattr(compiling, "LEAST_STEPS", 9)
    monkeypatch.setattr(compiling, "earns", lambda nodes, steps: steps >= 10)


def test_no_clock_decides(soon, monkeypatch, caplog):
    backward = count(0, -1000).__next__
    monkeypatch.setattr(compiling, "time", SimpleNamespace(perf_counter=backward))
    with caplog.at_level(logging.INFO, "ppl_vae"):
        module, loss = chosen(9)
        assert module is loss
        assert isinstance(chosen(10)[0], Compiled)
    assert "compiled 8" in caplog.text  # and so many operations, in so many seconds


def test_a_run_keeps_what_auto_decided(soon, monkeypatch, tmp_path):
    whole = fit(small(), X, out=tmp_path / "whole", **OPTIONS)
    assert open_run(tmp_path / "whole").config["compile"] == whole.config["compile"] == "on"
    fit(small(), X, out=tmp_path / "part", **OPTIONS | {"max_steps": 12})
    monkeypatch.setattr(compiling, "LEAST_STEPS", 10**9)  # now it would decide otherwise
    part = resume(tmp_path / "part", data=X, max_steps=20)
    for name, value in whole.bound.weights().items():
        np.testing.assert_array_equal(part.bound.weights()[name], value)
    again = fit(small(), X, out=tmp_path / "part", resume=True, compile="auto", **OPTIONS)
    assert again.config["compile"] == "on"
    with pytest.raises(UsageError, match="was trained with compile=on: it cannot go on with off"):
        fit(small(), X, out=tmp_path / "part", resume=True, compile="off", **OPTIONS)


def test_a_compiler_that_fails_leaves_the_step_uncompiled(monkeypatch, caplog):
    from torch._inductor import compile_fx

    def fails(*_):
        raise OSError("no space left on the device\nand a page of details")

    monkeypatch.setattr(compile_fx, "compile_fx", fails)
    module, loss = chosen(1000, "on")
    assert module is loss
    assert "the step runs uncompiled: OSError: no space left on the device" in caplog.text
    assert "details" not in caplog.text


@pytest.mark.parametrize(
    "error", [FileNotFoundError("of another process"), torch.OutOfMemoryError("all taken")]
)
def test_a_compiler_that_fails_once_starts_again_by_name(error, monkeypatch, caplog):
    from torch._inductor import compile_fx, utils

    kept = [error]  # as the compiler keeps what has failed
    monkeypatch.setattr(utils, "_registered_caches", [SimpleNamespace(cache_clear=kept.clear)])

    def fails_once(graph, _):
        for failed in kept:
            raise failed
        return graph

    monkeypatch.setattr(compile_fx, "compile_fx", fails_once)
    module, loss = chosen(1000, "on")
    assert isinstance(module, Compiled)
    assert all(parameter.grad is None for parameter in loss.parameters())
    (line,) = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert line == f"the compiler failed and starts once more: {type(error).__name__}: {error}"


@pytest.mark.slow
def test_workers_that_have_died_are_replaced(monkeypatch, caplog):
    from torch._inductor import compile_fx
    from torch._inductor.async_compile import AsyncCompile, shutdown_compile_workers

    def on_workers(graph, _):
        AsyncCompile.process_pool().submit(str, 1).result(60)
        return graph

    monkeypatch.setattr(compile_fx, "compile_fx", on_workers)
    AsyncCompile.process_pool().shutdown()
    assert isinstance(chosen(1000, "on")[0], Compiled)
    assert "once more: RuntimeError: Attempting to use a closed pool" in caplog.text
    shutdown_compile_workers()


def test_a_program_of_statistics_alone_is_not_compiled(caplog):
    loss, batch = objective("vqvae", "elbo")
    for parameter in loss.parameters():
        parameter.requires_grad_(False)
    assert compiled(loss, batch, ONE, 8, "on") is loss
    assert not caplog.text


def test_a_run_that_could_not_be_compiled_goes_on_with_the_same_words(monkeypatch, tmp_path, caplog):
    from torch._inductor import compile_fx

    monkeypatch.setattr(compile_fx, "compile_fx", None)  # not callable
    options = OPTIONS | {"compile": "on"}
    fit(small(), X, out=tmp_path, **options | {"max_steps": 3})
    caplog.clear()
    run = fit(small(), X, out=tmp_path, resume=True, **options | {"max_steps": 5})
    assert run.config["compile"] == "off"
    assert "goes on uncompiled, as it began" in caplog.text


def test_a_loader_s_batches_are_compiled_for_their_own_size(monkeypatch):
    sizes = []
    monkeypatch.setattr(
        devices, "compiled", lambda loss, batch, scalars, rows, *_: sizes.append(rows) or loss
    )
    rows = list(torch.from_numpy(np.repeat(X, 8, 0)))
    for accumulate in (1, 2):
        loader = DataLoader(rows, batch_size=200)
        fit(small(), loader, max_steps=2, compile="on", accumulate=accumulate)
    assert sizes == [200, 100]


def test_noise_and_buffers_are_untouched_by_trying_out():
    loss, batch = objective("vqvae", "elbo")
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    noise, gradients = torch.get_rng_state(), [torch.full_like(p, 0.5) for p in loss.parameters()]
    for parameter, gradient in zip(loss.parameters(), gradients, strict=True):
        parameter.grad = gradient
    with untouched(loss):
        loss(dict(batch), ONE).value.backward()
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    assert all(p.grad is g and (g == 0.5).all() for p, g in zip(loss.parameters(), gradients, strict=True))
