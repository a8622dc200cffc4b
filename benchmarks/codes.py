"""Time training steps of the VQ-VAE beside the same model with the codebook of vector-quantize-pytorch.

    python benchmarks/codes.py --out benchmarks/results/codes.json

Encoder, decoder, size of the codebook, decay and straight-through gradient are the same. What differs: the
peer smooths its counts (Laplace) before it divides by them, and keeps the codes of its first batch.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import timing
from declared import Steps, batches, stock, trained
from peers.loop import steps_of
from peers.vq import HandWrittenVQVAE
from timing import Aim

from ppl_vae import load

OURS = "declared, compiled"
AIMS = (Aim(OURS, "vector-quantize-pytorch", 1.0), Aim(OURS, "vector-quantize-pytorch, compiled", 1.0))


@dataclass(frozen=True)
class Workload:
    """A VQ-VAE on images of random grey levels."""

    name: str = "VQ-VAE, 512 codes of 64, 32x32x3, batch 32"
    codes: int = 512
    code_dim: int = 64
    hidden: int = 128
    batch: int = 32
    shape: tuple[int, ...] = (3, 32, 32)
    rows: int = 256
    steps: int = 5

    @property
    def sizes(self) -> dict[str, int]:
        """What program and hand-written model both take."""
        return {name: getattr(self, name) for name in ("codes", "code_dim", "hidden")}


SMALL = Workload("small", 8, 4, 8, 4, (3, 8, 8), 16, 2)


def contenders(work: Workload) -> dict[str, Steps]:
    """Return the steps of every contender."""
    x = np.random.default_rng(1).random((work.rows, *work.shape), dtype=np.float32)
    items = batches(work.rows, work.batch, work.steps)
    program = load("vqvae", x_shape=work.shape, **work.sizes)

    def by_hand(compile: str | None = None) -> Steps:
        return steps_of(HandWrittenVQVAE(work.shape, **work.sizes), x, items, compile)

    return {
        OURS: trained(program, x, items, compile=True),
        "declared": trained(program, x, items, compile=False),
        "vector-quantize-pytorch": by_hand(),
        "vector-quantize-pytorch, compiled": by_hand("default"),
        "SVI.step": stock(program, x, items),
    }


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender, and the ratios to reach."""
    found = timing.turns(contenders(work), rounds)
    found = {name: [value / work.steps * 1e3 for value in values] for name, values in found.items()}
    return timing.row(work.name, found, AIMS, "ms per step", **asdict(work))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the workload."""
    options = timing.arguments(__doc__, argv=argv)
    timing.write([measured(SMALL if options.small else Workload(), options.rounds)], options)


if __name__ == "__main__":
    main()
