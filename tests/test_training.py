"""The training loop on both backends: what is kept, how it resumes, how it stops."""

import importlib
import json
import os
import signal
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from training_cases import FIELDS, bits, rows, same, small_data, train_rows, vae

from ppl_vae import ELBO, IWAE, bind, data, evaluate, fit, load, open_run
from ppl_vae.api import board, resume
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.options import Training

BACKENDS = ("pyro", "numpyro")
both = pytest.mark.parametrize("backend", BACKENDS)


@both
def test_history_counts_every_step_and_the_odd_last_batch(backend):
    run = fit(vae(), small_data(), epochs=3, batch_size=32, log_every=2, backend=backend)
    # 70 rows make 3 batches (32, 32, 6): rows of the history end at multiples of 2 and at the end of an
    # epoch.
    assert train_rows(run, "step") == [2, 3, 4, 6, 8, 9]
    assert [row["step"] for row in run.history if row["split"] == "valid"] == [3, 6, 9]
    assert all(np.isfinite(row["elbo_nats"]) for row in run.history)


@both
def test_metrics_are_means_over_the_steps_since_the_last(backend):
    fine, coarse = (
        fit(vae(), small_data(64), epochs=1, batch_size=32, log_every=every, backend=backend)
        for every in (1, 3)
    )
    assert (len(train_rows(fine, "step")), len(train_rows(coarse, "step"))) == (2, 1)
    for name in ("loss", "elbo_nats", "rate_nats", "distortion_nats"):
        assert train_rows(coarse, name) == pytest.approx([np.mean(train_rows(fine, name))], rel=1e-6)


@both
def test_the_same_seed_gives_the_same_weights(backend):
    one, again, other = (
        fit(vae(), small_data(), epochs=2, batch_size=32, seed=seed, backend=backend).bound.weights()
        for seed in (3, 3, 4)
    )
    assert same(one, again) and not same(one, other)


def test_the_users_noise_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(vae(), small_data(), max_steps=1, batch_size=32)
    assert torch.equal(torch.rand(3), expected)


def resumable(name):
    """Return program, data, objective and optimizer of a run with much to resume."""
    rng = np.random.default_rng(0)
    if name == "vae":
        found = data.of(rng.random((70, 4, 4)), levels=None, kind="image")
        return vae(), data.of(found, binarize="dynamic"), ELBO(warm_up=5), "adam"
    made = load("vqvae", codes=8, code_dim=4, hidden=8)
    return made, rng.random((70, 1, 8, 8)).astype("f"), ELBO(), "adamax"


STOPS = [("pyro", name, step) for name in ("vae", "vqvae") for step in (1, 3, 5)]
STOPS += [("numpyro", "vae", 5), ("numpyro", "vqvae", 3)]
STOPS += [pytest.param("numpyro", "vae", 1, marks=pytest.mark.slow)]


