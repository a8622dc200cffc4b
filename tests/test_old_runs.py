"""Run folders written by version 0.1.0, before networks were declared once: they open, evaluate and go on.

`old_runs/expected.json` holds what that version reported at 12 steps and, resumed, at 18.
"""

import json
import shutil
from pathlib import Path

import pytest

from ppl_vae import evaluate, open_run
from ppl_vae.api import resume
from ppl_vae.api.record import CONFIG, RunRecord
from ppl_vae.store import RunFolder

HERE = Path(__file__).parent / "old_runs"
EXPECTED = json.loads((HERE / "expected.json").read_text())


@pytest.fixture
def folder(tmp_path, request):
    return shutil.copytree(HERE / request.param, tmp_path / request.param)


def assert_reports(run, steps):
    expected = EXPECTED[run.folder.path.name][f"at {steps} steps"]
    assert run.steps == steps
    found = evaluate(run, importance_samples=5)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-5), name


@pytest.mark.parametrize("folder", EXPECTED, indirect=True)
def test_an_old_run_evaluates_to_the_same_numbers(folder):
    assert_reports(open_run(folder), 12)


@pytest.mark.parametrize("folder", EXPECTED, indirect=True)
def test_an_old_record_is_written_as_it_was_read(folder):
    run = RunFolder.open(folder)
    assert RunRecord.open(run).content() == run.read(CONFIG)


@pytest.mark.parametrize(
    "folder",
    [pytest.param(name, marks=pytest.mark.slow if name == "hvae-numpyro" else ()) for name in EXPECTED],
    indirect=True,
)
def test_an_old_run_goes_on_to_the_same_numbers(folder):
    resume(folder, max_steps=18)
    assert_reports(open_run(folder), 18)
