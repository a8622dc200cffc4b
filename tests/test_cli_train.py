"""Trainings that are interrupted, killed and resumed, and options that come from files."""

import json
import random
import re
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from command_line import SMALL, answer, cli, contents, ok, owned, refused, start, wait_for_steps

from ppl_vae import load, open_run
from ppl_vae.cli import parsing, training
from ppl_vae.gallery import packaged, script

STEPS = 40
# A history row and a checkpoint at every step; an epoch has 15 steps, so that most kills are in the middle.
WORDS = (
    "vae",
    *SMALL,
    "--batch-size",
    100,
    "--max-steps",
    STEPS,
    "--log-every",
    1,
    "--checkpoint-every",
    0,
    "--ema",
    0.9,
    "--seed",
    3,
)


@pytest.mark.parametrize(
    ("backend", "kills"),
    [("pyro", 1), *(pytest.param(backend, 2, marks=pytest.mark.slow) for backend in ("pyro", "numpyro"))],
)
def test_killed_at_random_steps_and_resumed_the_weights_are_the_same_bytes(tmp_path, backend, kills):
    whole, part = tmp_path / "whole", tmp_path / "part"
    options = (*WORDS, "--backend", backend)
    ok("train", *options, "--out", whole)
    words = ("train", *options, "--out", part)
    for kill_at in sorted(random.Random(0).sample(range(1, STEPS - 5), kills)):
        with start(*words) as process:
            wait_for_steps(process, part, kill_at)
            process.kill()
            assert process.wait() == -signal.SIGKILL
        words = ("train", "--resume", "--out", part, "--progress", "false")
    assert open_run(part).steps < STEPS  # killed, not ended
    before = contents(part)
    assert "already holds a run" in refused(2, "train", *options, "--out", part)
    assert {name: content for name, content in contents(part).items() if name in before} == before
    result = ok(*words)
    assert result["steps"] == STEPS and result["stopped_by"] is None
    assert (part / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    ours, theirs = (
        [{name: row[name] for name in row if name != "seconds"} for row in open_run(path).history]
        for path in (part, whole)
    )
    assert ours == theirs
    assert not [path.name for path in part.iterdir() if path.name.endswith(".new")]


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_saves_prints_and_exits(tmp_path, name, code):
    out = tmp_path / "run"
    words = ("train", "vae", *SMALL, "--epochs", 100000, "--compile", "off", "--log-every", 5, "--out", out)
    with start(*words) as process:
        wait_for_steps(process, out, 3)
        process.send_signal(signal.Signals[name])
        found = answer(process.returncode, *process.communicate(timeout=60))
    assert process.returncode == code
    assert found.result["stopped_by"] == name and found.result["out"] == str(out)
    assert found.out.count("\n") == 1 and "Traceback" not in "\n".join(found.err)
    run = open_run(out)
    assert run.steps == found.result["steps"] > 0
    assert ok("evaluate", out)["steps"] == run.steps
    assert f"stopped by {name}: ppl-vae train --resume --out {out} goes on" in found.err
    # What the run records may be said again.
    same = ("--seed", 0, "--backend", "pyro", "--compile", "auto")
    more = cli("train", "--resume", "--out", out, "--max-steps", run.steps + 2, *same)
    assert more.result["steps"] == run.steps + 2 and f"going on from step {run.steps}" in more.err


def test_a_signal_before_training_ends_the_command(tmp_path):
    # Short sleeps: a signal between the file and one long sleep would be handled after it only.
    (tmp_path / "slow.py").write_text(
        f"import time\nopen({str(tmp_path / 'begun')!r}, 'w').close()\nwhile True:\n    time.sleep(0.05)\n"
    )
    with start("train", tmp_path / "slow.py", "--out", tmp_path / "run") as process:
        while not (tmp_path / "begun").exists():
            assert process.poll() is None
        process.terminate()
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "", "ppl-vae train: terminated\n")
    assert not (tmp_path / "run").exists()


def test_resume_with_the_same_line_starts_or_goes_on(tmp_path):
    out = tmp_path / "run"
    first = ("train", "vae", *SMALL, "--max-steps", 4, "--out", out, "--resume")
    assert ok(*first)["steps"] == 4  # nothing there yet: as without --resume
    kept = (out / "weights.safetensors").read_bytes()
    assert ok(*first)["steps"] == 4
    assert (out / "weights.safetensors").read_bytes() == kept
    assert ok("train", "vae", *SMALL, "--max-steps", 6, "--out", out, "--resume")["steps"] == 6
    assert open_run(out).config["training"]["max_steps"] == 6
    assert (
        ok("train", "--resume", "--out", out, "--epochs", 1)["steps"] == 12
    )  # a new length replaces the old one
    assert (
        open_run(out).config["training"] | {"epochs": 1, "max_steps": None}
        == open_run(out).config["training"]
    )


def test_a_run_that_was_killed_before_its_first_write(tmp_path):
    from ppl_vae.store import RunFolder

    RunFolder.create(tmp_path / "run")
    assert "has no config.yaml" in refused(1, "train", "--resume", "--out", tmp_path / "run")
    assert ok("train", "vae", *SMALL, "--max-steps", 1, "--out", tmp_path / "run", "--resume")["steps"] == 1


# options from files


@pytest.fixture
def recipe(folder):
    """A recipe of the working folder."""
    path = folder / "inference" / "recipes" / "tiny.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(yaml.safe_dump({
        "program": "vae", "data": "digits", "binarize": "static",
        "lr": "linear:0.01:0.001:3", "betas": [0.5, 0.9], "max_steps": 3,
        "model": {"z_dim": 3, "hidden": [8, 4]}, "progress": False,
    }))  # fmt: skip
    return path


