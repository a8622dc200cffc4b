"""Corners of training: runs that have ended, loaders that fall short, plates that are no rows, precision."""

import os
import signal
from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import torch

from ppl_vae import ELBO, Program, data, evaluate, fit, load, open_run
from ppl_vae.api import resume
from ppl_vae.api.settings import Settings
from ppl_vae.api.signals import stop_request
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import DataError, ProgramError, UsageError
from ppl_vae.stopping import Present, compiling

SMALL = {"hidden": (8,), "z_dim": 2}


def small_data(valid=10):
    rng = np.random.default_rng(0)
    parts = {f"x_{name}": rng.integers(0, 2, (n, 1, 4, 4)) for name, n in (("train", 40), ("test", 10))}
    parts |= {"x_valid": rng.integers(0, 2, (valid, 1, 4, 4))} if valid else {}
    return data.of(
        {name: part.astype(np.uint8) for name, part in parts.items()}, **({} if valid else {"valid": 0})
    )


def contents(run):
    """The files of a run by name, but for the manifest, which holds the time."""
    return {p.name: p.read_bytes() for p in run.iterdir() if p.is_file() and p.name != "manifest.json"}


@pytest.mark.parametrize(
    ("backend", "keep", "valid"),
    [
        ("pyro", "best", 10),
        ("pyro", "last", 0),
        ("numpyro", "best", 10),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("pyro", "best", 0),
                ("pyro", "last", 10),
                ("numpyro", "best", 0),
                ("numpyro", "last", 10),
                ("numpyro", "last", 0),
            )
        ),
    ],
)
def test_resuming_a_run_that_has_ended_leaves_it_as_it_is(tmp_path, backend, keep, valid):
    found = small_data(valid)
    made = load("vae", **SMALL)
    fit(made, found, epochs=2, batch_size=16, lr=0.05, keep=keep, backend=backend, out=tmp_path / "run")
    files = contents(tmp_path / "run")
    expected = evaluate(open_run(tmp_path / "run", data=found))["elbo_nats"]
    again = resume(tmp_path / "run", data=found)
    assert evaluate(again)["elbo_nats"] == expected
    assert contents(tmp_path / "run") == files
    longer = resume(tmp_path / "run", data=found, epochs=4)
    whole = fit(made, found, epochs=4, batch_size=16, lr=0.05, keep=keep, backend=backend)
    assert all(
        np.array_equal(value, whole.bound.weights()[name]) for name, value in longer.bound.weights().items()
    )


def test_a_run_that_stopped_early_stays_stopped_unless_it_is_given_more(tmp_path):
    options = {"batch_size": 40, "lr": 0.1, "patience": 1}
    run = fit(load("vae", **SMALL), small_data(), epochs=300, out=tmp_path / "run", **options)
    assert run.steps < 300
    assert resume(tmp_path / "run", data=small_data()).steps == run.steps
    assert resume(tmp_path / "run", data=small_data(), patience=3).steps > run.steps


def test_options_that_would_change_the_steps_are_refused_on_resuming(tmp_path):
    fit(load("vae", **SMALL), small_data(), epochs=1, batch_size=16, out=tmp_path / "run")
    for changes in ({"batch_size": 7}, {"optimizer": "adamax"}, {"clip_norm": 0.1}):
        with pytest.raises(UsageError, match="cannot change"):
            resume(tmp_path / "run", data=small_data(), **changes)


def test_a_callable_objective_comes_back_or_is_given_again_on_resuming(tmp_path):
    def objective(model, guide, **batch):
        return pyro.infer.Trace_ELBO().differentiable_loss(model, guide, **batch)

    fit(load("vae", **SMALL), small_data(), objective, epochs=1, batch_size=16, out=tmp_path / "run")
    whole = fit(load("vae", **SMALL), small_data(), objective, epochs=3, batch_size=16).bound.weights()
    resume(tmp_path / "run", data=small_data(), epochs=2)
    run = resume(tmp_path / "run", data=small_data(), objective=objective, epochs=3)
    assert all(np.array_equal(value, whole[name]) for name, value in run.bound.weights().items())


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_the_settings_of_a_stock_objective_are_recorded(tmp_path, backend):
    stock = backend_named(backend).stock_objective("TraceMeanField_ELBO")(num_particles=3)
    options = {"batch_size": 16, "backend": backend}
    fit(load("vae", **SMALL), small_data(), stock, epochs=1, out=tmp_path / "run", **options)
    text = open_run(tmp_path / "run", data=small_data()).config["objective"]
    assert text == f"{backend}.infer.TraceMeanField_ELBO(num_particles=3)"
    run = resume(tmp_path / "run", data=small_data(), epochs=2)
    whole = fit(load("vae", **SMALL), small_data(), text, epochs=2, **options)
    assert all(
        np.array_equal(value, whole.bound.weights()[name]) for name, value in run.bound.weights().items()
    )
    with pytest.raises(UsageError, match="no option 'number_of_particles': did you mean num_particles"):
        fit(load("vae", **SMALL), small_data(), text.replace("num_", "number_of_"), epochs=1, **options)


