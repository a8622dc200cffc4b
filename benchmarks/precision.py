"""Train a recipe in single and in mixed precision, and compare the bounds of the test rows in pairs.

    python benchmarks/precision.py vae-mnist --out runs/precision --importance-samples 500

An interrupted run goes on where it stopped. Two trainings differ by their noise too, not by precision alone.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from reproduce import machine, ran

RESULTS = Path(__file__).resolve().parent / "results"
PRECISIONS = ("32", "bf16-mixed")


def trained(recipe: str, precision: str, out: Path, samples: int) -> tuple[dict[str, Any], Any]:
    """Return what a run reached and its bounds of every test row."""
    goes_on = (out / "manifest.json").exists()
    words = ["--resume"] if goes_on else ["--config", recipe, "--precision", precision]
    told = ran(["ppl-vae", "train", *words, "--out", str(out)])
    per_row = out / "bounds.npz"
    evaluate = ["ppl-vae", "evaluate", str(out), "--importance-samples", str(samples)]
    test = ran([*evaluate, "--per-row", str(per_row), "--overwrite"])
    names = ("elbo_nats", "elbo_stderr", "iw_nats", "iw_stderr", "k", "n")
    found = {"seconds": told["seconds"]} | {name: test[name] for name in names}
    return found, dict(np.load(per_row))


def paired(single: np.ndarray, mixed: np.ndarray) -> dict[str, float]:
    """Return the mean of mixed minus single, and its standard error over rows, in nats."""
    gap = mixed - single
    return {"mean": float(gap.mean()), "stderr": float(gap.std(ddof=1) / np.sqrt(len(gap)))}


def main() -> None:
    """Compare one recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a name in inference/recipes")
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--importance-samples", type=int, default=500)
    options = parser.parse_args()
    made = {
        name: trained(options.recipe, name, options.out / name, options.importance_samples)
        for name in PRECISIONS
    }
    rows = {name: per_row for name, (_, per_row) in made.items()}
    single, mixed = (rows[name] for name in PRECISIONS)
    result = {
        "recipe": options.recipe,
        "runs": {name: found for name, (found, _) in made.items()},
        "mixed_minus_single": {name: paired(single[name], mixed[name]) for name in ("elbo", "iw")},
        "machine": machine(),
    }
    (RESULTS / "precision.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["mixed_minus_single"]))


if __name__ == "__main__":
    main()