def test_a_recipe_says_everything_and_the_line_has_the_last_word(recipe):
    assert ok("train", "--config", "tiny", "--out", "one")["binarize"] == "static"
    config = open_run("one").config
    assert (config["model"]["z_dim"], config["model"]["hidden"]) == (3, [8, 4])
    assert (config["training"]["lr"], config["training"]["betas"], config["training"]["max_steps"]) == (
        "linear:0.01:0.001:3",
        [0.5, 0.9],
        3,
    )
    # The words before and behind --config win alike.
    ok(
        "train",
        "--model.z_dim",
        5,
        "--config",
        recipe,
        "--model.hidden",
        "6",
        "--binarize=none",
        "--model.likelihood",
        "normal",
        "--out",
        "two",
    )
    config = open_run("two").config
    assert (config["model"]["z_dim"], config["model"]["hidden"], config["data"]["binarize"]) == (
        5,
        [6],
        "none",
    )


def test_a_program_of_the_line_wins_over_the_recipes(recipe):
    recipe.write_text(
        yaml.safe_dump({"program": "vae", "max_steps": 1, "model": {"z_dim": 3}, "progress": False})
    )
    assert ok("train", "linear_gaussian", "--config", "tiny")["program"] == "linear_gaussian"
    assert ok("train", "--config", "tiny", "linear_gaussian")["program"] == "linear_gaussian"
    assert open_run("runs/linear_gaussian-digits").config["model"]["z_dim"] == 3


def test_print_config_is_a_config(recipe):
    shown = cli("train", "--config", "tiny", "--seed", 4, "--print_config")
    assert shown.code == 0 and not Path("runs").exists()
    resolved = yaml.safe_load(shown.out)
    assert (resolved["program"], resolved["seed"], resolved["model"]["hidden"], resolved["epochs"]) == (
        "vae",
        4,
        [8, 4],
        None,
    )
    Path("resolved.yaml").write_text(shown.out)
    again = cli("train", "--config", "resolved.yaml", "--print_config")
    assert yaml.safe_load(again.out) == resolved
    assert ok("train", "--config", "resolved.yaml", "--out", "run")["steps"] == 3
    assert (
        yaml.safe_load(cli("evaluate", "gone", "--split", "valid", "--print_config").out)["split"] == "valid"
    )


def test_help_knows_the_fields_of_the_program(recipe):
    assert "--model.commitment" in cli("train", "vqvae", "--help").out
    assert "--model.sigma" in cli("train", "linear_gaussian", "--help").out
    assert "--model.hidden" in cli("train", "--config", "tiny", "--help").out
    assert "--model.FIELD VALUE" in cli("train", "--help").out


def test_the_kinds_of_fields(folder):
    Path("kinds.py").write_text(Path(cli("copy", "vae", "vae.py").result["path"]).read_text().replace(
        "    hidden: tuple",
        "    both: int | tuple[int, ...] = 1\n    share: float | None = None\n"
        "    flag: bool = False\n    any: 'Missing' = None\n    hidden: tuple",
    ))  # fmt: skip
    words = (
        "train",
        "kinds.py",
        "--model.both",
        "2,3",
        "--model.share",
        "1e-3",
        "--model.flag",
        "true",
        "--model.hidden=7",
        "--print_config",
    )
    model = yaml.safe_load(cli(*words).out)["model"]
    assert (model["both"], model["share"], model["flag"], model["hidden"], model["x_shape"]) == (
        [2, 3],
        1e-3,
        True,
        [7],
        None,
    )
    assert (
        yaml.safe_load(cli("train", "kinds.py", "--model.both", 4, "--print_config").out)["model"]["both"]
        == 4
    )
    assert "--model.flag: maybe is not of the kind bool" in refused(
        2, "train", "kinds.py", "--model.flag", "maybe"
    )


def test_numbers_that_are_not_finite_become_null(folder):
    (folder / "inference").mkdir()
    (folder / "inference" / "odd.py").write_text(
        "import numpy as np\nfrom ppl_vae.cli import arguments, script\n"
        "odd = {'a': np.float32('nan'), 'b': np.array([1.0, -np.inf]), 'c': (np.int64(3), None)}\n"
        "script(lambda: arguments.new('Odd.'), lambda options: odd)\n"
    )
    assert json.loads(cli("odd").out) == {"a": None, "b": [1.0, None], "c": [3, None]}


@pytest.mark.parametrize(
    "path", sorted((packaged() / "inference" / "recipes").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_recipe_of_the_gallery_is_possible(path):
    parser = runpy.run_path(str(script("train")))["parser"]
    options = parsing.parse(parser, ["--config", path.stem])
    training.settings(options, load(options.program, **options.model))
    assert set(options.given) >= {"program", "data"}


def test_ctrl_c_ends_what_holds_the_main_thread_within_two_seconds():
    # As a compiler does, the hash lets other threads run and calls no handler of signals.
    work = "print('begun', flush=True), hashlib.pbkdf2_hmac('sha256', b'a', b'b', 10**9)"
    # What started the tests may have it ignored.
    heard = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = (
        f"{heard}; import hashlib, sys; from ppl_vae.cli.running import guarded\n"
        f"sys.exit(guarded('train', lambda: ({work})))"
    )
    with owned([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "begun\n"
        time.sleep(1)  # until the hash holds the main thread; before it, the thread itself would tell
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert re.fullmatch("ppl-vae( train)?: interrupted\n", process.stderr.read())
