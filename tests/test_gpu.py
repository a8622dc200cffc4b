"""Both backends on a CUDA device: the numbers of the CPU, to rounding where the noise is the same."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyro
import pytest
import torch
import two_processes
from exact import decoder, draw, evidence, weights
from exact import program as linear
from training_cases import example, small_data, vae

import ppl_vae
from ppl_vae import ELBO, bind, evaluate, export, fit, load, open_run, posterior
from ppl_vae.api import resume
from ppl_vae.backends import backend as backend_named
from ppl_vae.backends.pyro import Engine
from ppl_vae.backends.pyro.devices import OneDevice
from ppl_vae.backends.pyro.step import by_step
from ppl_vae.options import Training

pytestmark = pytest.mark.gpu

BACKENDS = ("pyro", "numpyro")
GALLERY = ("vae", "hvae", "counts", "vqvae", "linear_gaussian")
# Sums over rows and products of matrices are added up in another order: some 1e-6 of a gradient. Adam, whose
# eps of 1e-2 bounds how that grows, moves a weight by up to 1e-2 a step.
CLOSE = {"rtol": 1e-3, "atol": 1e-4}
RUNS = {
    "pyro": {"compile": "off"},
    "pyro, compiled": {"compile": "on"},
    "pyro, compiled, bf16": {"compile": "on", "precision": "bf16-mixed"},
    "numpyro": {"backend": "numpyro"},
}
OPTIONS = {"epochs": 3, "batch_size": 32, "lr": 1e-2, "eps": 1e-2, "ema": 0.9, "device": "cuda"}


@pytest.fixture(autouse=True)
def no_tf32(monkeypatch):
    """torch convolves in TF32 by itself, a CPU does not."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)


@pytest.fixture(autouse=True, scope="module")
def jax_has_cuda():
    import jax

    try:
        jax.devices("cuda")
    except RuntimeError:
        pytest.skip("needs JAX with CUDA")


def assert_close(found, expected, **tolerances):
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, err_msg=name, **(tolerances or CLOSE))


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_the_exact_posterior_every_bound_and_weight_is_the_evidence(backend):
    w, b = decoder()
    rows = draw(200, w, b)
    bound = bind(linear(), backend=backend, num_data=len(rows), device="cuda")
    bound.load_weights(weights(w, b))
    verbs, exact = backend_named(backend), evidence(rows, w, b)
    scores = verbs.score(bound, {"x": rows}, 7)
    drawn = verbs.draws(bound, {"x": rows}, 5, method="importance")
    for found in (scores.elbo, scores.iw, *drawn.log_weight):
        np.testing.assert_allclose(found, exact, atol=1e-4)


@pytest.mark.parametrize("compile", ["off", "on"])
@pytest.mark.parametrize("case", ["vqvae", "normalized"])
def test_pyro_without_noise_takes_the_steps_of_the_cpu(case, compile):
    expected = two_processes.trained(case).bound.weights()
    run = two_processes.trained(case, device="cuda", compile=compile)
    assert run.config["compile"] == compile
    assert_close(run.bound.weights(), expected)


@pytest.mark.parametrize("name", ["vae", "vqvae"])
def test_replayed_cuda_graphs_take_the_steps_of_single_launches(name, monkeypatch):
    from torch._dynamo.utils import counters
    from torch._inductor import cudagraph_trees

    program, data = example(name, 72)  # the odd last batch runs outside of a graph
    found, made = [], OneDevice.__init__
    for one_pass in (True, False):

        def make(devices, options, one_pass=one_pass):
            made(devices, options)
            devices.one_pass = one_pass

        counters.clear()
        monkeypatch.setattr(OneDevice, "__init__", make)
        found.append(fit(program, data, max_steps=12, batch_size=32, device="cuda", compile="on"))
        assert cudagraph_trees.get_manager(0, create_if_none_exists=False) is not None
        assert not counters["inductor"]["cudagraph_skips"]
    replayed, launched = (run.bound.weights() for run in found)
    assert_close(replayed, launched, rtol=1e-6, atol=1e-7)  # the noise is the same


@pytest.mark.parametrize("name", GALLERY)
def test_pyro_with_other_noise_reaches_what_the_cpu_does(name):
    program, batch = example(name, 64)
    elbo = {
        device: evaluate(fit(program, batch, max_steps=20, batch_size=32, device=device), "train")
        for device in ("cpu", "cuda")
    }
    assert elbo["cuda"]["elbo_nats"] == pytest.approx(elbo["cpu"]["elbo_nats"], rel=0.1)


@pytest.mark.parametrize("name", GALLERY)
def test_numpyro_has_the_noise_and_the_steps_of_the_cpu(name):
    from two_devices import FIELDS, data_of
    from two_devices import OPTIONS as STEPS

    program, found = load(name, **FIELDS.get(name, {})), data_of(name)
    one, two = (fit(program, found, device=device, **STEPS) for device in ("cpu", "cuda"))
    assert_close(two.bound.weights(), one.bound.weights())
    per_row = [evaluate(run, "train")["per_row"] for run in (two, one)]
    assert_close(*per_row, rtol=1e-3, atol=1e-2)


@pytest.fixture(scope="module", params=RUNS)
def whole(request, tmp_path_factory):
    """A run on the device with its folder."""
    out = tmp_path_factory.mktemp("gpu") / "whole"
    run = fit(vae(), small_data(), out=out, **OPTIONS | RUNS[request.param])
    assert run.config["compile"] == RUNS[request.param].get("compile", run.config["compile"])
    return run, out


