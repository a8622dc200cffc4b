"""The numbers of README and docs are the committed ones, and the recipes are those that made them."""

import importlib.util
import json
from pathlib import Path

import pytest
import yaml

import ppl_vae

ROOT = Path(ppl_vae.__file__).parent.parent
RECIPES = ROOT / "inference" / "recipes"
RESULTS = sorted(RECIPES.glob("*.json"))


MEASURED = ROOT / "benchmarks" / "results"
SPEED = ROOT / "docs" / "speed.md"


def made(name):
    """Return a file of the benchmarks as a module."""
    spec = importlib.util.spec_from_file_location(f"results_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["README.md", "docs/results.md", "docs/speed.md"])
def test_the_tables_of_a_page_are_made_from_the_committed_results(page, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    text = (ROOT / page).read_text()
    assert made("tables").filled(text) == text
    assert text.count("<!-- made: ") == text.count("<!-- end -->") > 0


def test_the_gap_between_precisions_is_reported_as_it_was_measured():
    found = json.loads((MEASURED / "precision.json").read_text())
    gaps = {
        name: f"{gap['mean']:+.2f} ± {gap['stderr']:.2f}" for name, gap in found["mixed_minus_single"].items()
    }
    assert len(found["seeds"]) > 2
    assert f"{gaps['iw']} nats (IW-500) and {gaps['elbo']} nats (ELBO)" in SPEED.read_text()


def test_seconds_to_a_first_step_are_reported_as_they_were_measured():
    (found,) = json.loads((MEASURED / "first_steps.json").read_text())["results"]
    told = {name: f"{one['median']:.0f} s" for name, one in found["contenders"].items()}
    for when in ("anew", "again"):
        assert f"{told[f'declared, {when}']} (by hand {told[f'by hand, {when}']})" in SPEED.read_text()


def test_what_a_gpu_reached_is_reported_as_it_was_measured():
    found, text = json.loads((RECIPES / "vae-mnist-cuda.json").read_text()), SPEED.read_text()
    test = found["test"]
    told = f"**{-test['iw_nats']:.2f}** ± {test['iw_stderr']:.2f} nats (IW-{test['k']}), evaluated on the GPU"
    assert told in text and f"{test['steps']:,}" in text
    card = json.loads((MEASURED / "gpu.json").read_text())["machine"]["gpu"]
    assert card == found["machine"]["gpu"] and card in text


def test_recipes_train_in_a_precision_that_none_beats():
    found = json.loads((MEASURED / "formats.json").read_text())["results"]
    recipes = {path.stem: yaml.safe_load(path.read_text()) for path in RECIPES.glob("*.yaml")}
    assert {result["workload"] for result in found} == set(recipes)
    for result in found:
        took = {name: numbers["median"] for name, numbers in result["contenders"].items()}
        chosen = recipes[result["workload"]]["precision"]
        # Within a few percent two of them are one.
        assert min(ms for name, ms in took.items() if name.startswith(chosen)) <= 1.05 * min(took.values())


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_belongs_to_a_recipe_and_states_its_protocol(path):
    result = json.loads(path.read_text())
    assert (path.parent / f"{result['recipe']}.yaml").is_file()
    assert result["commands"][0].startswith(f"ppl-vae train --config {result['recipe']}")
    assert {"elbo_nats", "elbo_stderr", "n", "split", "binarize", "backend", "seconds"} <= set(result["test"])
    assert result["test"]["split"] == "test"
    recipe = yaml.safe_load((path.parent / f"{result['recipe']}.yaml").read_text())
    for name, value in result.get("settings", {}).items():
        if name in recipe and name != "model":
            assert value == recipe[name]
