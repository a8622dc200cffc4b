"""Time training steps on a CUDA device: those of `steps.py`, `deep.py` and `jax_steps.py`, in larger batches.

    python benchmarks/gpu.py --out benchmarks/results/gpu.json

A number counts from an idle device to an idle device, over as many steps as the workload says: no contender
waits for the device in between unless it does so by itself. Products of matrices are in single precision for
everyone, convolutions as torch sets them out (TF32). Minutes, nearly all of them compilation.
"""

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import deep
import jax
import jax_steps
import steps
import timing
import torch

MOST = (*steps.Workload.most, (steps.GRAPHS, 1.03))
PLAIN = steps.Workload(
    "784-400-20, batch 512, GPU", (400,), 20, 512, rows=8192, steps=40, device="cuda", most=MOST
)
LADDER = deep.Workload("top-down, 10 latents, 28x28, batch 128, GPU", batch=128, steps=4, device="cuda")
CHUNKS = jax_steps.Workload("NumPyro, 784-400-20, batch 512, GPU", 512, rows=8192, device="cuda")
WORKLOADS = (
    (steps, PLAIN),
    (steps, replace(PLAIN, name="784-400-20, batch 4096, GPU", batch=4096)),
    (jax_steps, CHUNKS),
    (jax_steps, replace(CHUNKS, name="NumPyro, 784-400-20, batch 4096, GPU", batch=4096)),
    (deep, LADDER),
)
SMALL = tuple(
    (where, replace(work, device="cuda"))
    for where, work in ((steps, steps.SMALL[0]), (jax_steps, jax_steps.SMALL[0]), (deep, deep.SMALL))
)


def measured(where: Any, work: Any, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender of a benchmark, and the ratios to reach."""
    # JAX may take TF32 for products of matrices in single precision.
    with jax.default_matmul_precision("highest"):
        return where.measured(work, rounds)


def main(argv: Sequence[str] | None = None) -> None:
    """Run every workload; the numbers are written after each."""
    options = timing.arguments(__doc__, rounds=9, argv=argv)
    if not torch.cuda.is_available():
        sys.exit("benchmarks/gpu.py needs a CUDA device: torch sees none")
    results: list[dict[str, Any]] = []
    for where, work in SMALL if options.small else WORKLOADS:
        results.append(measured(where, work, options.rounds))
        timing.write(results, options)


if __name__ == "__main__":
    main()