@pytest.mark.parametrize(("backend", "name", "stop_at"), STOPS)
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(tmp_path, backend, name, stop_at):
    made, found, objective, optimizer = resumable(name)
    options = {
        "epochs": 3, "batch_size": 32, "ema": 0.9, "clip_norm": 1.0, "log_every": 3, "checkpoint_every": 0.0,
        "optimizer": optimizer, "backend": backend, "lr": "plateau:1e-3:0.5:0:1000",
    }  # fmt: skip
    whole = fit(made, found, objective, out=tmp_path / "whole", **options)

    def interrupt(event, state):
        if event in ("log", "valid") and state["position"].step >= stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    more = options | {"log_every": 1}
    part = fit(made, found, objective, out=tmp_path / "part", callbacks=[interrupt], **more)
    assert part.stopped_by == "SIGTERM" and part.steps < whole.steps
    going_on = resume(tmp_path / "part", data=found, log_every=3)
    assert same(going_on.bound.weights(), whole.bound.weights())
    files = ["weights.safetensors"] + ["state.safetensors"] * (backend == "numpyro")
    for file in files:  # torch's archives of equal states differ
        assert (tmp_path / "part" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    rates = {row["epoch"]: row["lr"] for row in whole.history if row["split"] == "train"}
    assert rates == {0: 1e-3, 1: 1e-3, 2: 5e-4}  # no bound rises by 1000 nats
    positions = [json.loads((tmp_path / f / "position.json").read_text()) for f in ("whole", "part")]
    assert positions[0] | {"seconds": 0} == positions[1] | {"seconds": 0}
    opened = open_run(tmp_path / "part", data=found)
    assert same(opened.bound.weights(), whole.bound.weights())
    assert evaluate(opened)["elbo_nats"] == evaluate(whole)["elbo_nats"]


def test_ctrl_c_returns_the_run_as_far_as_it_got():
    def interrupt(event, state):
        if event == "log":
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    run = fit(vae(), small_data(), epochs=50, batch_size=32, log_every=1, callbacks=[interrupt])
    assert run.steps == 1
    assert run.stopped_by == "SIGINT"
    assert evaluate(run)["n"] == 20
    assert signal.getsignal(signal.SIGINT) is before


@both
def test_early_stopping_keeps_the_best_weights_on_validation(tmp_path, backend):
    options = {"epochs": 400, "batch_size": 16, "lr": 0.02, "patience": 3, "backend": backend}
    run = fit(vae(), small_data(16), out=tmp_path / "run", **options)
    bounds = [row["elbo_nats"] for row in run.history if row["split"] == "valid"]
    assert len(bounds) < 400
    assert int(np.argmax(bounds)) == len(bounds) - 4
    for one in (run, open_run(tmp_path / "run", data=small_data(16))):
        assert evaluate(one, "valid")["elbo_nats"] == pytest.approx(max(bounds), abs=1e-9)


@both
def test_the_average_of_the_weights_is_what_is_kept(backend):
    seen = []
    options = {"max_steps": 4, "batch_size": 70, "keep": "last", "log_every": 1, "backend": backend}

    def keep(event, state):
        if event == "log":
            seen.append(state["run"].bound.weights())

    fit(vae(), small_data(), callbacks=[keep], **options)
    kept = fit(vae(), small_data(), ema=0.5, **options).bound.weights()
    name = "decoder.body.layers.0.weight"
    # Each step weighs half of the next one; the first weights, which no step made, weigh nothing.
    average = np.average([weights[name] for weights in seen], axis=0, weights=[1, 2, 4, 8])
    np.testing.assert_allclose(kept[name], average, atol=1e-6)


def test_beta_zero_leaves_the_rate_unpaid_and_the_report_is_the_unweighted_bound():
    run = fit(vae(), small_data(), ELBO(beta=0.0), max_steps=60, batch_size=70, lr=1e-2, log_every=60)
    row = run.history[0]
    assert row["beta"] == 0
    assert row["loss"] == pytest.approx(row["distortion_nats"], rel=1e-6)
    assert row["elbo_nats"] == pytest.approx(-row["distortion_nats"] - row["rate_nats"], rel=1e-6)


@both
def test_a_warm_up_rises_by_the_step(backend):
    options = {"max_steps": 6, "batch_size": 70, "log_every": 1, "lr": "linear:0:0.1:5", "backend": backend}
    run = fit(vae(), small_data(), ELBO(beta=2.0, warm_up=4), **options)
    assert train_rows(run, "beta") == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]
    assert train_rows(run, "lr") == pytest.approx([0.0, 0.02, 0.04, 0.06, 0.08, 0.1])


COUNTS = {"x": np.ones((64, 3), "f"), "batch": np.arange(64) % 2, "size": np.ones(64, "f")}


def test_a_plateau_is_for_a_learning_rate_and_needs_validation_rows():
    found = data.of(np.random.default_rng(0).random((30, 4, 4)), levels=None, kind="image", valid=0)
    with pytest.raises(UsageError, match=r"lr=plateau:\.\.\. needs validation rows"):
        fit(vae(), found, epochs=1, lr="plateau:1e-3")
    for objective in (ELBO(beta="plateau:1"), "elbo(beta=plateau:1)"):
        with pytest.raises(UsageError, match="beta: the schedule plateau:1:.* is for learning rates alone"):
            fit(vae(), np.zeros((30, 16), np.float32), objective, epochs=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": ELBO(warm_up=1000)}, "warm-up of 1000 steps"),
        ({"batch_size": 71}, "batch_size=71"),
        ({"epoch": 3}, "no option 'epoch'"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": -1.0}, "not negative"),
        ({"lr": "cosine:1:0:1000"}, "longer than the run"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"device": 3}, "device=3: give a text"),
        ({"clip_norm": "1"}, "clip_norm='1': give a number or None"),
        ({"betas": 0.9}, r"betas=0.9: give tuple\[float, float\]"),
        ({"betas": (0.9,)}, r"betas=\(0.9,\): give tuple\[float, float\]"),
        ({"device": "tpu", "backend": "numpyro"}, "unknown device 'tpu'"),
        ({"device": "cuda:9", "backend": "numpyro"}, "device 'cuda:9'"),
        ({"precision": "16"}, "unknown precision"),
        ({"compile": "yes"}, "unknown compile 'yes'"),
        ({"backend": "jax"}, "unknown backend"),
        ({"objective": "elbow"}, "unknown objective"),
        (
            {"objective": "pyro.infer.Trace_ELBO", "backend": "numpyro"},
            "unknown ELBO of numpyro.infer 'pyro.infer.Trace_ELBO'",
        ),
        ({"resume": True}, "need a run folder"),
    ],
)
def test_impossible_options_are_refused_by_name(changes, message):
    with pytest.raises(UsageError, match=message):
        fit(vae(), small_data(), **{"max_steps": 2, "batch_size": 32} | changes)


