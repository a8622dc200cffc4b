"""The training loop on Pyro: what is kept, how it resumes, how it stops."""

import copy
import json
import os
import pickle
import signal

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from ppl_vae import ELBO, IWAE, bind, data, evaluate, fit, load, open_run
from ppl_vae.api import resume
from ppl_vae.backends.pyro.step import Step, parts_of_program
from ppl_vae.backends.pyro.svi import Engine
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.objectives import parse
from ppl_vae.options import Training

SMALL = {"hidden": (16,), "z_dim": 3}


def rows(n=70, seed=0):
    return (np.random.default_rng(seed).random((n, 1, 4, 4)) < 0.4).astype(np.float32)


def small_data(n=70):
    return data.of({"x_train": rows(n), "x_valid": rows(20, 1), "x_test": rows(20, 2)})


def vae(**changes):
    return load("vae", **SMALL | changes)


def same(one, other):
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def test_history_counts_every_step_and_the_odd_last_batch():
    run = fit(vae(), small_data(), epochs=3, batch_size=32, log_every=2)
    steps = [row["step"] for row in run.history if row["split"] == "train"]
    # 70 rows make 3 batches (32, 32, 6): rows of the history end at multiples of 2 and at the end of an
    # epoch.
    assert steps == [2, 3, 4, 6, 8, 9]
    assert [row["step"] for row in run.history if row["split"] == "valid"] == [3, 6, 9]
    assert all(np.isfinite(row["elbo_nats"]) for row in run.history)


def test_the_same_seed_gives_the_same_weights_and_the_users_noise_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one = fit(vae(), small_data(), epochs=2, batch_size=32, seed=3)
    assert torch.equal(torch.rand(3), expected)
    assert same(
        one.bound.weights(), fit(vae(), small_data(), epochs=2, batch_size=32, seed=3).bound.weights()
    )
    assert not same(
        one.bound.weights(), fit(vae(), small_data(), epochs=2, batch_size=32, seed=4).bound.weights()
    )


@pytest.mark.parametrize("program", ["vae", "vqvae"])
@pytest.mark.parametrize("stop_at", [1, 3, 5])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(tmp_path, program, stop_at):
    if program == "vae":
        made, found, objective = (
            vae(),
            data.of(np.random.default_rng(0).random((70, 4, 4)), levels=None, kind="image"),
            ELBO(warm_up=5),
        )
    else:
        made = load("vqvae", codes=8, code_dim=4, hidden=8)
        found, objective = np.random.default_rng(0).random((70, 1, 8, 8)).astype("f"), ELBO()
    if program == "vae":
        found = data.of(found, binarize="dynamic")
    options = {
        "epochs": 3,
        "batch_size": 32,
        "ema": 0.9,
        "clip_norm": 1.0,
        "log_every": 3,
        "checkpoint_every": 0.0,
    }
    whole = fit(made, found, objective, out=tmp_path / "whole", **options)

    def interrupt(event, state):
        if event in ("log", "valid") and state["position"].step >= stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    part = fit(
        made, found, objective, out=tmp_path / "part", callbacks=[interrupt], **options | {"log_every": 1}
    )
    assert part.stopped_by == "SIGTERM"
    assert part.steps < whole.steps
    going_on = resume(tmp_path / "part", data=found, log_every=3)
    assert same(going_on.bound.weights(), whole.bound.weights())
    for name in ("weights.safetensors", "position.json"):
        one, other = (
            json.loads((tmp_path / f / name).read_text())
            if name.endswith("json")
            else (tmp_path / f / name).read_bytes()
            for f in ("whole", "part")
        )
        if name.endswith("json"):
            one.pop("seconds"), other.pop("seconds")
        assert one == other


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


def test_early_stopping_keeps_the_best_weights_on_validation(tmp_path):
    run = fit(vae(), small_data(16), epochs=400, batch_size=16, lr=0.02, patience=3, out=tmp_path / "run")
    bounds = [row["elbo_nats"] for row in run.history if row["split"] == "valid"]
    assert len(bounds) < 400
    assert int(np.argmax(bounds)) == len(bounds) - 4
    assert evaluate(run, "valid")["elbo_nats"] == pytest.approx(max(bounds), abs=1e-9)
    assert evaluate(open_run(tmp_path / "run", data=small_data(16)), "valid")["elbo_nats"] == pytest.approx(
        max(bounds), abs=1e-9
    )


def test_the_average_of_the_weights_is_what_is_kept():
    seen = []
    options = {"max_steps": 4, "batch_size": 70, "keep": "last", "log_every": 1}
    fit(
        vae(),
        small_data(),
        callbacks=[
            lambda event, state: seen.append(state["run"].bound.weights()) if event == "log" else None
        ],
        **options,
    )
    kept = fit(vae(), small_data(), ema=0.5, **options).bound.weights()
    name = "decoder.body.layers.0.weight"
    # Each step weighs half of the next one; the first weights, which no step made, weigh nothing.
    average = np.average([weights[name] for weights in seen], axis=0, weights=[1, 2, 4, 8])
    np.testing.assert_allclose(kept[name], average, atol=1e-6)


