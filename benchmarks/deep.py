"""Time training steps of a top-down VAE of many latents beside those of its peers.

    python benchmarks/deep.py --out benchmarks/results/deep.json

Guide and model of the declared program each run the way down; by hand it is run once. The compiler is to
find that out.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import timing
from declared import Steps, batches, bits, stock, trained
from peers.loop import steps_of
from peers.topdown import HandWrittenTopDown
from timing import Aim

from ppl_vae import load

OURS, GRAPHS = "declared, compiled", "by hand, CUDA graphs"
AIMS = (
    Aim(OURS, "by hand", 0.95),
    Aim(OURS, "by hand, compiled", 1.03),
    Aim(OURS, "declared", 0.6),
    Aim(OURS, "SVI.step", 0.6),
)


@dataclass(frozen=True)
class Workload:
    """A top-down VAE on bits."""

    name: str = "top-down, 10 latents, 28x28, batch 32"
    latents: int = 10
    z_channels: int = 8
    width: int = 32
    inner: int = 16
    batch: int = 32
    shape: tuple[int, ...] = (1, 28, 28)
    rows: int = 512
    steps: int = 5
    device: str = "cpu"

    @property
    def sizes(self) -> dict[str, int]:
        """What program and hand-written model both take."""
        return {name: getattr(self, name) for name in ("latents", "z_channels", "width", "inner")}


SMALL = Workload("small", 2, 2, 4, 2, 4, (1, 8, 8), 16, 2)


def contenders(work: Workload) -> dict[str, Steps]:
    """Return the steps of every contender."""
    x, items = bits(work.rows, work.shape), batches(work.rows, work.batch, work.steps)
    program = load("topdown", x_shape=work.shape, **work.sizes)

    def by_hand(compile: str | None = None) -> Steps:
        return steps_of(HandWrittenTopDown(work.shape, **work.sizes), x, items, compile, device=work.device)

    found = {
        OURS: trained(program, x, items, compile=True, device=work.device),
        "declared": trained(program, x, items, compile=False, device=work.device),
        "by hand": by_hand(),
        "by hand, compiled": by_hand("default"),
        "SVI.step": stock(program, x, items, work.device),
    }
    return found | ({GRAPHS: by_hand("reduce-overhead")} if work.device == "cuda" else {})


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender, and the ratios to reach."""
    found = timing.turns(contenders(work), rounds)
    found = {name: [value / work.steps * 1e3 for value in values] for name, values in found.items()}
    aims = (*AIMS, Aim(OURS, GRAPHS, 1.03)) if GRAPHS in found else AIMS
    return timing.row(work.name, found, aims, "ms per step", **asdict(work))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the workload."""
    options = timing.arguments(__doc__, argv=argv)
    timing.write([measured(SMALL if options.small else Workload(), options.rounds)], options)


if __name__ == "__main__":
    main()
