"""Time the importance weighted bound beside an estimator that is written by hand for this one model.

    python benchmarks/evaluation.py --out benchmarks/results/evaluation.json

Both run the encoder once per row and add up the weights of chunks of samples. The library's seconds are those
of the whole `ppl_vae.evaluate`, which also gives the unweighted bound and its errors.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import timing
import torch
from declared import bits
from peers import importance
from peers.mlp import HandWrittenVAE
from timing import Aim

from ppl_vae import Run, evaluate, fit, load

OURS, BY_HAND = "evaluate", "by hand"
AIMS = (Aim(OURS, BY_HAND, 1.05),)


@dataclass(frozen=True)
class Workload:
    """A VAE on bits, scored with k samples per row."""

    name: str = "IW-5000 on 1,000 images, 784-400-20"
    samples: int = 5000
    images: int = 1000
    hidden: tuple[int, ...] = (400,)
    z_dim: int = 20
    shape: tuple[int, ...] = (1, 28, 28)


SMALL = Workload("small", 7, 5, (8,), 2, (1, 4, 4))


def trained(work: Workload, x: np.ndarray) -> Run:
    """Return a run whose test rows are x; one step of training is enough."""
    program = load("vae", x_shape=work.shape, hidden=work.hidden, z_dim=work.z_dim)
    data = {"x_train": bits(64, work.shape, seed=2), "x_test": x}
    return fit(program, data, max_steps=1, batch_size=32, device="cpu", progress=False)


def by_hand(work: Workload, run: Run) -> HandWrittenVAE:
    """Return the hand-written model with a run's weights."""
    model = HandWrittenVAE(math.prod(work.shape), work.hidden, work.z_dim)
    with torch.no_grad():
        for ours, theirs in zip(run.bound.parameters(), model.parameters(), strict=True):
            theirs.copy_(ours)
    return model


def contenders(work: Workload) -> dict[str, Callable[[], float]]:
    """Return what gives the mean bound in nats, by contender."""
    x = bits(work.images, work.shape)
    run = trained(work, x)
    model, rows = by_hand(work, run), torch.from_numpy(x)
    compiled = torch.compile(importance.ImportanceWeights(model), dynamic=False)

    def estimated(weights: torch.nn.Module | None) -> float:
        return float(importance.bound(model, rows, work.samples, weights=weights).mean())

    return {
        OURS: lambda: evaluate(run, split="test", importance_samples=work.samples)["iw_nats"],
        BY_HAND: lambda: estimated(None),
        "by hand, compiled": lambda: estimated(compiled),
    }


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return seconds of every contender, and the ratio to reach."""
    found = timing.turns(contenders(work), rounds, warm_up=1)
    return timing.row(work.name, found, AIMS, "s", **asdict(work))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the workload."""
    options = timing.arguments(__doc__, rounds=5, argv=argv)
    timing.write([measured(SMALL if options.small else Workload(), options.rounds)], options)


if __name__ == "__main__":
    main()
