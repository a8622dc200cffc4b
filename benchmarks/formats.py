"""Time training steps of every recipe in each precision and memory format, compiled and not.

    python benchmarks/formats.py --out benchmarks/results/formats.json

Tells which one is quickest. Convolutions alone have a memory format: channels last is that of their weights;
the compiler lays out what is between them by itself.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import timing
import torch
import yaml
from declared import Steps, batches, bits, trained

from ppl_vae import bind, load
from ppl_vae.options import PRECISIONS

RECIPES = Path(__file__).resolve().parent.parent / "inference" / "recipes"
SHAPES = {"mnist": (1, 28, 28), "frey-faces": (1, 28, 20), "cifar10": (3, 32, 32)}


@dataclass(frozen=True)
class Workload:
    """Steps of a recipe on random numbers of the size of its data."""

    name: str
    program: str
    batch: int
    shape: tuple[int, ...]
    model: dict[str, Any] = field(default_factory=dict)
    rows: int = 512
    steps: int = 10


SMALL = Workload("small", "vqvae", 4, (3, 8, 8), {"codes": 8, "code_dim": 4, "hidden": 8}, 16, 2)


def workloads() -> list[Workload]:
    """Return one for every recipe."""
    found = []
    for path in sorted(RECIPES.glob("*.yaml")):
        recipe = yaml.safe_load(path.read_text())
        shape = SHAPES[recipe["data"]]
        found.append(Workload(path.stem, recipe["program"], recipe["batch_size"], shape, recipe["model"]))
    return found


def has_convolutions(program: Any) -> bool:
    """Tell whether a program has weights of four axes."""
    return any(parameter.ndim == 4 for parameter in bind(program).parameters())


def contenders(work: Workload) -> dict[str, Steps]:
    """Return the steps in each precision and format."""
    program = load(work.program, x_shape=work.shape, **work.model)
    binary = getattr(program, "likelihood", None) == "bernoulli"
    x = np.random.default_rng(1).random((work.rows, *work.shape), dtype=np.float32)
    x = bits(work.rows, work.shape) if binary else x
    items = batches(work.rows, work.batch, work.steps)
    formats = {"": torch.preserve_format}
    if has_convolutions(program):
        formats |= {", channels last": torch.channels_last}
    return {
        f"{precision}{', compiled' if compile else ''}{name}": trained(
            program, x, items, compile=compile, precision=precision, memory_format=memory_format
        )
        for precision in PRECISIONS
        for compile in (False, True)
        for name, memory_format in formats.items()
    }


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender, and which is quickest."""
    found = timing.turns(contenders(work), rounds)
    found = {name: [value / work.steps * 1e3 for value in values] for name, values in found.items()}
    result = timing.row(work.name, found, (), "ms per step", **asdict(work))
    quickest = min(found, key=lambda name: result["contenders"][name]["median"])
    print(f"  quickest: {quickest}")
    return result | {"quickest": quickest}


def main(argv: Sequence[str] | None = None) -> None:
    """Run every workload."""
    options = timing.arguments(__doc__, argv=argv)
    works = [SMALL] if options.small else workloads()
    timing.write([measured(work, options.rounds) for work in works], options)


if __name__ == "__main__":
    main()
