"""Tell where the time of a training step goes: matrix products, the optimizer, and all that is left.

    python benchmarks/profiles.py --out benchmarks/results/profiles.json

The products and the optimizer are the same work for every contender, by the same library calls; only the rest
can be saved. Needs pythae (`make bench` installs it).
"""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import epochs
import timing
from declared import bits, stock
from epochs import Workload
from torch.profiler import ProfilerActivity, profile

from ppl_vae import load
from ppl_vae.training import Rows

WORKLOADS = (
    Workload("784-400-20, batch 128", 128),
    Workload("784-400-20, batch 512", 512),
)
PARTS = {
    "matrix products": ("aten::mm", "aten::addmm"),
    "optimizer": ("aten::_fused_adam_",),
}


def contenders(work: Workload, folder: Path) -> dict[str, Callable[[], None]]:
    """Return an epoch of every contender."""
    x, items = bits(work.rows, work.shape), list(Rows(work.rows, work.batch, 0).epoch(0))
    program = load("vae", x_shape=work.shape, hidden=work.hidden, z_dim=work.z_dim)
    found = epochs.contenders(work, folder)
    return {name: found[name] for name in (epochs.OURS, epochs.PEER)} | {"SVI.step": stock(program, x, items)}


def parts(call: Callable[[], None]) -> dict[str, float]:
    """Return the seconds of each part, as the profiler tells them."""
    with profile(activities=[ProfilerActivity.CPU]) as found:
        call()
    took = {event.key: event.self_cpu_time_total / 1e6 for event in found.key_averages()}
    return {part: sum(took.get(key, 0.0) for key in keys) for part, keys in PARTS.items()}


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender and of each of its parts."""
    steps = len(Rows(work.rows, work.batch, 0))
    with tempfile.TemporaryDirectory() as folder:
        made = contenders(work, Path(folder))
        found = timing.turns(made, rounds)
        profiled = {name: parts(call) for name, call in made.items()}
    found = {name: [value / steps * 1e3 for value in values] for name, values in found.items()}
    result = timing.row(work.name, found, (), "ms per step", **asdict(work))
    for name, took in profiled.items():
        told = {part: round(value / steps * 1e3, 3) for part, value in took.items()}
        told["rest"] = round(result["contenders"][name]["median"] - sum(told.values()), 3)
        result["contenders"][name]["parts"] = told
        print(f"  {name}: {told}")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run every workload."""
    options = timing.arguments(__doc__, argv=argv)
    works = epochs.SMALL if options.small else WORKLOADS
    timing.write([measured(work, options.rounds) for work in works], options)


if __name__ == "__main__":
    main()
