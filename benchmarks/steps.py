"""Time training steps of a declared program beside those of its peers, and print ratios.

    python benchmarks/steps.py --out benchmarks/results/steps.json

Every contender sees the same rows, takes the same optimizer and runs on the same threads. They take turns,
for several rounds; a number is the median over the rounds. Run it on an idle machine.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pyro
import torch
from peers import HandWrittenVAE
from reproduce import machine

from ppl_vae import ELBO, bind, load
from ppl_vae.backends.pyro import Engine
from ppl_vae.options import Training

ROWS, DIMS, STEPS = 4096, (1, 28, 28), 20
Steps = Callable[[], None]


@dataclass(frozen=True)
class Workload:
    """A VAE on 28 x 28 bits."""

    name: str
    hidden: tuple[int, ...]
    z_dim: int
    batch: int
    precision: str = "32"


WORKLOADS = (
    Workload("784-400-20, batch 128", (400,), 20, 128),
    Workload("784-400-20, batch 512", (400,), 20, 512),
    Workload("784-400-20, batch 512, bf16", (400,), 20, 512, "bf16-mixed"),
    Workload("784-1024-1024-64, batch 1024, bf16", (1024, 1024), 64, 1024, "bf16-mixed"),
)


def chosen_rows(work: Workload) -> list[np.ndarray]:
    """Return the row numbers of the steps of one turn."""
    rng = np.random.default_rng(0)
    return [rng.permutation(ROWS)[: work.batch] for _ in range(STEPS)]


def declared(work: Workload, x: np.ndarray, compile: bool) -> Steps:
    """Return the library's own steps, through its trainer."""
    program = load("vae", x_shape=DIMS, hidden=work.hidden, z_dim=work.z_dim)
    options = Training(batch_size=work.batch, precision=work.precision, device="cpu")
    bound = bind(program, num_data=ROWS)
    engine = Engine(bound, ELBO(), options, train={"x": x}, num_data=ROWS, compile="on" if compile else "off")
    rows, rates, weights = chosen_rows(work), np.full(STEPS, 1e-3), np.ones(STEPS)
    return lambda: engine.advance(rows, rates, weights, lambda: False)


def by_hand(work: Workload, x: np.ndarray, compile: bool, precision: str) -> Steps:
    """Return steps of the hand-written model."""
    autocast = torch.bfloat16 if precision == "bf16-mixed" else None
    model = HandWrittenVAE(int(np.prod(DIMS)), work.hidden, work.z_dim, autocast)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3, fused=True)
    call, data = torch.compile(model) if compile else model, torch.from_numpy(x)
    rows = [torch.from_numpy(one) for one in chosen_rows(work)]

    def steps() -> None:
        for one in rows:
            optimizer.zero_grad(set_to_none=True)
            call(data.index_select(0, one)).backward()
            optimizer.step()

    return steps


def stock(work: Workload, x: np.ndarray) -> Steps:
    """Return Pyro's own `SVI.step` on the declared model and guide."""
    bound = bind(load("vae", x_shape=DIMS, hidden=work.hidden, z_dim=work.z_dim), num_data=ROWS).train()
    svi = pyro.infer.SVI(bound.model, bound.guide, pyro.optim.Adam({"lr": 1e-3}), pyro.infer.Trace_ELBO())
    data, rows = torch.from_numpy(x), [torch.from_numpy(one) for one in chosen_rows(work)]

    def steps() -> None:
        with pyro.validation_enabled(False):
            for one in rows:
                svi.step(data.index_select(0, one))

    return steps


def measured(work: Workload, rounds: int) -> dict[str, dict[str, float]]:
    """Return milliseconds a step of every contender, and the ratio of the compiled program to it."""
    x = (np.random.default_rng(1).random((ROWS, *DIMS)) < 0.2).astype(np.float32)
    contenders = {
        "declared, compiled": declared(work, x, compile="on"),
        "declared": declared(work, x, compile=False),
        "by hand": by_hand(work, x, False, "32"),
        "by hand, compiled": by_hand(work, x, True, work.precision),
        "SVI.step": stock(work, x),
    }
    if work.precision != "32":
        contenders["by hand, bf16"] = by_hand(work, x, False, work.precision)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds + 2):
        for name, steps in contenders.items():
            started = time.perf_counter()
            steps()
            if turn >= 2:  # the first two warm up
                times[name].append((time.perf_counter() - started) / STEPS * 1e3)
    ours = statistics.median(times["declared, compiled"])
    return {
        name: {
            "ms_a_step": round(statistics.median(found), 3),
            "quartiles_ms": [round(value, 3) for value in statistics.quantiles(found, n=4)[::2]],
            "ratio": round(ours / statistics.median(found), 3),
        }
        for name, found in times.items()
    }


def main() -> None:
    """Run every workload."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    # As the trainer does, for all: denormal numbers would slow the peers down.
    torch.set_flush_denormal(True)
    results = []
    for work in WORKLOADS:
        found = measured(work, options.rounds)
        results.append(asdict(work) | {"contenders": found})
        print(work.name)
        for name, row in found.items():
            print(f"  {name:20s} {row['ms_a_step']:8.2f} ms   declared, compiled / it: {row['ratio']:.2f}")
    content = {"threads": torch.get_num_threads(), "torch": torch.__version__, "machine": machine()}
    if options.out is not None:
        options.out.write_text(json.dumps(content | {"results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