def test_beta_zero_leaves_the_rate_unpaid_and_the_report_is_the_plain_bound():
    run = fit(vae(), small_data(), ELBO(beta=0.0), max_steps=60, batch_size=70, lr=1e-2, log_every=60)
    row = run.history[0]
    assert row["beta"] == 0
    assert row["loss"] == pytest.approx(row["distortion_nats"], rel=1e-6)
    assert row["elbo_nats"] == pytest.approx(-row["distortion_nats"] - row["rate_nats"], rel=1e-6)


def test_a_warm_up_rises_by_the_step():
    run = fit(vae(), small_data(), ELBO(beta=2.0, warm_up=4), max_steps=6, batch_size=70, log_every=1)
    assert [row["beta"] for row in run.history if row["split"] == "train"] == [0.0, 0.5, 1.0, 1.5, 2.0, 2.0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": ELBO(warm_up=1000)}, "warm-up of 1000 steps is longer"),
        ({"batch_size": 71}, "batch size 71 is larger"),
        ({"epoch": 3}, "no option 'epoch'"),
        ({"epochs": 0}, "epochs=0"),
        ({"lr": -1.0}, "not negative"),
        ({"lr": "cosine:1:0:1000"}, "longer than the run"),
        ({"device": "tpu"}, "unknown device"),
        ({"precision": "16"}, "unknown precision"),
        ({"compile": "yes"}, "unknown compile 'yes'"),
        ({"backend": "jax"}, "unknown backend"),
        ({"objective": "elbow"}, "unknown objective"),
        ({"resume": True}, "need a run folder"),
    ],
)
def test_impossible_options_are_refused_by_name(changes, message):
    with pytest.raises(UsageError, match=message):
        fit(vae(), small_data(), **{"max_steps": 2, "batch_size": 32} | changes)


def test_a_loss_that_is_not_a_number_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
    with pytest.raises(RunError, match="the loss became"):
        fit(
            load("vae", likelihood="poisson", **SMALL),
            50 * rows(),
            max_steps=200,
            batch_size=35,
            lr=50.0,
            log_every=1,
            checkpoint_every=0.0,
            out=tmp_path / "run",
        )
    assert np.isfinite(
        open_run(tmp_path / "run", data=50 * rows()).bound.weights()["encoder.body.layers.0.bias"]
    ).all()


def test_two_programs_train_independently_in_one_process():
    # Under stock SVI, as under fit: each bound program's parameters have names of their own.
    x = torch.from_numpy(rows())
    first, second = (bind(vae().adapted_to(small_data()), num_data=70, seed=seed) for seed in (0, 1))
    before = second.weights()
    svi = [SVI(b.model, b.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()) for b in (first, second)]
    start = [float(s.evaluate_loss(x)) for s in svi]
    for _ in range(60):
        svi[0].step(x)
    assert same(second.weights(), before)
    for _ in range(60):
        svi[1].step(x)
    assert all(float(s.evaluate_loss(x)) < 0.95 * old for s, old in zip(svi, start, strict=True))
    pyro.clear_param_store()
    together = [fit(vae(), small_data(), max_steps=5, batch_size=35, seed=s) for s in (0, 1)]
    alone = fit(vae(), small_data(), max_steps=5, batch_size=35, seed=1)
    assert same(together[1].bound.weights(), alone.bound.weights())
    assert not list(pyro.get_param_store().keys())


def pickled(bound):
    return pickle.loads(pickle.dumps(bound))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_a_trained_program_trains_by_itself(copied):
    x, adam = torch.from_numpy(rows()), pyro.optim.Adam({"lr": 1e-2})
    first = bind(vae().adapted_to(small_data()), num_data=70)
    SVI(first.model, first.guide, adam, Trace_ELBO()).step(x)
    trained = first.weights()
    second = copied(first)
    assert same(second.weights(), trained)
    SVI(second.model, second.guide, adam, Trace_ELBO()).step(x)
    assert same(first.weights(), trained)
    assert not any(np.array_equal(value, trained[name]) for name, value in second.weights().items())
    moved = second.weights()
    SVI(first.model, first.guide, adam, Trace_ELBO()).step(x)
    assert same(second.weights(), moved) and not same(first.weights(), trained)