class Halving:
    """A schedule of a user's own, which its text does not name."""

    def __call__(self, step):
        return 0.5 ** (step + 1)

    def check_fits(self, max_steps):
        pass


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_run_under_a_schedule_of_ones_own_opens_and_goes_on(tmp_path, backend):
    run = fit(
        load("vae", **SMALL), small_data(), max_steps=3, batch_size=16, log_every=1, lr=Halving(),
        backend=backend, out=tmp_path / "run",
    )  # fmt: skip
    assert [row["lr"] for row in run.history if row["split"] == "train"] == [0.5, 0.25, 0.125]
    again = open_run(tmp_path / "run", data=small_data())
    assert evaluate(again)["elbo_nats"] == evaluate(run)["elbo_nats"]
    resume(tmp_path / "run", data=small_data(), max_steps=4)
    resume(tmp_path / "run", data=small_data(), max_steps=5, lr=0.5)
    again = resume(tmp_path / "run", data=small_data(), max_steps=6, lr=Halving())
    rates = [row["lr"] for row in again.history if row["split"] == "train"]
    assert rates[3:] == [0.0625, 0.5, 0.5**6] and "schedule_file" in again.config


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_without_a_batch_size_few_rows_are_one_batch(tmp_path, backend):
    run = fit(load("vae", **SMALL), small_data(), epochs=1, backend=backend, out=tmp_path / "run")
    assert run.steps == 1 and run.record.training.batch_size == 40
    again = fit(
        load("vae", **SMALL), small_data(), epochs=2, backend=backend, out=tmp_path / "run", resume=True
    )
    assert again.steps == 2
    with pytest.raises(UsageError, match=r"batch_size=41 .*\(40 rows\): .*batch_size=\.\.\.\) of at most 40"):
        fit(load("vae", **SMALL), small_data(), epochs=1, batch_size=41, backend=backend)
    one = data.of(np.ones((1, 1, 4, 4), np.float32), valid=0, test=0)
    with pytest.raises(UsageError, match=r"\(1 row\)"):
        fit(load("vae", **SMALL), one, epochs=1, batch_size=128, backend=backend)
    assert fit(load("vae", **SMALL), one, epochs=1, backend=backend).steps == 1


def test_batches_that_nobody_gave_a_size_are_shared_out_evenly():
    chosen = Settings.of(load("vae"), devices=3)
    sizes = {rows: chosen.for_rows(rows).training.batch_size for rows in (1000, 128, 40, 3)}
    assert sizes == {1000: 128, 128: 128, 40: 39, 3: 3}
    assert Settings.of(load("vae"), batch_size=64).for_rows(40).training.batch_size == 64


def test_a_field_that_the_guide_needs_is_asked_for_where_the_data_is_given():
    for program in (load("vae", **SMALL), load("vae", x_shape=(1, 4, 4), **SMALL)):
        with pytest.raises(DataError, match="needs a field 'x', the data has z: give an .npz or a dict"):
            fit(program, {"z": np.zeros((9, 2), np.float32)}, max_steps=1)


def test_rows_of_another_shape_are_refused_by_their_shape_not_by_their_values():
    bytes_ = np.random.default_rng(0).integers(0, 256, (20, 4, 4), np.uint8)
    run = fit(load("vae", **SMALL), bytes_, max_steps=1)
    assert run.record.data.binarize == "dynamic"
    with pytest.raises(DataError, match=r"x has shape \(16,\) per row, the run was trained on \(1, 4, 4\)"):
        evaluate(run, data=data.of(bytes_.reshape(20, 16)))
    digits = fit(load("vae", **SMALL), data.of(bytes_ % 17, levels=17), max_steps=1)
    with pytest.raises(DataError, match=r"x has shape \(28, 28\)"):
        digits.encode(np.full((2, 28, 28), 200, np.uint8))


def test_patience_without_validation_rows_is_refused():
    with pytest.raises(UsageError, match="patience needs validation rows"):
        fit(load("vae", **SMALL), small_data(0), epochs=1, batch_size=16, patience=2)


def test_a_loader_that_falls_short_of_its_length_is_refused():
    class Short:
        def __len__(self):
            return 5

        def __iter__(self):
            return iter([torch.zeros(4, 1, 4, 4)] * 4)

    with pytest.raises(DataError, match="yields fewer"):
        fit(load("vae", **SMALL), Short(), epochs=3)


