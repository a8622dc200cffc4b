"""Training on several devices with Pyro: a process each, and the numbers of one."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import completed, owned
from torch import nn
from two_processes import BATCH, CASES, OPTIONS, STOCHASTIC, Normalized, data_of, program, trained

import ppl_vae
from ppl_vae import ELBO, bind, evaluate, fit, open_run
from ppl_vae.backends.pyro import launching, several_devices
from ppl_vae.backends.pyro.across import moments, spread, totals
from ppl_vae.backends.pyro.devices import OneDevice
from ppl_vae.backends.pyro.several_devices import SeveralDevices, make_fabric, merged
from ppl_vae.backends.pyro.svi import Engine
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.options import Training, stream
from ppl_vae.training import Rows

HERE = Path(__file__).parent
SCRIPT = HERE / "two_processes.py"
TRAIN = HERE.parent / "inference" / "train.py"
# A sum over 32 rows is rounded otherwise when it is two sums of 16: by some 1e-7 of its size in float32. Six
# steps of Adam, whose eps of 1e-2 bounds how an error of a gradient grows, leave little more than that, where
# a wrong share of the rows would show in the second digit.
CLOSE = {"rtol": 1e-5, "atol": 2e-6}


def started(*words, **more):
    """Run Python in a process of its own, with processes of its own."""
    left = ("LOCAL_RANK", "WORLD_SIZE", launching.PARENT)
    environment = {name: value for name, value in os.environ.items() if name not in left}
    environment |= {"PYTHONPATH": os.pathsep.join([str(Path(ppl_vae.__file__).parent.parent), str(HERE)])}
    return completed([sys.executable, *words], env=environment, **more)


def on_two_devices(folder, *cases):
    # The compiler imports what torch itself calls deprecated.
    done = started("-Werror", "-Wignore::DeprecationWarning", SCRIPT, folder, *cases)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "Warning" not in done.stderr


def weights(folder, name, rank=0):
    with np.load(folder / f"{name} {rank}.npz") as found:
        return dict(found)


def history(folder, name, rank=0):
    return json.loads((folder / f"{name} {rank}.json").read_text())


def assert_two_equal_one(folder, case, **more):
    one, two = trained(case, **more), weights(folder, case)
    expected = one.bound.weights()
    assert set(two) == set(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(two[key], value, **CLOSE, err_msg=f"{case}: {key}")
    # All processes end with the same weights, to the bit, and saw the same numbers.
    assert all(np.array_equal(value, two[key]) for key, value in weights(folder, case, 1).items())
    assert history(folder, case, 1) == history(folder, case)
    assert len(one.history) == len(history(folder, case)) and one.steps == 6
    for left, right in zip(one.history, history(folder, case), strict=True):
        left = {name: value for name, value in left.items() if name != "seconds"}
        assert left.pop("split") == right.pop("split")
        assert left == pytest.approx(right, rel=1e-5, abs=1e-6), case
    return expected


UNCOMPILED = [name for name in CASES if name not in STOCHASTIC and "compiled" not in name]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What one process for each of two devices made, which load torch once."""
    folder = tmp_path_factory.mktemp("two_processes")
    on_two_devices(folder, *UNCOMPILED, *STOCHASTIC, "interrupted")
    return folder


@pytest.mark.parametrize("case", UNCOMPILED)
def test_two_devices_equal_one_where_there_is_no_noise(made, case):
    found = assert_two_equal_one(made, case)
    if case == "vqvae":
        assert np.abs(found["codebook.counts"] - 1).max() > 0.1  # the statistics moved
    if case == "reviving":
        assert (found["codebook.moved"] != 0).any(1).sum() > 1
    if case == "normalized":
        assert np.abs(found["encoder.1.mean"]).max() > 0.01


@pytest.mark.slow
def test_two_devices_equal_one_with_the_compiled_step(tmp_path):
    cases = [name for name in CASES if "compiled" in name]
    on_two_devices(tmp_path, *cases)
    for case in cases:
        # Without noise a compiled step rounds otherwise than an uncompiled one, and no more.
        assert_two_equal_one(tmp_path, case, compile="off")


@pytest.mark.parametrize("name", STOCHASTIC)
def test_two_devices_take_the_mean_gradient_of_their_shares_and_noise(made, name):
    expected = simulated(name)
    for key, value in weights(made, name).items():
        np.testing.assert_allclose(value, expected[key], **CLOSE, err_msg=f"{name}: {key}")


def simulated(name):
    """Train in one process on the shares of two devices, each with its own noise."""
    found = data_of(name)
    made = bind(program(name, {}).adapted_to(found), num_data=69)
    made.start(found.train_rows())
    options = Training(**OPTIONS)
    engine = Engine(made, ELBO(), options, train=found.train_rows(), num_data=69)
    source, one, step = Rows(69, BATCH, 0), {"beta": torch.ones(())}, 0
    engine._prepare(engine.batch(np.arange(4)), one)
    made.train()
    with torch.random.fork_rng():
        for epoch in range(2):
            for rows in source.epoch(epoch):
                for parameter in engine.step.parameters:
                    parameter.grad = None
                for rank, share in enumerate(np.array_split(rows, 2)):
                    torch.manual_seed(stream(0, f"training/{rank}/{step}"))
                    value = engine.loss(engine.batch(share), one).value
                    (value * (len(share) / len(rows))).backward()
                engine.step._update({"lr": 1e-2})
                step += 1
    return made.weights()