@pytest.mark.parametrize(
    "objective", [Trace_ELBO(), pyro.infer.TraceMeanField_ELBO(), "pyro.infer.Trace_ELBO", IWAE(3)]
)
def test_any_objective_goes_through_the_same_trainer(objective):
    run = fit(vae(), small_data(), objective, max_steps=100, batch_size=70, lr=1e-2, log_every=10)
    losses = [row["loss"] for row in run.history if row["split"] == "train"]
    assert losses[-1] < 0.95 * losses[0]


def test_a_callable_is_an_objective():
    def squared(model, guide, **batch):
        return Trace_ELBO().differentiable_loss(model, guide, **batch)

    stock = fit(vae(), small_data(), Trace_ELBO(), max_steps=3, batch_size=70).bound.weights()
    assert same(fit(vae(), small_data(), squared, max_steps=3, batch_size=70).bound.weights(), stock)


@pytest.mark.parametrize("kind", ["tensor", "pair", "dict"])
def test_a_data_loader_is_data(kind):
    x = torch.from_numpy(rows())
    items = {
        "tensor": list(x),
        "pair": list(zip(x, torch.arange(70), strict=True)),
        "dict": [{"x": one} for one in x],
    }[kind]
    loader = torch.utils.data.DataLoader(items, batch_size=32)
    run = fit(vae(), loader, epochs=2)
    assert run.steps == 6
    assert run.program.x_shape == (1, 4, 4)
    assert run.bound.num_data == 70


@pytest.mark.parametrize("name", ["vae", "hvae", "counts", "vqvae", "linear_gaussian"])
@pytest.mark.parametrize("objective", ["elbo", "elbo(particles=2)", "iwae(k=3)"])
def test_a_whole_step_runs_on_the_meta_device(name, objective):
    # A tensor made on a fixed device inside a step meets meta tensors and fails.
    program, batch = example(name)
    if name == "counts" and objective.startswith("iwae"):
        pytest.skip("refused: counts has global latents")
    bits = name in ("vae", "hvae")
    engine = Engine(bind(program), parse(objective), Training(ema=0.9), num_data=9, dynamic=bits)
    engine.loss.to("meta")
    step = Step(engine.loss, parts_of_program(engine.bound, ()), engine.options)
    # The fused optimizer and the clipping of norms have no form on the meta device.
    step.optimizer = torch.optim.Adam(step.parameters, foreach=True)
    batch = {field: torch.from_numpy(array).to("meta") for field, array in batch.items()}
    with pyro.validation_enabled(False):
        metrics = step(
            engine._binarized(batch), {"lr": 0.1, "ema": 0.1, "beta": torch.ones((), device="meta")}
        )
    assert {value.device.type for value in metrics.values()} == {"meta"}
    assert all(parameter.grad is not None for parameter in step.parameters)


def example(name, n=6):
    """A small program of the gallery and a batch for it."""
    rng = np.random.default_rng(0)
    if name == "counts":
        batch = {
            "x": rng.poisson(3, (n, 5)),
            "batch": rng.integers(0, 2, n),
            "size": rng.random(n).astype("f") + 0.5,
        }
        return load(name, x_shape=(5,), num_batches=2), batch
    if name == "linear_gaussian":
        return load(name, x_shape=(5,)), {"x": rng.normal(size=(n, 5)).astype("f")}
    fields = {
        "vae": SMALL,
        "hvae": {"z_dims": (4, 3), "hidden": (8, 8)},
        "topdown": {"latents": 3, "z_channels": 2, "width": 4, "inner": 3},
        "vqvae": {"codes": 8, "code_dim": 4, "hidden": 8},
    }[name]
    return load(name, x_shape=(1, 8, 8), **fields), {"x": (rng.random((n, 1, 8, 8)) < 0.5).astype("f")}


def test_bfloat16_networks_leave_probabilities_in_single_precision():
    run = fit(vae(), small_data(), max_steps=40, batch_size=70, lr=1e-2, precision="bf16-mixed", log_every=1)
    single = fit(vae(), small_data(), max_steps=40, batch_size=70, lr=1e-2, log_every=1)
    assert all(value.dtype == np.float32 for value in run.bound.weights().values())
    assert run.history[0]["loss"] != single.history[0]["loss"]
    assert evaluate(run)["elbo_nats"] == pytest.approx(evaluate(single)["elbo_nats"], abs=0.1)


def test_grey_levels_under_a_bernoulli_are_refused_when_bits_are_declined():
    grey = data.of(np.random.default_rng(0).integers(0, 256, (40, 4, 4), dtype=np.uint8), binarize="none")
    with pytest.raises(ProgramError, match="binarize"):
        fit(vae(), grey, max_steps=2, batch_size=8)


def test_tensorboard_logs_are_written(tmp_path):
    fit(vae(), small_data(), max_steps=3, batch_size=35, out=tmp_path / "run", tensorboard=True)
    assert any((tmp_path / "run" / "tensorboard").iterdir())
