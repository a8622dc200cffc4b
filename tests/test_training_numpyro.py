"""Training on NumPyro: the same steps as torch's optimizers, in chunks whose cuts do not matter."""

import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from numpyro.infer import SVI, Trace_ELBO, TraceMeanField_ELBO

from ppl_vae import ELBO, IWAE, bind, data, evaluate, fit, load, open_run
from ppl_vae.api import resume
from ppl_vae.backends.numpyro.step import make_optimizer
from ppl_vae.backends.numpyro.svi import Engine
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.options import Training

SMALL = {"hidden": (16,), "z_dim": 3}


def rows(n=64, seed=0):
    return (np.random.default_rng(seed).random((n, 1, 4, 4)) < 0.4).astype(np.float32)


def small_data(n=64):
    return data.of({"x_train": rows(n), "x_valid": rows(20, 1), "x_test": rows(20, 2)})


def vae(**changes):
    return load("vae", **SMALL | changes)


ONE = {"lr": np.ones(1), "beta": np.ones(1)}


def train(program, found, objective=None, **options):
    return fit(program, found, objective, backend="numpyro", **{"batch_size": 32} | options)


def same(one, other):
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "adamw", "adamax"])
def test_an_optimizer_steps_as_torchs(name, decay):
    import torch

    from ppl_vae.backends.pyro.step import Part
    from ppl_vae.backends.pyro.step import make_optimizer as torchs

    rng = np.random.default_rng(0)
    options = Training(optimizer=name, weight_decay=decay, betas=(0.8, 0.95), eps=1e-3)
    start, grads = rng.normal(size=(3, 4)).astype("f"), rng.normal(size=(30, 3, 4)).astype("f")
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs, ours = torchs([Part("", [parameter], {})], options), make_optimizer(options)
    value, state = jnp.asarray(start), ours.init(jnp.asarray(start))
    for step, grad in enumerate(grads):
        lr = 0.1 / (1 + step)
        parameter.grad = torch.from_numpy(grad)
        theirs.param_groups[0]["lr"] = lr
        theirs.step()
        update, state = ours.update(jnp.asarray(grad), state, value)
        value = value - lr * update
    np.testing.assert_allclose(value, parameter.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("most", [1e-2, 1.0, 1e3])
def test_a_gradient_is_clipped_as_torch_clips_it(most):
    import torch

    engine = Engine(
        bind(load("linear_gaussian", x_shape=(3,)), "numpyro"),
        ELBO(),
        Training(clip_norm=most, device="cpu"),
        num_data=3,
    )
    grads = {"a": jnp.arange(6.0).reshape(2, 3), "b": -jnp.ones(2)}
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2))]
    for parameter, grad in zip(parameters, grads.values(), strict=True):
        parameter.grad = torch.from_numpy(np.array(grad))
    torch.nn.utils.clip_grad_norm_(parameters, most)
    for parameter, grad in zip(parameters, engine.step._clipped(grads).values(), strict=True):
        np.testing.assert_allclose(grad, parameter.grad.numpy(), rtol=1e-6)


def test_bits_are_drawn_anew_at_every_step_with_the_probabilities_of_the_grey_levels():
    engine = Engine(
        bind(load("linear_gaussian", x_shape=(3,)), "numpyro"),
        ELBO(),
        Training(device="cpu"),
        num_data=3,
        dynamic=True,
    )
    x = jnp.broadcast_to(jnp.array([0.0, 0.25, 1.0]), (4000, 3))
    one, other = (np.asarray(engine.step._binarized({"x": x}, random.key(k))["x"]) for k in range(2))
    assert one.dtype == np.float32 and set(np.unique(one)) == {0.0, 1.0}
    assert (one != other).any()
    np.testing.assert_array_equal(one[:, [0, 2]].mean(0), [0, 1])
    assert one[:, 1].mean() == pytest.approx(0.25, abs=4 * np.sqrt(0.25 * 0.75 / 4000))


