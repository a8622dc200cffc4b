"""When a step is compiled, and that a run remembers it."""

import logging

import numpy as np
import pytest
import torch
from test_capture import objective
from torch.utils.data import DataLoader

from ppl_vae import ELBO, bind, fit, load, open_run
from ppl_vae.api import resume
from ppl_vae.backends.pyro import compiling, devices
from ppl_vae.backends.pyro.capture import capture
from ppl_vae.backends.pyro.compiling import Compiled, compiled
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.errors import UsageError

X = (np.random.default_rng(0).random((40, 1, 4, 4)) < 0.4).astype(np.float32)
OPTIONS = {"batch_size": 8, "max_steps": 200, "device": "cpu"}


def small():
    return load("vae", hidden=(8,), z_dim=2)


ONE = {"beta": torch.ones(())}


@pytest.fixture
def eager(monkeypatch):
    """Milliseconds that an uncompiled step is said to take; a compiled one takes half."""
    taken = {"ms": 1.0}

    def seconds(call, batch, weight):
        return taken["ms"] / 1e3 * (0.5 if isinstance(call, Compiled) else 1.0)

    monkeypatch.setattr(compiling, "_seconds", seconds)
    return taken


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr(compiling, "_notes", lambda: tmp_path / "notes")
    return tmp_path / "notes"


def chosen(steps, choice="auto"):
    loss, batch = objective("vae", "elbo")
    return compiled(loss, batch, ONE, 8, choice, steps), loss


def test_a_short_run_is_not_looked_at(monkeypatch, caplog):
    monkeypatch.setattr(compiling, "_seconds", None)  # not callable
    with caplog.at_level(logging.INFO, "ppl_vae"):
        module, loss = chosen(99)
    assert module is loss
    assert not caplog.text


def test_a_run_that_saves_less_than_compiling_takes_says_so(eager, cache, caplog):
    eager["ms"] = 10.0
    loss, batch = objective("vae", "elbo")
    steps = int(compiling.START * 1.2 / (compiling.SAVED * 0.01))
    with caplog.at_level(logging.INFO, "ppl_vae"):
        assert compiled(loss, batch, ONE, 8, "auto", steps) is loss
    assert "runs uncompiled: to compile it takes about 8 s and saves about 4 s" in caplog.text


@pytest.mark.slow
def test_what_was_measured_decides_the_next_time(eager, cache, caplog):
    eager["ms"] = 100.0
    with caplog.at_level(logging.INFO, "ppl_vae"):
        module, _ = chosen(1000)
    assert isinstance(module, Compiled)
    assert "compiled 8" in caplog.text  # and so many operations, in so many seconds
    (note,) = cache.iterdir()
    assert 0.1 < float(note.read_text()) < 300
    note.write_text("1e9")
    module, loss = chosen(1000)
    assert module is loss
    note.write_text("torn off in the midd")
    assert isinstance(chosen(1000)[0], Compiled)


@pytest.mark.slow
def test_a_compiled_step_that_is_slower_is_left(monkeypatch, cache, caplog):
    monkeypatch.setattr(compiling, "_seconds", lambda call, *_: 0.2 if isinstance(call, Compiled) else 0.1)
    with caplog.at_level(logging.INFO, "ppl_vae"):
        module, loss = chosen(1000)
    assert module is loss
    assert "runs uncompiled: 200.0 ms compiled, 100.0 ms not" in caplog.text


@pytest.mark.slow
def test_a_run_keeps_what_auto_decided(eager, cache, tmp_path):
    eager["ms"] = 1000.0
    whole = fit(small(), X, out=tmp_path / "whole", **OPTIONS)
    assert open_run(tmp_path / "whole").config["compile"] == whole.config["compile"] == "on"
    fit(small(), X, out=tmp_path / "part", **OPTIONS | {"max_steps": 120})
    eager["ms"] = 1e-9  # now it would decide otherwise
    part = resume(tmp_path / "part", data=X, max_steps=200)
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


def test_a_program_of_statistics_alone_is_not_compiled(caplog):
    loss, batch = objective("vqvae", "elbo")
    for parameter in loss.parameters():
        parameter.requires_grad_(False)
    assert compiled(loss, batch, ONE, 8, "on") is loss
    assert not caplog.text


def test_what_a_compilation_took_is_noted_for_weights_of_one_shape():
    def digest(width):
        loss = Objective(bind(load("vae", x_shape=(4,), hidden=(width,), z_dim=2), num_data=9), ELBO(), 9)
        return capture(loss, loss.bound, {"x": torch.zeros(3, 4)}, {"beta": torch.ones(())}).digest

    assert digest(8) == digest(8) != digest(9)


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
    assert compiling._seconds(loss, batch, {"beta": torch.ones(())}) > 0
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    assert all(p.grad is g and (g == 0.5).all() for p, g in zip(loss.parameters(), gradients, strict=True))