def test_a_run_on_two_devices_resumes_to_the_same_bits(made):
    whole = weights(made, "whole")
    for rank in (0, 1):
        assert all(np.array_equal(weights(made, "resumed", rank)[n], v) for n, v in whole.items())
    files = [(made / run / "weights.safetensors").read_bytes() for run in ("whole", "part")]
    assert files[0] == files[1]
    states = [torch.load(made / run / "state.pt", weights_only=True) for run in ("whole", "part")]
    assert states[0]["taken"] == states[1]["taken"] == 6
    torch.testing.assert_close(states[0]["optimizer"], states[1]["optimizer"], rtol=0, atol=0)
    assert history(made, "whole") == history(made, "resumed")


def test_a_process_that_dies_ends_the_others_and_the_run_goes_on(tmp_path):
    done = started(SCRIPT, tmp_path, "dying")
    assert done.returncode == 1
    assert "RunError: the process of another device has ended" in done.stderr.splitlines()[-1]
    assert open_run(tmp_path / "dying", data=data_of("vqvae")).steps == 4
    found = ppl_vae.api.resume(tmp_path / "dying", data=data_of("vqvae"), devices=1)
    assert found.steps == 6
    for key, value in trained("vqvae").bound.weights().items():
        np.testing.assert_allclose(found.bound.weights()[key], value, **CLOSE, err_msg=key)


@pytest.mark.slow
def test_statistics_of_a_network_that_one_device_does_not_use_are_refused(tmp_path):
    done = started(SCRIPT, tmp_path, "seldom normalized")
    assert done.returncode == 1
    assert "is used by the rows of one device and not by those of another" in done.stderr.splitlines()[-1]


def trained_by(command, folder):
    np.savez(folder / "rows.npz", **data_of("vae").splits["train"])
    return started(
        *command, "vae", "--data", "rows.npz", "--valid", "0.2", "--max-steps", "4", "--batch-size", "32",
        "--devices", "2", "--device", "cpu", "--compile", "off", "--out", "run", cwd=folder,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", TRAIN],
        [TRAIN],
        pytest.param(
            ["-c", "import sys; from ppl_vae.cli import main; sys.exit(main(['train', *sys.argv[1:]]))"],
            marks=pytest.mark.slow,
        ),
    ],
    ids=["torchrun", "script", "verb"],
)
def test_the_command_line_tells_once(tmp_path, command):
    done = trained_by(command, tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    (line,) = done.stdout.splitlines()
    found = json.loads(line)
    assert found["steps"] == 4 and found["out"] == "run"
    assert done.stderr.count("writing to") == 1
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == len(
        open_run(tmp_path / "run").history
    )
    assert evaluate(open_run(tmp_path / "run"), "valid")["n"] == found["n"]
    if command == [TRAIN]:
        again = trained_by(command, tmp_path)
        assert again.returncode == 2 and again.stdout == "" and "--resume" in again.stderr


def fake(rank, count):
    found = SeveralDevices.__new__(SeveralDevices)
    found.rank, found.count = rank, count
    return found


def test_shares_of_batches_and_their_parts():
    def shares(rows, **options):
        made = [fake(rank, 2).shares(np.arange(rows), Training(**options)) for rank in (0, 1)]
        return [(list(found), [tuple(share) for share in parts]) for found, parts in made]

    assert shares(4, batch_size=4) == [([0, 1], [(2, 0.5, True)]), ([2, 3], [(2, 0.5, True)])]
    assert shares(3, batch_size=4) == [([0, 1], [(2, 2 / 3, False)]), ([2], [(1, 1 / 3, False)])]
    # A single row is worked on by both and counts once.
    assert shares(1, batch_size=4) == [([0], [(1, 1.0, False)]), ([0], [(1, 0.0, False)])]
    assert shares(5, batch_size=8, accumulate=2) == [
        ([0, 1, 4], [(2, 0.4, True), (1, 0.2, False)]),
        ([2, 3, 4], [(2, 0.4, True), (1, 0.0, False)]),
    ]
    assert OneDevice(Training(device="cpu")).shares([3, 1], Training()) == ([3, 1], None)


def test_on_one_device_layers_add_up_nothing():
    x = torch.arange(12.0).reshape(6, 2)
    assert totals(x)[0] is x
    mean, var = moments(x, (0,))
    assert mean.tolist() == [5.0, 6.0] and var.tolist() == pytest.approx([35 / 3] * 2)
    assert spread(x, 3).tolist() == [[0.0, 1.0], [4.0, 5.0], [8.0, 9.0]]


def test_scores_of_parts_are_joined_in_order():
    parts = [Scores(np.array([1.0, 2.0]), {"z": np.array([0.1, 0.2])}, {"w": 3.0}, 9, dims=4, dense=3)]
    parts.append(Scores(np.array([5.0]), {"z": np.array([0.5])}, {"w": 3.0}, 9, dims=7, dense=6))
    found = merged(parts)
    assert found.log_likelihood.tolist() == [1.0, 2.0, 5.0] and found.kl["z"].tolist() == [0.1, 0.2, 0.5]
    assert (found.kl_global, found.num_data, found.dims, found.dense) == ({"w": 3.0}, 9, 5, 4)


def test_an_error_in_the_rows_of_one_device_is_raised_on_all(monkeypatch):
    words = "site 'z' of the guide: scale of its Normal is -1"

    def gathered(parts, mine):
        assert len(parts) == 2
        parts[:] = [mine, words] if mine != words else [Scores(np.zeros(2), {}), mine]

    def refused(rows, seed):
        raise ProgramError(words)

    monkeypatch.setattr(several_devices.distributed, "all_gather_object", gathered)
    for rank, score in ((0, lambda rows, seed: Scores(np.zeros(len(rows["x"])), {})), (1, refused)):
        devices = fake(rank, 2)
        devices.place = None
        with pytest.raises(ProgramError, match=words):
            devices.scored({"x": np.zeros((4, 1))}, 0, score)


def test_what_several_devices_cannot_do_is_refused(monkeypatch):
    found, options = data_of("normalized"), OPTIONS | {"devices": 2}
    monkeypatch.setattr(sys, "argv", [str(SCRIPT)])
    loader = torch.utils.data.DataLoader(torch.zeros(64, 5), 32)
    with pytest.raises(UsageError, match="a loader trains on one device with Pyro"):
        fit(Normalized(), loader, **options)
    with pytest.raises(UsageError, match="a pair of functions trains on one device"):
        fit((lambda x: None, lambda x: None), found, **options)

    class Torch(Normalized):
        def networks(self, ours):
            return super().networks(ours) | {"encoder": nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))}

    with pytest.raises(UsageError, match="torch's batch normalization differs on each device"):
        fit(Torch(), found, **options)
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", "1")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UsageError, match="devices=2, but 3 processes were started"):
        fit(Normalized(), found, **options)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    with pytest.raises(UsageError, match="devices=2: only 1 of the processes run on this machine"):
        fit(Normalized(), found, **options)