def test_history_counts_every_step_and_two_sizes_of_batch_compile_twice():
    found = small_data(70)
    bound = bind(vae().adapted_to(found), "numpyro")
    run = train(vae(), found, epochs=3, log_every=2)
    steps = [row["step"] for row in run.history if row["split"] == "train"]
    # 70 rows make 3 batches (32, 32, 6): rows of the history end at multiples of 2 and with an epoch.
    assert steps == [2, 3, 4, 6, 8, 9]
    assert all(np.isfinite(row["elbo_nats"]) for row in run.history)
    engine = Engine(bound, ELBO(), Training(log_every=50, device="cpu"), train={"x": rows()}, num_data=64)
    items = [np.arange(32)] * 5 + [np.arange(6)]
    for count in (6, 2, 4):
        done = engine.advance(
            items[-count:], {"lr": np.full(count, 1e-3), "beta": np.ones(count)}, lambda: False
        )
        assert done.steps == count
    assert engine._many._cache_size() == 2


def test_metrics_are_means_over_the_steps_of_a_chunk_however_it_is_cut():
    fine = [
        row for row in train(vae(), small_data(), epochs=1, log_every=1).history if row["split"] == "train"
    ]
    coarse = [
        row for row in train(vae(), small_data(), epochs=1, log_every=3).history if row["split"] == "train"
    ]
    assert len(fine) == 2 and len(coarse) == 1
    for name in ("loss", "elbo_nats", "rate_nats", "distortion_nats"):
        assert coarse[0][name] == pytest.approx(np.mean([row[name] for row in fine]), rel=1e-6)


def test_a_stop_request_ends_between_two_calls():
    bound = bind(vae().adapted_to(small_data()), "numpyro")
    engine = Engine(bound, ELBO(), Training(log_every=4, device="cpu"), train={"x": rows()}, num_data=64)
    asked = iter([False, False, True])
    done = engine.advance(
        [np.arange(32)] * 12, {"lr": np.full(12, 1e-3), "beta": np.ones(12)}, lambda: next(asked)
    )
    assert done.steps == 8


def test_the_same_seed_gives_the_same_weights():
    one = train(vae(), small_data(), epochs=2, seed=3).bound.weights()
    assert same(one, train(vae(), small_data(), epochs=2, seed=3).bound.weights())
    assert not same(one, train(vae(), small_data(), epochs=2, seed=4).bound.weights())


def cases(name):
    if name == "vae":
        found = data.of(np.random.default_rng(0).random((70, 4, 4)), levels=None, kind="image")
        return vae(), data.of(found, binarize="dynamic"), ELBO(warm_up=5), "adam"
    x = np.random.default_rng(0).random((64, 1, 8, 8)).astype("f")
    return load("vqvae", codes=8, code_dim=4, hidden=8), x, ELBO(), "adamax"


@pytest.mark.parametrize(("name", "stop_at"), [("vae", 1), ("vae", 5), ("vqvae", 3)])
def test_a_run_stopped_anywhere_resumes_to_the_same_bits(tmp_path, name, stop_at):
    made, found, objective, optimizer = cases(name)
    options = {
        "epochs": 3,
        "ema": 0.9,
        "clip_norm": 1.0,
        "log_every": 3,
        "checkpoint_every": 0.0,
        "optimizer": optimizer,
    }
    whole = train(made, found, objective, out=tmp_path / "whole", **options)

    def interrupt(event, state):
        if event in ("log", "valid") and state["position"].step >= stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    part = train(
        made, found, objective, out=tmp_path / "part", callbacks=[interrupt], **options | {"log_every": 1}
    )
    assert part.stopped_by == "SIGTERM" and part.steps < whole.steps
    going_on = resume(tmp_path / "part", data=found, log_every=3)
    assert same(going_on.bound.weights(), whole.bound.weights())
    states = [(tmp_path / f / "state.safetensors").read_bytes() for f in ("whole", "part")]
    assert states[0] == states[1]
    positions = [
        json.loads((tmp_path / f / "position.json").read_text()) | {"seconds": 0} for f in ("whole", "part")
    ]
    assert positions[0] == positions[1]
    opened = open_run(tmp_path / "part", data=found)
    assert same(opened.bound.weights(), whole.bound.weights())
    assert evaluate(opened)["elbo_nats"] == evaluate(whole)["elbo_nats"]