@both
def test_importance_weights_of_a_global_latent_are_refused_by_its_name(backend):
    with pytest.raises(ProgramError, match="site 'effect' is global"):
        fit(load("counts"), data.of(COUNTS), IWAE(2), max_steps=2, batch_size=32, backend=backend)


@both
def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path, backend):
    program, out = vae(likelihood="poisson"), tmp_path / "run"
    options = {"max_steps": 200, "batch_size": 35, "lr": 50.0, "log_every": 1, "backend": backend}
    with pytest.raises(RunError, match="the loss became"):
        fit(program, 50 * bits(), checkpoint_every=0.0, out=out, **options)
    kept = open_run(out, data=50 * bits()).bound.weights()
    assert np.isfinite(kept["encoder.body.layers.0.bias"]).all()


@pytest.mark.parametrize(
    ("backend", "objective"),
    [
        ("pyro", "pyro.infer.Trace_ELBO"),
        ("pyro", IWAE(3)),
        ("numpyro", "numpyro.infer.Trace_ELBO(num_particles=2)"),
        ("numpyro", IWAE(3)),
        pytest.param("numpyro", ELBO(particles=2, beta=0.5), marks=pytest.mark.slow),
    ],
)
def test_any_objective_goes_through_the_same_trainer(backend, objective):
    options = {"max_steps": 100, "batch_size": 70, "lr": 1e-2, "log_every": 10, "backend": backend}
    losses = train_rows(fit(vae(), small_data(), objective, **options), "loss")
    # Training starts at the mean of these bits, which have little else to learn.
    assert losses[-1] < 0.99 * losses[0]


@both
@pytest.mark.parametrize("stock", ["an object", "its text"])
def test_a_stock_elbo_trains_to_the_weights_of_ours(backend, stock):
    text = f"{backend}.infer.TraceMeanField_ELBO"
    kind = backend_named(backend).stock_objective("TraceMeanField_ELBO")
    objective = text if stock == "its text" else kind()
    options = {"max_steps": 20, "batch_size": 32, "lr": 1e-2, "backend": backend}
    made = fit(vae(), small_data(64), objective, **options).bound.weights()
    for name, value in fit(vae(), small_data(64), ELBO(), **options).bound.weights().items():
        np.testing.assert_allclose(made[name], value, atol=1e-4)


def test_a_callable_is_an_objective():
    def squared(model, guide, **batch):
        return pyro.infer.Trace_ELBO().differentiable_loss(model, guide, **batch)

    options = {"max_steps": 3, "batch_size": 70}
    stock = fit(vae(), small_data(), pyro.infer.Trace_ELBO(), **options).bound.weights()
    assert same(fit(vae(), small_data(), squared, **options).bound.weights(), stock)


class Batches:
    """A loader of batches that is no loader of torch's."""

    batch_size = 32

    def __init__(self, parts):
        self.parts = parts

    def __len__(self):
        return len(self.parts)

    def __iter__(self):
        return iter(self.parts)


@both
@pytest.mark.parametrize("kind", ["array", "pair", "dict"])
@pytest.mark.parametrize("loader", ["torch", "own"])
def test_a_loader_of_batches_is_data(backend, kind, loader):
    form = {"array": lambda x: x, "pair": lambda x: (x, np.zeros(len(x))), "dict": lambda x: {"x": x}}[kind]
    if loader == "torch":
        x = torch.from_numpy(bits(64))
        items = {"array": x, "pair": list(zip(x, torch.arange(64), strict=True))}
        items |= {"dict": [{"x": one} for one in x]}
        found = torch.utils.data.DataLoader(items[kind], batch_size=32)
    else:
        found = Batches([form(bits(64)[i : i + 32]) for i in (0, 32)])
    run = fit(vae(), found, epochs=2, backend=backend)
    assert (run.steps, run.program.x_shape, run.bound.num_data) == (4, (1, 4, 4), 64)


