"""Time chunks of training steps on NumPyro beside the same in JAX alone and with NumPyro's own SVI.

    python benchmarks/jax_steps.py --out benchmarks/results/jax_steps.json

Every contender keeps the data on the device, runs a chunk of steps as one compiled loop and hands back the
chunk's mean loss.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax
import numpy as np
import timing
from declared import LR, batches, bits
from peers import jax_vae, numpyro_svi
from timing import Aim

from ppl_vae import ELBO, bind, load
from ppl_vae.backends.numpyro import Engine
from ppl_vae.options import Training

OURS = "declared"
AIMS = (Aim(OURS, "JAX by hand", 1.05), Aim(OURS, "NumPyro's svi.update", 1.05))


@dataclass(frozen=True)
class Workload:
    """A VAE on bits."""

    name: str
    batch: int
    hidden: tuple[int, ...] = (400,)
    z_dim: int = 20
    shape: tuple[int, ...] = (1, 28, 28)
    rows: int = 4096
    steps: int = 50  # as many as the library runs in one call
    device: str = "cpu"


WORKLOADS = (Workload("NumPyro, 784-400-20, batch 128", 128), Workload("NumPyro, 784-400-20, batch 512", 512))
SMALL = (Workload("small", 16, (8,), 2, (1, 4, 4), 64, 4),)


def trained(
    program: Any, x: np.ndarray, items: Sequence[np.ndarray], device: str = "cpu"
) -> Callable[[], None]:
    """Return the library's chunks of steps on batches of rows `items`."""
    bound = bind(program, backend="numpyro", num_data=len(x))
    options = Training(batch_size=len(items[0]), lr=LR, device=device)
    engine = Engine(bound, ELBO(), options, train={"x": x}, num_data=len(x))
    scalars = {"lr": np.full(len(items), LR), "beta": np.ones(len(items))}

    def steps() -> None:
        engine.advance(items, scalars, lambda: False)  # returns when its metrics are on the host

    return steps


def contenders(work: Workload) -> dict[str, Callable[[], Any]]:
    """Return a chunk of every contender."""
    x, items = bits(work.rows, work.shape), batches(work.rows, work.batch, work.steps)
    program = load("vae", x_shape=work.shape, hidden=work.hidden, z_dim=work.z_dim)
    params = jax_vae.init(jax.random.key(0), math.prod(work.shape), work.hidden, work.z_dim)
    params = jax.device_put(params, jax.devices(work.device)[0])  # what else they take follows them
    return {
        OURS: trained(program, x, items, work.device),
        "JAX by hand": jax_vae.steps_of(params, x, items),
        "NumPyro's svi.update": numpyro_svi.steps_of(params, x, items),
    }


def measured(work: Workload, rounds: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender, and the ratios to reach."""
    found = timing.turns(contenders(work), rounds)
    found = {name: [value / work.steps * 1e3 for value in values] for name, values in found.items()}
    return timing.row(work.name, found, AIMS, "ms per step", **asdict(work))


def main(argv: Sequence[str] | None = None) -> None:
    """Run every workload."""
    options = timing.arguments(__doc__, argv=argv)
    works = SMALL if options.small else WORKLOADS
    timing.write([measured(work, options.rounds) for work in works], options)


if __name__ == "__main__":
    main()