def test_a_state_of_another_optimizer_is_refused():
    bound = bind(vae().adapted_to(small_data()), "numpyro")

    def engine(optimizer):
        options = Training(optimizer=optimizer, device="cpu")
        return Engine(bound, ELBO(), options, train={"x": rows()}, num_data=64)

    first = engine("adam")
    assert first.state() == {"state.safetensors": b""}
    first.advance([np.arange(32)], ONE, lambda: False)
    second = engine("adamw")
    second.restore(first.state().get)
    with pytest.raises(RunError, match="is of another program or optimizer"):
        second.advance([np.arange(32)], ONE, lambda: False)
    with pytest.raises(RunError, match=r"state\.safetensors cannot be read"):
        second.restore(lambda name: b"no tensors")


def test_early_stopping_keeps_the_best_weights_on_validation():
    run = train(vae(), small_data(16), epochs=400, batch_size=16, lr=0.02, patience=3)
    bounds = [row["elbo_nats"] for row in run.history if row["split"] == "valid"]
    assert len(bounds) < 400
    assert int(np.argmax(bounds)) == len(bounds) - 4
    assert evaluate(run, "valid")["elbo_nats"] == pytest.approx(max(bounds), abs=1e-9)


def test_the_average_of_the_weights_is_what_is_kept():
    seen = []
    options = {"max_steps": 4, "batch_size": 64, "keep": "last", "log_every": 1}

    def keep(event, state):
        if event == "log":
            seen.append(state["run"].bound.weights())

    train(vae(), small_data(), callbacks=[keep], **options)
    kept = train(vae(), small_data(), ema=0.5, **options).bound.weights()
    name = "decoder.body.layers.0.weight"
    average = np.average([weights[name] for weights in seen], axis=0, weights=[1, 2, 4, 8])
    np.testing.assert_allclose(kept[name], average, atol=1e-6)


@pytest.mark.parametrize("stock", [TraceMeanField_ELBO(), "numpyro.infer.TraceMeanField_ELBO"])
def test_a_stock_elbo_trains_to_the_weights_of_ours(stock):
    made = train(vae(), small_data(), stock, max_steps=20, lr=1e-2).bound.weights()
    ours = train(vae(), small_data(), ELBO(), max_steps=20, lr=1e-2).bound.weights()
    for name, value in ours.items():
        np.testing.assert_allclose(made[name], value, atol=1e-4)


@pytest.mark.parametrize("objective", [IWAE(3), Trace_ELBO(num_particles=2), ELBO(particles=2, beta=0.5)])
def test_any_objective_goes_through_the_same_trainer(objective):
    run = train(vae(), small_data(), objective, max_steps=100, batch_size=64, lr=1e-2, log_every=10)
    losses = [row["loss"] for row in run.history if row["split"] == "train"]
    assert losses[-1] < 0.95 * losses[0]


def test_stock_svi_and_the_engine_leave_the_codebook_in_the_same_place():
    # numpyro's svi.init has already run the guide once and so has moved the codebook: the state is put back.
    made, x = load("vqvae", x_shape=(1, 8, 8), codes=8, code_dim=4, hidden=8), cases("vqvae")[1][:32]
    bound = bind(made, "numpyro", num_data=32).train()
    before = bound.state
    svi = SVI(bound.model, bound.guide, make_sgd(), TraceMeanField_ELBO())
    state = svi.init(random.key(0), x)
    assert state.mutable_state["codebook$state"]["state"]["placed"] == 1
    state = jax.jit(svi.update)(state._replace(mutable_state=before), x)[0]
    engine = Engine(bind(made, "numpyro"), ELBO(), Training(device="cpu"), train={"x": x}, num_data=32)
    engine.advance([np.arange(32)], ONE | {"lr": np.zeros(1)}, lambda: False)
    moved = engine.carry.state["codebook$state"]["state"]
    for name, value in state.mutable_state["codebook$state"]["state"].items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-6)


