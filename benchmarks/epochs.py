"""Time epochs of the VAE of fully connected networks beside those of pythae's trainer.

    python benchmarks/epochs.py --out benchmarks/results/epochs.json

Needs pythae (`make bench` installs it). Its trainer is timed without its bar and its checkpoints, with the
batches fetched as is fastest of the ways that it has.
"""

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timing
from declared import bits, trained
from peers import pythae_vae
from timing import Aim

from ppl_vae import load
from ppl_vae.training import Rows

OURS, PEER, PEER_WORKERS = "declared, compiled", "pythae", "pythae, 1 worker process"


@dataclass(frozen=True)
class Workload:
    """A VAE on bits."""

    name: str
    batch: int
    hidden: tuple[int, ...] = (400,)
    z_dim: int = 20
    shape: tuple[int, ...] = (1, 28, 28)
    rows: int = 4096


WORKLOADS = (
    Workload("784-400-20, batch 128, epoch of 4,096 rows", 128),
    Workload("784-400-20, batch 512, epoch of 4,096 rows", 512),
)
SMALL = (Workload("small", 16, (8,), 2, (1, 4, 4), 64),)


def contenders(work: Workload, folder: Path) -> dict[str, Callable[[], None]]:
    """Return an epoch of every contender."""
    x = bits(work.rows, work.shape)
    program = load("vae", x_shape=work.shape, hidden=work.hidden, z_dim=work.z_dim)
    items, sizes = (
        list(Rows(work.rows, work.batch, 0).epoch(0)),
        (math.prod(work.shape), work.hidden, work.z_dim),
    )

    def pythae(workers: int) -> Callable[[], None]:
        return pythae_vae.epochs_of(pythae_vae.model(*sizes), x, work.batch, folder, workers)

    return {
        OURS: trained(program, x, items, compile=True),
        "declared": trained(program, x, items, compile=False),
        PEER: pythae(0),
        PEER_WORKERS: pythae(1),
    }


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per epoch of every contender, and the ratios to reach."""
    with tempfile.TemporaryDirectory() as folder:
        found = timing.turns(contenders(work, Path(folder)), rounds)
    found = {name: [value * 1e3 for value in values] for name, values in found.items()}
    aims = [Aim(OURS, PEER, 0.5), Aim(OURS, PEER_WORKERS, 0.5)]
    return timing.row(work.name, found, aims, "ms per epoch", **asdict(work))


def main(argv: Sequence[str] | None = None) -> None:
    """Run every workload."""
    options = timing.arguments(__doc__, argv=argv)
    works = SMALL if options.small else WORKLOADS
    timing.write([measured(work, options.rounds) for work in works], options)


if __name__ == "__main__":
    main()