def test_a_run_is_opened_on_the_cpu(whole):
    run, out = whole
    opened, x = open_run(out, data=small_data()), small_data().rows("test")
    assert_close(opened.encode(x), run.encode(x))
    assert_close(opened.reconstruct(x), run.reconstruct(x))
    found = [evaluate(one, "test", importance_samples=50)["per_row"] for one in (opened, run)]
    for name in ("elbo", "iw"):
        apart = found[0][name] - found[1][name]
        # NumPyro draws the same on both; Pyro does not: four standard errors.
        assert abs(apart.mean()) < 4 * apart.std(ddof=1) / np.sqrt(len(apart)) + 1e-3
        assert run.backend == "pyro" or np.abs(apart).max() < 1e-2


def test_draws_of_the_posterior_lie_around_the_guide_s_means(whole):
    run, x = whole[0], small_data().rows("test")
    z = posterior(run, x, method="guide", num_samples=400)["posterior"]["z"].values
    z = z.reshape(400, *z.shape[-2:])
    error = z.std(0, ddof=1) / 20
    assert (np.abs(z.mean(0) - run.encode(x)["z"]) < 5 * error).all()


def test_an_exported_graph_gives_the_run_s_numbers_on_the_cpu(whole, tmp_path):
    run, x = whole[0], small_data().rows("test")
    if run.backend != "pyro":
        pytest.skip("only Pyro exports")
    for what in ("encode", "score"):
        export(run, tmp_path / f"{what}.pt2", what)
    module = torch.export.load(tmp_path / "encode.pt2").module()
    np.testing.assert_allclose(module(x=torch.from_numpy(x["x"]))["z"], run.encode(x)["z"], **CLOSE)


def stopped(out, **options):
    """Train until a signal comes after the fourth step."""

    def interrupt(event, state):
        if event == "log" and state["position"].step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    settings = OPTIONS | {"log_every": 1, "checkpoint_every": 0.0, "callbacks": [interrupt]} | options
    run = fit(vae(), small_data(), out=out, **settings)
    assert run.stopped_by == "SIGTERM" and run.steps == 4


def test_a_run_resumes_on_the_device(whole, tmp_path):
    run, _ = whole
    training = run.config["training"]
    chosen = {"backend": run.backend, "precision": training["precision"]}
    stopped(
        tmp_path / "part", **chosen | ({"compile": run.config["compile"]} if run.backend == "pyro" else {})
    )
    found = resume(tmp_path / "part", data=small_data())
    assert found.steps == run.steps
    assert_close(found.bound.weights(), run.bound.weights(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("begins", "ends"), [("cuda", "cpu"), ("cpu", "cuda")])
def test_a_run_moves_between_devices_and_goes_on_the_same_each_time(tmp_path, begins, ends, backend):
    stopped(tmp_path / "one", device=begins, backend=backend, compile="off" if backend == "pyro" else "auto")
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    found = []
    for seed, name in enumerate(("one", "two")):
        torch.manual_seed(seed)
        run = resume(tmp_path / name, data=small_data(), device=ends)
        assert run.steps == 9
        found.append(run.bound.weights())
    assert_close(*found, rtol=1e-4, atol=1e-5)


def test_the_user_s_noise_is_left_alone():
    torch.manual_seed(5)
    expected = torch.rand(3, device="cuda")
    torch.manual_seed(5)
    run = fit(vae(), small_data(), max_steps=3, **OPTIONS)
    evaluate(run, importance_samples=3)
    posterior(run, small_data().rows("test"), num_samples=2)
    assert torch.equal(torch.rand(3, device="cuda"), expected)


@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("name", ["vae", "hvae", "vqvae", "linear_gaussian"])
def test_a_step_does_not_wait_for_the_device(name):
    program, data = example(name, 64)
    options = Training(batch_size=32, ema=0.9, clip_norm=1.0, device="cuda")
    bits = name in ("vae", "hvae")
    engine = Engine(bind(program), ELBO(), options, train=data, num_data=64, dynamic=bits)
    item, scalars = np.arange(32), {"lr": np.array([1e-3]), "beta": np.ones(1), "ema": np.array([0.1])}
    engine.advance([item], scalars, lambda: False)
    (rows,), (values,) = engine._on_device([item]), by_step(scalars, engine.device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with pyro.validation_enabled(False):
            engine.step(engine._binarized(engine.batch(rows)), values)
    finally:
        torch.cuda.set_sync_debug_mode("default")


MEMORY = """
import numpy as np, torch
from ppl_vae import fit, load
torch.zeros(1, device="cuda")
before, total = torch.cuda.mem_get_info()
rows, program = np.zeros((64, 4, 4), "f"), load("vae", hidden=(16,), z_dim=2)
fit(program, rows, backend="numpyro", device="cuda", max_steps=2, batch_size=32)
assert before - torch.cuda.mem_get_info()[0] < 0.2 * total
torch.zeros(total // 2, dtype=torch.uint8, device="cuda")
"""


def test_jax_leaves_torch_its_share_of_the_memory():
    environment = {k: v for k, v in os.environ.items() if k != "XLA_PYTHON_CLIENT_PREALLOCATE"}
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(Path(ppl_vae.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    )
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr[-2000:]
