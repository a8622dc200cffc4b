"""Time training steps of the VAE of fully connected networks beside those of its peers.

    python benchmarks/steps.py --out benchmarks/results/steps.json

Every contender sees the same rows, takes the same optimizer and runs on the same threads. They take turns,
for several rounds; a number is the median over the rounds. Run it on an idle machine.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import timing
import torch
from declared import Steps, batches, bits, stock, trained
from peers.loop import steps_of
from peers.mlp import HandWrittenVAE
from timing import Aim

from ppl_vae import load

OURS, GRAPHS = "declared, compiled", "by hand, CUDA graphs"


@dataclass(frozen=True)
class Workload:
    """A VAE on bits; `most` is the ratio to reach against each peer."""

    name: str
    hidden: tuple[int, ...]
    z_dim: int
    batch: int
    precision: str = "32"
    shape: tuple[int, ...] = (1, 28, 28)
    rows: int = 4096
    steps: int = 20
    device: str = "cpu"
    most: tuple[tuple[str, float], ...] = (("by hand", 0.95), ("by hand, compiled", 1.03), ("SVI.step", 0.6))


def mixed(single: float) -> tuple[tuple[str, float], ...]:
    """Return the ratios to reach in mixed precision; `single` is that against single precision."""
    return (("by hand, fp32", single), ("by hand", 0.95), ("by hand, compiled", 1.03))


WORKLOADS = (
    Workload("784-400-20, batch 128", (400,), 20, 128),
    Workload("784-400-20, batch 512", (400,), 20, 512),
    Workload("784-400-20, batch 512, bf16", (400,), 20, 512, "bf16-mixed", most=mixed(0.6)),
    Workload("784-1024-1024-64, batch 1024, bf16", (1024, 1024), 64, 1024, "bf16-mixed", most=mixed(0.4)),
)
SMALL = (
    Workload("small", (8,), 2, 16, "32", (1, 4, 4), 64, 2),
    Workload("small, bf16", (8,), 2, 16, "bf16-mixed", (1, 4, 4), 64, 2, most=mixed(0.6)),
)


def by_hand(work: Workload, x: np.ndarray, compile: str | None, precision: str) -> Steps:
    """Return steps of the hand-written model."""
    autocast = torch.bfloat16 if precision == "bf16-mixed" else None
    model = HandWrittenVAE(math.prod(work.shape), work.hidden, work.z_dim, autocast)
    return steps_of(model, x, batches(work.rows, work.batch, work.steps), compile, device=work.device)


def contenders(work: Workload) -> dict[str, Steps]:
    """Return the steps of every contender."""
    x, items = bits(work.rows, work.shape), batches(work.rows, work.batch, work.steps)
    program = load("vae", x_shape=work.shape, hidden=work.hidden, z_dim=work.z_dim)
    chosen = {"precision": work.precision, "device": work.device}
    found = {
        OURS: trained(program, x, items, compile=True, **chosen),
        "declared": trained(program, x, items, compile=False, **chosen),
        "by hand": by_hand(work, x, None, work.precision),
        "by hand, compiled": by_hand(work, x, "default", work.precision),
        "SVI.step": stock(program, x, items, work.device),
    }
    if work.precision != "32":
        found["by hand, fp32"] = by_hand(work, x, None, "32")
    if work.device == "cuda":
        found[GRAPHS] = by_hand(work, x, "reduce-overhead", work.precision)
    return found


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender, and the ratios to reach."""
    found = timing.turns(contenders(work), rounds)
    found = {name: [value / work.steps * 1e3 for value in values] for name, values in found.items()}
    settings = asdict(work)
    del settings["most"]
    return timing.row(work.name, found, [Aim(OURS, *one) for one in work.most], "ms per step", **settings)


def main(argv: Sequence[str] | None = None) -> None:
    """Run every workload."""
    options = timing.arguments(__doc__, argv=argv)
    works = SMALL if options.small else WORKLOADS
    timing.write([measured(work, options.rounds) for work in works], options)


if __name__ == "__main__":
    main()