# That a VQ-VAE trains on NumPyro is seen where it resumes.
SHORT = (("pyro", "counts"), ("numpyro", "counts"), ("pyro", "vqvae"))


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        pytest.param(backend, name, marks=() if (backend, name) in SHORT else pytest.mark.slow)
        for backend in BACKENDS
        for name in ("counts", "vqvae", "hvae", "linear_gaussian")
    ],
)
def test_every_program_trains_and_is_evaluated(backend, name):
    program = load(name, **FIELDS.get(name, {}))
    options = {"max_steps": 30, "batch_size": 32, "lr": 3e-2, "log_every": 10, "backend": backend}
    run = fit(program, rows(name, 64), **options)
    losses = train_rows(run, "loss")
    assert losses[-1] < losses[0]
    result = evaluate(run, "train", importance_samples=5)
    note = {"counts": "is global", "vqvae": "the guide is deterministic"}.get(name)
    if note is None:
        # Bits without structure leave latents without use, and both bounds with noise of their own.
        assert result["iw_nats"] > result["elbo_nats"] - 0.01
    else:
        assert result["iw_nats"] is None and note in result["iw_note"]
    if name == "vqvae":
        assert {"perplexity", "usage", "penalty/commitment"} <= set(run.history[0])


@both
def test_bfloat16_networks_leave_probabilities_in_single_precision(backend):
    options = {"max_steps": 40, "batch_size": 70, "lr": 1e-2, "log_every": 1, "backend": backend}
    half = fit(vae(), small_data(), precision="bf16-mixed", **options)
    single = fit(vae(), small_data(), **options)
    assert all(value.dtype == np.float32 for value in half.bound.weights().values())
    assert half.history[0]["loss"] != single.history[0]["loss"]
    assert half.history[0]["loss"] == pytest.approx(single.history[0]["loss"], rel=1e-2)
    assert evaluate(half)["elbo_nats"] == pytest.approx(evaluate(single)["elbo_nats"], abs=0.1)


def drawn_bits(backend, x, count):
    """Return what an engine draws for grey levels at so many steps."""
    engine_of = importlib.import_module(f"ppl_vae.backends.{backend}.svi").Engine
    bound = bind(load("linear_gaussian", x_shape=x.shape[1:]), backend)
    engine = engine_of(bound, ELBO(), Training(device="cpu"), num_data=len(x), dynamic=True)
    if backend == "pyro":
        return [engine._binarized({"x": torch.from_numpy(x)})["x"].numpy() for _ in range(count)]
    from jax import random

    return [np.asarray(engine.step._binarized({"x": x}, random.key(step))["x"]) for step in range(count)]


@both
def test_bits_are_drawn_anew_at_every_step_with_the_probabilities_of_the_grey_levels(backend):
    torch.manual_seed(0)
    one, other = drawn_bits(backend, np.tile(np.array([0.0, 0.25, 1.0], "f"), (4000, 1)), 2)
    assert one.dtype == np.float32 and set(np.unique(one)) == {0.0, 1.0}
    assert (one != other).any()
    np.testing.assert_array_equal(one[:, [0, 2]].mean(0), [0, 1])
    assert one[:, 1].mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_grey_levels_under_a_bernoulli_are_refused_when_bits_are_declined():
    grey = data.of(np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8), binarize="none")
    with pytest.raises(ProgramError, match="binarize"):
        fit(vae(), grey, max_steps=2, batch_size=8)


def test_tensorboard_logs_are_written(tmp_path):
    fit(vae(), small_data(), max_steps=3, batch_size=35, out=tmp_path / "run", tensorboard=True)
    [file] = (tmp_path / "run" / "tensorboard").iterdir()
    log = EventAccumulator(str(file)).Reload()
    for row in open_run(tmp_path / "run").history:
        numbers = {f"{row['split']}/{name}": value for name, value in row.items() if isinstance(value, float)}
        for name, value in numbers.items():
            logged = {one.step: make_ndarray(one.tensor_proto) for one in log.Tensors(name)}
            assert logged[row["step"]] == np.float32(value), name


def test_tensorboard_on_a_full_disk_is_one_error_and_the_run_goes_on(tmp_path, monkeypatch):
    out, options = tmp_path / "run", {"batch_size": 35, "log_every": 1}
    fit(vae(), small_data(), max_steps=2, out=out, **options)
    with monkeypatch.context() as full:
        full.setattr(board.disk, "append", lambda *_: Path("/dev/full").write_bytes(b"x"))
        with pytest.raises(RunError, match=r"cannot write .*tfevents.*No space left on device\): free space"):
            resume(out, data=small_data(), max_steps=3, tensorboard=True)
    assert resume(out, data=small_data(), max_steps=3).steps == 3
