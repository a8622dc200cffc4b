"""Count the bytes that autograd saves for the backward pass of one training step.

    python benchmarks/memory.py --out benchmarks/results/memory.json

Storages are counted once, however many saved tensors lie in them: weights, rows and activations alike. The
number depends on the program alone, not on the machine.
"""

from collections.abc import Callable, Sequence
from typing import Any

import deep
import steps
import timing
import torch
from deep import Workload as Deep
from steps import Workload as Plain
from timing import Aim
from torch import Tensor

BY_HAND = "by hand"
COUNTED = ("declared, compiled", "declared", BY_HAND, "by hand, compiled")
AIMS = (Aim("declared, compiled", BY_HAND, 1.0), Aim("declared", BY_HAND, 1.0))
WORKLOADS = (
    (steps, Plain("784-400-20, batch 512", (400,), 20, 512, steps=1)),
    (deep, Deep(steps=1)),
)
SMALL = (
    (steps, Plain("small", (8,), 2, 16, "32", (1, 4, 4), 64, 1)),
    (deep, Deep("small top-down", 2, 2, 4, 2, 4, (1, 8, 8), 16, 1)),
)


def saved_bytes(step: Callable[[], Any]) -> int:
    """Return the size of all storages that autograd saves while a step runs."""
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        # Kept until the step is over: an address that is free again would hide another storage.
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        step()
    return sum(storage.nbytes() for storage in storages.values())


def measured(module: Any, work: Any, rounds: int) -> dict[str, Any]:
    """Return the megabytes of every contender, and the ratios to reach."""
    made = module.contenders(work)
    counted = {name: made[name] for name in COUNTED}
    # The first calls compile, with other code than the later ones.
    found = timing.turns(counted, rounds, measure=lambda call: saved_bytes(call) / 1e6)
    return timing.row(f"bytes saved, {work.name}", found, AIMS, "MB per step", batch=work.batch)


def main(argv: Sequence[str] | None = None) -> None:
    """Count every workload."""
    options = timing.arguments(__doc__, rounds=2, argv=argv)
    works = SMALL if options.small else WORKLOADS
    timing.write([measured(module, work, options.rounds) for module, work in works], options)


if __name__ == "__main__":
    main()