def test_more_processes_than_this_machine_can_bear_are_refused(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    with pytest.raises(UsageError, match="devices=1000: each is a process, of which this machine bears 8"):
        make_fabric("cpu", 1000)
    with pytest.raises(UsageError, match="devices=3: more than the rows of a batch, batch_size=2"):
        fit(Normalized(), data_of("normalized"), **OPTIONS | {"devices": 3, "batch_size": 2})


def test_one_device_in_each_of_torchrun_s_processes_is_refused(monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="devices=1, but 2 processes were started: make the two"):
        fit(Normalized(), data_of("normalized"), **OPTIONS)
    # After a training that all have taken part in.
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    launching.check_alone()


def test_where_no_process_can_be_started_is_refused(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["-c"])
    with pytest.raises(UsageError, match="'-c' cannot be started once per device: use a script"):
        make_fabric("cpu", 2)
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.raises(UsageError, match="an interactive session cannot be started once per device"):
        make_fabric("cpu", 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    with pytest.raises(UsageError, match="devices=3: from 'cuda:1' on this machine has 2"):
        make_fabric("cuda:1", 3)


@pytest.mark.parametrize(
    ("variables", "why"),
    [
        ({"LOCAL_RANK": "0", "WORLD_SIZE": "2"}, "but not MASTER_ADDR"),
        ({"LOCAL_RANK": "1", launching.PARENT: "1"}, "left over from process 1"),
        ({"LOCAL_RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}, "a torchrun that no longer answers"),
    ],
)
def test_variables_that_another_run_left_are_told(monkeypatch, variables, why):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])  # free again, and nobody answers there
    whole = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    for name, value in (variables if "WORLD_SIZE" in variables else whole | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=f"LOCAL_RANK=. is set .*{why}.*: unset LOCAL_RANK and WORLD_SIZE"):
        launching.check(2)


def test_a_process_that_was_stopped_is_told_from_one_that_waits():
    with owned([sys.executable, "-c", "print(1, flush=True); input()"], stdin=subprocess.PIPE) as process:
        process.stdout.readline()
        assert not launching._is_stopped(process.pid)
        process.send_signal(signal.SIGSTOP)
        until = time.monotonic() + 10
        while not launching._is_stopped(process.pid):
            assert time.monotonic() < until
        process.send_signal(signal.SIGCONT)
        while launching._is_stopped(process.pid):
            assert time.monotonic() < until
    assert not launching._is_stopped(process.pid)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_process_that_stays_stopped_ends_the_others_within_a_minute(tmp_path, rank):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE.parent), str(HERE)])}
    words = [sys.executable, SCRIPT, tmp_path, f"stopping {rank}"]
    with owned(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
        said = process.stderr.readline()  # of the process that goes on, after half a minute
        assert "was stopped" in said and "resume=True" in said
