"""The README's numbers are the committed ones, and the recipes are those that made them."""

import importlib.util
import json
from pathlib import Path

import pytest

import ppl_vae

ROOT = Path(ppl_vae.__file__).parent.parent
RESULTS = sorted((ROOT / "inference" / "recipes").glob("*.json"))


@pytest.mark.parametrize("name", ["table", "speed_table"])
def test_the_tables_of_the_readme_are_made_from_the_committed_results(name):
    spec = importlib.util.spec_from_file_location(f"results_{name}", ROOT / "benchmarks" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.table().count("\n") > 4
    assert module.table() in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_a_result_belongs_to_a_recipe_and_states_its_protocol(path):
    result = json.loads(path.read_text())
    assert (path.parent / f"{result['recipe']}.yaml").is_file()
    assert result["commands"][0].startswith(f"ppl-vae train --config {result['recipe']}")
    assert {"elbo_nats", "elbo_stderr", "n", "split", "binarize", "backend", "seconds"} <= set(result["test"])
    assert result["test"]["split"] == "test"
