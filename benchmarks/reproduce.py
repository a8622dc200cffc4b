"""Train a recipe, evaluate it on the test split and write the numbers beside the recipe.

    python benchmarks/reproduce.py vae-mnist --out runs/vae-mnist --importance-samples 5000

Runs the two commands that the README shows. An interrupted run goes on where it stopped.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

RECIPES = Path(__file__).resolve().parent.parent / "inference" / "recipes"
LEFT_OUT = ("out", "report", "path", "file")


def ran(words: list[str]) -> dict:
    """Run a command of `ppl-vae` and return its result."""
    print("$", shlex.join(words), file=sys.stderr)
    program = [sys.executable, "-c", "import sys; from ppl_vae.cli import main; sys.exit(main())"]
    done = subprocess.run(program + words[1:], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout.splitlines()[-1])


def portable(result: dict) -> dict:
    """Return a result without the paths of one machine."""
    return {name: value for name, value in result.items() if name not in LEFT_OUT}


def machine(cuda: bool = False) -> dict:
    """Return what the seconds were measured on; with the first GPU, where it is in use."""
    names = [
        line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")
    ]
    found = {
        "cores": os.cpu_count(),
        "cpu": names[0] if names else platform.processor(),
        "python": platform.python_version(),
    }
    return found | gpu() if cuda else found


def gpu() -> dict:
    """Return the name of the first GPU."""
    import torch

    return {"gpu": torch.cuda.get_device_name()}


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def main() -> None:
    """Reproduce one recipe."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", help="a name in inference/recipes")
    parser.add_argument("--out", type=Path, required=True, help="the run folder")
    parser.add_argument("--importance-samples", type=int)
    parser.add_argument("--backend", choices=("pyro", "numpyro"))
    parser.add_argument("--device", choices=("cuda",))
    parser.add_argument("--compile", choices=("on", "off", "auto"))
    options = parser.parse_args()
    backend = ["--backend", options.backend] if options.backend else []
    device = ["--device", options.device] if options.device else []
    compile = ["--compile", options.compile] if options.compile else []
    train = ["ppl-vae", "train", "--config", options.recipe, *backend, *device, *compile]
    train += ["--out", str(options.out)]
    evaluate = ["ppl-vae", "evaluate", str(options.out), *device]
    if options.importance_samples:
        evaluate += ["--importance-samples", str(options.importance_samples)]
    goes_on = (options.out / "manifest.json").exists()
    trained = ran(["ppl-vae", "train", "--resume", "--out", str(options.out)] if goes_on else train)
    tested = ran(evaluate)
    shown = [
        shlex.join(words).replace(str(options.out), f"runs/{options.recipe}") for words in (train, evaluate)
    ]
    settings = yaml.safe_load((options.out / "config.yaml").read_text())
    found = {
        "recipe": options.recipe,
        "commands": shown,
        "settings": settings["training"] | {"compile": settings["compile"], "model": settings["model"]},
        "train": portable(trained),
        "test": portable(tested),
        "machine": machine(cuda=options.device == "cuda"),
    }
    name = "-".join(filter(None, (options.recipe, options.backend, options.device)))
    (RECIPES / f"{name}.json").write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found["test"]))


if __name__ == "__main__":
    main()
