"""The verbs of the command line: what each prints and writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import COMMAND, SMALL, cli, ok, refused

import ppl_vae
from ppl_vae import evaluate, open_run

ROOT = Path(ppl_vae.__file__).parent.parent
VERBS = ("train", "evaluate", "encode", "decode", "sample", "reconstruct", "log_prob", "posterior", "export")
VERBS += ("check",)
TOOLS = ("list", "copy", "data", "doctor")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small run on the embedded data, and what `train` printed."""
    path = tmp_path_factory.mktemp("runs") / "first"
    return path, ok("train", "vae", *SMALL, "--max-steps", 30, "--out", path)


@pytest.fixture
def run(trained):
    return trained[0]


def arrays(path):
    with np.load(path) as file:
        return dict(file)


# help


def test_help_lists_every_verb_and_loads_no_backend():
    code = f"""
import contextlib, io, sys
from ppl_vae.cli import main
verbs = [[verb, "--help"] for verb in {VERBS + TOOLS}]
for words in [["--help"], ["--version"], *verbs, ["train", "vae", "--help"]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(words) == 0, words
    print(words, len(out.getvalue()) > 10)
    if words == ["--help"]:
        assert all("\\n  " + verb + " " in out.getvalue() for verb in {VERBS + TOOLS}), out.getvalue()
    if words[1:] == ["vae", "--help"]:
        assert "--model.z_dim" in out.getvalue()
heavy = {{"torch", "jax", "pyro", "numpyro", "matplotlib", "xarray"}}
print({{name.split(".")[0] for name in sys.modules}} & heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "False" not in done.stdout
    assert done.stdout.splitlines()[-1] == "set()"


def test_no_verb_and_unknown_verbs():
    found = cli()
    assert found.code == 2 and found.out == "" and found.err[0].startswith("usage: ppl-vae VERB")
    assert cli("--version").out == f"ppl-vae {ppl_vae.__version__}\n"
    assert cli("trian").err == ["ppl-vae: unknown verb 'trian': did you mean train?"]
    assert cli("frobnicate").err == ["ppl-vae: unknown verb 'frobnicate': see ppl-vae --help"]
    assert cli("--frobnicate").code == 2


def test_a_script_of_the_working_folder_is_a_verb(folder):
    (folder / "inference").mkdir()
    (folder / "inference" / "hello.py").write_text(
        '"""Say hello."""\nfrom ppl_vae.cli import arguments, script\n'
        "def parser():\n    parser = arguments.new(__doc__)\n"
        "    parser.add_argument('--to', type=str, default='you')\n    return parser\n"
        "def main(options):\n    print('aside')\n"
        "    return {'hello': options.to, 'nothing': float('nan'), 'many': [float('inf'), 1.5]}\n"
        "script(parser, main)\n"
    )
    found = cli("hello", "--to", "me")
    assert (found.code, found.result) == (0, {"hello": "me", "nothing": None, "many": [None, 1.5]})
    assert found.err == ["aside"]  # nothing but the result on stdout
    assert "  hello        Say hello." in cli("--help").out
    assert refused(2, "hello", "--too", "x").endswith("unknown option --too: did you mean --to?")


def test_an_unexpected_error_keeps_its_traceback(folder):
    (folder / "inference").mkdir()
    (folder / "inference" / "fail.py").write_text("raise KeyError('deep')\n")
    (folder / "inference" / "stop.py").write_text("raise KeyboardInterrupt\n")
    assert (cli("stop").code, cli("stop").err) == (130, ["ppl-vae: interrupted"])
    found = cli("fail")
    assert (found.code, found.err[0], found.err[-1]) == (
        1,
        "Traceback (most recent call last):",
        "KeyError: 'deep'",
    )


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_fault_of_a_users_file_is_one_line(tmp_path, monkeypatch, backend):
    source = (ROOT / "models" / "vae.py").read_text()
    line = next(place for place, text in enumerate(source.splitlines(), 1) if "loc, scale =" in text)
    (tmp_path / "mine.py").write_text(source.replace("loc, scale =", "loc, scale, more ="))
    (tmp_path / "loss.py").write_text(
        "from dataclasses import dataclass\nfrom ppl_vae import Objective\n\n\n"
        "@dataclass(frozen=True)\nclass Loss(Objective):\n"
        "    def loss(self, F, terms, scalars):\n        return terms.distorsion\n"
    )
    words = ("--max-steps", 1, "--progress", "false", "--backend", backend, "--out", tmp_path / "run")
    own = ("vae", "--objective", f"{tmp_path / 'loss.py'}:Loss()")
    message = refused(1, "train", tmp_path / "mine.py", *words)
    assert f"mine.py, line {line}: ValueError: not enough values to unpack" in message
    message = refused(1, "train", *own, *words)
    assert "loss.py, line 8: AttributeError" in message and "(--debug shows the traceback)" in message
    (tmp_path / "mine.py").write_text(source.replace("net.encoder(x)", "net.encodr(x)"))
    message = refused(1, "train", tmp_path / "mine.py", *words)
    assert "no network 'encodr'" in message and f"mine.py, line {line}:" in message
    for line in (("--debug", "train", *own, *words), ("train", *own, *words, "--debug")):
        monkeypatch.setenv("PPL_VAE_TRACEBACK", "")  # put back after the test, whatever sets it
        assert any(one.startswith("Traceback (most recent") for one in cli(*line).err)


def test_scripts_run_as_files_and_a_closed_pipe_is_no_error(tmp_path):
    done = subprocess.run(
        [sys.executable, ROOT / "inference" / "evaluate.py", "gone"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("ppl-vae evaluate: gone does not exist")
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run([*COMMAND, "list"], stdout=write, stderr=subprocess.PIPE, text=True, check=False)
    os.close(write)
    assert done.returncode == 1 and "Traceback" not in done.stderr and "Exception" not in done.stderr


# train and evaluate


def test_train_prints_what_it_did(trained):
    path, result = trained
    expected = {"program": "vae", "backend": "pyro", "data": "digits", "binarize": "dynamic", "steps": 30}
    expected |= {"elbo_split": "valid", "n": 180, "stopped_by": None}
    assert {name: result[name] for name in expected} == expected
    assert result["out"] == str(path) and result["seconds"] > 0
    rows = [row for row in open_run(path).history if row["split"] == "valid"]
    best = max(rows, key=lambda row: row["elbo_nats"])
    assert (result["elbo_nats"], result["elbo_stderr"], result["best_step"]) == (
        best["elbo_nats"],
        best["elbo_stderr"],
        best["step"],
    )
    names = {
        "config.yaml",
        "weights.safetensors",
        "state.pt",
        "metrics.jsonl",
        "report.html",
        "manifest.json",
        "model.py",
    }
    assert names <= {path.name for path in path.iterdir()}
    page = (path / "report.html").read_text()
    assert "vae on digits" in page and page.count("data:image/png") >= 3 and "z_dim" in page


def test_evaluate_prints_and_keeps_the_bounds(run, tmp_path):
    result = ok("evaluate", run, "--importance-samples", 10, "--per-row", tmp_path / "rows.npz")
    same = evaluate(open_run(run), "test", 10)
    per_row = same.pop("per_row")
    assert {name: result[name] for name in same} == same
    assert {"seconds", "seed", "data_sha256"} <= set(result) and result["n"] == 180
    assert result["elbo_nats"] == pytest.approx(-result["distortion_nats"] - result["rate_nats"], abs=1e-9)
    for path in (tmp_path / "rows.npz", run / "evaluation-test-k10.npz"):
        for name, values in arrays(path).items():
            np.testing.assert_array_equal(values, per_row[name])
    kept = json.loads((run / "evaluation-test-k10.json").read_text())
    assert kept == {name: result[name] for name in kept} and {
        "split",
        "k",
        "binarize",
        "seed",
        "n",
        "data_sha256",
    } <= set(kept)
    assert "evaluation-test-k10.iw_nats" in (run / "report.html").read_text()
    line = refused(2, "evaluate", run, "--per-row", tmp_path / "rows.npz")
    assert "rows.npz exists and is not overwritten" in line and "--overwrite" in line
    valid = ok("evaluate", run, "--split", "valid", "--per-row", tmp_path / "rows.npz", "--overwrite")
    assert valid["iw_nats"] is None and valid["k"] is None
    assert len(arrays(tmp_path / "rows.npz")["elbo"]) == valid["n"] == 180


def test_data_that_moved_and_other_data(folder):
    x = (np.random.default_rng(0).random((60, 4, 4)) < 0.3).astype(np.float32)
    np.save("x.npy", x)
    ok(
        "train",
        "vae",
        *SMALL,
        "--data",
        "x.npy",
        "--binarize",
        "none",
        "--max-steps",
        3,
        "--batch-size",
        20,
        "--out",
        "run",
    )
    before = ok("evaluate", "run")
    assert before["n"] == 6
    Path("x.npy").rename("moved.npy")
    assert "x.npy: say where it lies now with --data" in refused(1, "evaluate", "run")
    assert ok("sample", "run", "-n", 3)["n"] == 3  # needs no data
    after = ok("evaluate", "run", "--data", "moved.npy")
    assert after["elbo_nats"] == before["elbo_nats"] and after["data_sha256"] == before["data_sha256"]
    np.save("new.npy", x[:7])
    other = cli("evaluate", "run", "--data", "new.npy")
    assert other.err[0] == "new.npy is other data than the run was trained on (its sha256 differs)"
    assert other.result["n"] == 7
    label = f"new-{other.result['data_sha256'][:8]}"
    assert other.result["out"] == f"run/evaluation-{label}-test.json"
    # Results of the run's own data stay as they are.
    own = Path(ok("encode", "run", "--data", "moved.npy")["out"])
    kept = own.read_bytes()
    encoded = ok("encode", "run", "--data", "new.npy")
    assert encoded["arrays"] == {"z": [7, 2]} and encoded["out"] == f"run/latents-{label}-test.npz"
    assert ok("log_prob", "run", "--data", "new.npy")["out"] == f"run/log_prob-{label}-test.npz"
    assert own.read_bytes() == kept and own == Path("run/latents-test.npz")
    assert ok("train", "--resume", "--out", "run", "--data", "moved.npy", "--max-steps", 5)["steps"] == 5
    line = cli("train", "--resume", "--out", "run", "--data", "new.npy")
    assert line.code == 1 and "is not what the run was trained on (its sha256 differs)" in line.err[-1]


@pytest.mark.parametrize("objective", ["iwae(k=3)", "Trace_ELBO", "elbo(beta=0.5,particles=2)"])
def test_objectives_by_text(tmp_path, objective):
    out = tmp_path / "run"
    ok("train", "vae", *SMALL, "--objective", objective, "--max-steps", 2, "--out", out)
    assert open_run(out).config["objective"] == {"Trace_ELBO": "pyro.infer.Trace_ELBO"}.get(
        objective, objective
    )


def test_every_training_option_arrives(tmp_path):
    words = {
        "epochs": 2, "max_steps": 3, "batch_size": 100, "accumulate": 2, "optimizer": "adamw",
        "lr": "cosine:0.001:0.0001:3",
        "weight_decay": 0.01, "eps": 1e-6, "betas": [0.8, 0.99], "clip_norm": 5.0, "ema": 0.9,
        "valid_every": 2, "patience": 4, "keep": "last", "log_every": 1, "checkpoint_every": 0.5,
        "seed": 7, "device": "cpu", "devices": 1, "precision": "bf16-mixed",
    }  # fmt: skip
    options = [
        part
        for name, value in words.items()
        for part in (f"--{name.replace('_', '-')}", str(value).strip("[]").replace(" ", ""))
    ]
    extra = ("--beta", "linear:0:1:3", "--warm-up", 2, "--valid", 0.2, "--test", 50, "--split-seed", 3)
    ok("train", "vae", *SMALL, *options, *extra, "--tensorboard", "--out", tmp_path / "run")
    config = open_run(tmp_path / "run").config
    assert config["training"] == words
    assert config["objective"] == "elbo(beta=linear:0:1:3,warm_up=2)"
    assert config["model"] | {"z_dim": 2, "hidden": [16], "x_shape": [1, 8, 8]} == config["model"]
    assert config["data"]["rows"] == {"train": 1388, "valid": 359, "test": 50}
    assert list((tmp_path / "run" / "tensorboard").iterdir())


def test_the_default_folder_is_numbered(folder):
    for name in ("vae-digits", "vae-digits-2"):
        assert ok("train", "vae", *SMALL, "--max-steps", 1)["out"] == f"runs/{name}"


def test_the_other_backend(tmp_path):
    pytest.importorskip("numpyro")
    out = tmp_path / "run"
    assert (
        ok("train", "vae", *SMALL, "--backend", "numpyro", "--max-steps", 4, "--out", out)["backend"]
        == "numpyro"
    )
    assert ok("sample", out, "-n", 3)["backend"] == "numpyro"
