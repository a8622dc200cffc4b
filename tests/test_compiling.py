"""When a step is compiled, and that a run remembers it."""

import logging

import numpy as np
import pytest
import torch
from test_capture import objective

from ppl_vae import fit, load, open_run
from ppl_vae.api import resume
from ppl_vae.backends.pyro import compiling
from ppl_vae.backends.pyro.compiling import Compiled, compiled
from ppl_vae.errors import UsageError

X = (np.random.default_rng(0).random((40, 1, 4, 4)) < 0.4).astype(np.float32)
OPTIONS = {"batch_size": 8, "max_steps": 200, "device": "cpu"}


def small():
    return load("vae", hidden=(8,), z_dim=2)


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
    return compiled(loss, batch, 8, choice, steps), loss


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
        assert compiled(loss, batch, 8, "auto", steps) is loss
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


def test_noise_and_buffers_are_untouched_by_trying_out():
    loss, batch = objective("vqvae", "elbo")
    before = {name: value.clone() for name, value in loss.state_dict().items()}
    noise = torch.get_rng_state()
    assert compiling._seconds(loss, batch, torch.ones(())) > 0
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, before[name]) for name, value in loss.state_dict().items())
    assert all(parameter.grad is None for parameter in loss.parameters())