def make_sgd():
    import optax

    return optax.sgd(0.0)


def test_a_loss_that_is_not_a_number_ends_the_run():
    with pytest.raises(RunError, match="the loss became"):
        train(load("vae", likelihood="poisson", **SMALL), 50 * rows(), max_steps=200, lr=50.0, log_every=20)


def test_bfloat16_networks_leave_probabilities_in_single_precision():
    options = {"max_steps": 40, "batch_size": 64, "lr": 1e-2, "log_every": 1}
    half = train(vae(), small_data(), precision="bf16-mixed", **options)
    single = train(vae(), small_data(), **options)
    assert all(value.dtype == np.float32 for value in half.bound.weights().values())
    assert half.history[0]["loss"] != single.history[0]["loss"]
    assert half.history[0]["loss"] == pytest.approx(single.history[0]["loss"], rel=1e-2)
    assert evaluate(half)["elbo_nats"] == pytest.approx(evaluate(single)["elbo_nats"], abs=0.1)


@pytest.mark.parametrize("kind", ["array", "pair", "dict", "torch"])
def test_a_loader_of_batches_is_data(kind):
    x = rows()
    parts = [x[i : i + 32] for i in range(0, 64, 32)]

    class Loader:
        def __len__(self):
            return len(parts)

        def __iter__(self):
            made = {"array": lambda p: p, "pair": lambda p: (p, np.zeros(len(p))), "dict": lambda p: {"x": p}}
            return map(made[kind], parts)

    loader = Loader()
    if kind == "torch":
        import torch

        loader = torch.utils.data.DataLoader(list(torch.from_numpy(x)), batch_size=32)
    run = train(vae(), loader, epochs=2)
    assert run.steps == 4
    assert run.program.x_shape == (1, 4, 4)


@pytest.mark.parametrize("name", ["hvae", "counts", "vqvae", "linear_gaussian"])
def test_every_program_trains_and_is_evaluated(name):
    rng = np.random.default_rng(0)
    found = (rng.random((64, 1, 8, 8)) < 0.5).astype("f")
    fields = {"hvae": {"z_dims": (4, 3), "hidden": (8, 8)}, "vqvae": {"codes": 8, "code_dim": 4, "hidden": 8}}
    if name == "counts":
        found = {
            "x": rng.poisson(3, (64, 5)).astype("f"),
            "batch": rng.integers(0, 2, 64),
            "size": rng.random(64).astype("f") + 0.5,
        }
    if name == "linear_gaussian":
        found = rng.normal(size=(64, 5)).astype("f")
    run = train(load(name, **fields.get(name, {})), found, max_steps=30, lr=1e-2, log_every=10)
    losses = [row["loss"] for row in run.history if row["split"] == "train"]
    assert losses[-1] < losses[0]
    result = evaluate(run, "train", importance_samples=5)
    note = {"counts": "site 'dispersion' is global", "vqvae": "the guide is deterministic"}.get(name)
    if note is None:
        assert result["iw_nats"] > result["elbo_nats"]
    else:
        assert result["iw_nats"] is None and result["iw_note"].startswith(note)
    if name == "vqvae":
        assert {"perplexity", "usage", "penalty/commitment"} <= set(run.history[0])


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"device": "tpu"}, UsageError, "unknown device 'tpu'"),
        ({"device": "cuda:9"}, UsageError, "device 'cuda:9': JAX sees"),
        ({"objective": "pyro.infer.Trace_ELBO"}, UsageError, "numpyro.infer has no ELBO|unknown objective"),
        ({"objective": IWAE(2), "program": "counts"}, ProgramError, "site 'effect' is global"),
    ],
)
def test_impossible_options_are_refused_by_name(changes, error, message):
    found = small_data()
    program = vae()
    if changes.get("program"):
        counts = {"x": np.ones((64, 3), "f"), "batch": np.arange(64) % 2, "size": np.ones(64, "f")}
        program, found = load("counts"), data.of(counts)
    with pytest.raises(error, match=message):
        train(program, found, **{"max_steps": 2} | {k: v for k, v in changes.items() if k != "program"})