def test_bounds_do_not_depend_on_the_precision_of_training(tmp_path):
    options = {"max_steps": 5, "batch_size": 20, "out": tmp_path / "run"}
    run = fit(load("vae", **SMALL), small_data(), precision="bf16-mixed", **options)
    assert evaluate(run)["elbo_nats"] == evaluate(open_run(tmp_path / "run", data=small_data()))["elbo_nats"]


def test_noise_of_training_is_not_the_noise_that_made_the_weights():
    from ppl_vae.backends.pyro import Engine, bind
    from ppl_vae.options import Training

    bound = bind(load("vae", **SMALL).adapted_to(small_data()), seed=0)
    engine = Engine(bound, ELBO(), Training(), train=small_data().train_rows(), num_data=40)
    weights = bound.networks["encoder"].body.layers[0].weight.detach().reshape(-1)
    with torch.random.fork_rng():
        torch.random.set_rng_state(engine.rng)
        noise = torch.rand(len(weights))
    assert abs(np.corrcoef(weights, noise)[0, 1]) < 0.4  # 128 numbers: a standard error of 0.09


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_run_whose_first_batch_is_refused_leaves_its_folder_free(tmp_path, backend):
    grey = data.of({"x": np.full((40, 1, 4, 4), 0.5, np.float32)}, binarize="none")
    for _ in range(2):
        with pytest.raises(ProgramError, match="outside the support"):
            fit(load("vae", **SMALL), grey, epochs=1, batch_size=10, out=tmp_path / "run", backend=backend)
    run = fit(
        load("vae", **SMALL), small_data(), epochs=1, batch_size=10, out=tmp_path / "run", backend=backend
    )
    assert evaluate(run)["n"] == 10


@dataclass(frozen=True)
class Penalised(Program):
    """A global factor beside the plate: a part of the model that is no latent."""

    x_shape: tuple[int, ...] | None = None

    def model(self, ppl, net, x=None):
        ppl.factor("penalty", ppl.array(-1.0))
        with ppl.minibatch(x):
            ppl.sample("x", ppl.dist.Normal(ppl.array([0.0, 0.0]), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        pass


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_program_with_a_global_factor_is_sampled(backend):
    run = fit(Penalised(), np.zeros((20, 2), "f"), max_steps=1, batch_size=5, backend=backend)
    assert run.sample(3)["x"].shape == (3, 2)


def test_a_run_without_a_checkpoint_keeps_its_record_when_going_on_is_refused(tmp_path, monkeypatch):
    class Stop(Exception):
        pass

    def stop(event, state):
        raise Stop

    def objective(model, guide, **batch):
        if "REFUSED" in os.environ:
            raise UsageError("not this one")
        return pyro.infer.Trace_ELBO().differentiable_loss(model, guide, **batch)

    with pytest.raises(Stop):
        fit(
            load("vae", **SMALL),
            small_data(),
            objective,
            max_steps=9,
            batch_size=16,
            log_every=1,
            out=tmp_path / "run",
            callbacks=[stop],
        )
    kept = {name: contents(tmp_path / "run")[name] for name in ("config.yaml", "model.py")}
    assert "position.json" not in contents(tmp_path / "run")

    monkeypatch.setenv("REFUSED", "1")
    with pytest.raises(UsageError, match="not this one"):
        resume(tmp_path / "run", data=small_data(), objective=objective)
    assert contents(tmp_path / "run").items() >= kept.items()


@pytest.mark.parametrize(
    "text",
    ["Trace_ELBO(num_particles=abc)", "Trace_ELBO(num_particles=0)", "RenyiELBO(alpha=1)"],
)
def test_a_stock_objective_that_cannot_be_made_is_refused(text):
    with pytest.raises(UsageError, match="ELBO"):
        fit(load("vae", **SMALL), small_data(), text, epochs=1, batch_size=16)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1"])
def test_each_signal_to_stop_is_a_request_to_save(name):
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)  # what started the tests may have it ignored
    try:
        _asked(number)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def _asked(number):
    with stop_request(lambda asked: asked) as stop:
        assert not stop()
        Present.compiling = False
        os.kill(os.getpid(), number)
        assert stop() and stop.signal is number


def test_a_hangup_that_nohup_ignores_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_request(lambda asked: asked) as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_ctrl_c_does_not_wait_for_the_first_step_or_a_compilation():
    with pytest.raises(KeyboardInterrupt), stop_request(lambda asked: asked):
        os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), stop_request(lambda asked: asked):
        Present.compiling = False
        with compiling():
            os.kill(os.getpid(), signal.SIGINT)
    Present.cut = False
    assert not Present.compiling and not Present.training
