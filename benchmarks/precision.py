"""Train a recipe in single and in mixed precision, from several seeds, and compare what they reach.

    python benchmarks/precision.py vae-mnist --seeds 0 1 2 --out runs/precision --importance-samples 500

Two trainings differ by their noise too, not by precision alone: the gap of one seed is told with its standard
error over rows (both runs bound the same rows), the gap of all seeds with its standard error over seeds. An
interrupted run goes on where it stopped.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from reproduce import machine, ran

RESULTS = Path(__file__).resolve().parent / "results"
PRECISIONS = ("32", "bf16-mixed")
BOUNDS = ("elbo", "iw")
TOLD = ("elbo_nats", "elbo_stderr", "iw_nats", "iw_stderr", "k", "n")


def trained(recipe: str, seed: int, precision: str, out: Path, samples: int) -> tuple[dict[str, Any], Any]:
    """Return what a run reached and its bounds of every test row."""
    chosen = ["--config", recipe, "--seed", str(seed), "--precision", precision, "--compile", "on"]
    words = ["--resume"] if (out / "manifest.json").exists() else chosen
    told = ran(["ppl-vae", "train", *words, "--out", str(out)])
    per_row = out.with_suffix(".npz")
    evaluate = ["ppl-vae", "evaluate", str(out), "--importance-samples", str(samples)]
    test = ran([*evaluate, "--per-row", str(per_row), "--overwrite"])
    return {"seconds": told["seconds"]} | {name: test[name] for name in TOLD}, dict(np.load(per_row))


def gap(values: np.ndarray) -> dict[str, float]:
    """Return the mean of differences and its standard error, which one difference does not have."""
    stderr = float(values.std(ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return {"mean": float(values.mean()), "stderr": stderr}


def compared(recipe: str, seed: int, out: Path, samples: int) -> dict[str, Any]:
    """Return both runs of a seed, and mixed minus single precision over the test rows in nats."""
    made = {name: trained(recipe, seed, name, out / f"{seed}-{name}", samples) for name in PRECISIONS}
    single, mixed = (per_row for _, per_row in made.values())
    runs = {name: told for name, (told, _) in made.items()}
    return {"seed": seed, "runs": runs} | {name: gap(mixed[name] - single[name]) for name in BOUNDS}


def main() -> None:
    """Compare one recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a name in inference/recipes")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--out", type=Path, required=True, help="a folder for the runs")
    parser.add_argument("--importance-samples", type=int, default=500)
    options = parser.parse_args()
    seeds = [
        compared(options.recipe, seed, options.out, options.importance_samples) for seed in options.seeds
    ]
    gaps = {name: gap(np.array([found[name]["mean"] for found in seeds])) for name in BOUNDS}
    result = {"recipe": options.recipe, "mixed_minus_single": gaps, "seeds": seeds, "machine": machine()}
    (RESULTS / "precision.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(gaps))


if __name__ == "__main__":
    main()
