"""Time how a training step's cost grows: with the latents of a top-down VAE, and with batch and width of a
plain one.

    python benchmarks/growth.py --out benchmarks/results/growth.json

`benchmarks/plot.py` draws it.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import deep
import steps
import timing

LATENTS, BATCHES, WIDTHS = (2, 5, 10, 20), (32, 128, 512, 2048), (100, 400, 1600)
SHOWN = ("declared, compiled", "declared", "by hand", "by hand, compiled", "SVI.step")
PLAIN = steps.Workload("784-400-20, batch 128", (400,), 20, 128, steps=10)


def sweeps(small: bool) -> dict[str, tuple[Any, list[tuple[int, Any]]]]:
    """Return the module and the workloads of each sweep, by what grows."""
    if small:
        small = steps.SMALL[0]
        return {
            "latents": (deep, [(n, replace(deep.SMALL, latents=n)) for n in (1, 2)]),
            "batch": (steps, [(n, replace(small, batch=n)) for n in (4, 8)]),
        }
    return {
        "latents": (deep, [(n, replace(deep.Workload(), latents=n)) for n in LATENTS]),
        "batch": (steps, [(n, replace(PLAIN, batch=n)) for n in BATCHES]),
        "width": (steps, [(n, replace(PLAIN, hidden=(n,))) for n in WIDTHS]),
    }


def measured(grows: str, value: int, module: Any, work: Any, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender at one point of a sweep."""
    made = module.contenders(work)
    found = timing.turns({name: made[name] for name in SHOWN}, rounds)
    found = {name: [one / work.steps * 1e3 for one in values] for name, values in found.items()}
    result = timing.row(f"{grows} {value}", found, (), "ms per step", batch=work.batch)
    return result | {"grows": grows, "value": value}


def main(argv: Sequence[str] | None = None) -> None:
    """Run every sweep."""
    options = timing.arguments(__doc__, argv=argv)
    results = [
        measured(grows, value, module, work, options.rounds)
        for grows, (module, points) in sweeps(options.small).items()
        for value, work in points
    ]
    timing.write(results, options)


if __name__ == "__main__":
    main()
