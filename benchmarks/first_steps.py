"""Time the first training step of a compiled program in a new process: compiled anew, and found in the cache.

    python benchmarks/first_steps.py --out benchmarks/results/first_steps.json

From a program, or a hand-written module, to the end of its first step, with what that imports. The compiler's
precompiled headers are there already; `torch.compile` compiles what is written by hand.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import deep
import timing
from declared import Steps, batches, bits, trained
from peers.loop import steps_of
from peers.topdown import HandWrittenTopDown

from ppl_vae import load

HERE = Path(__file__).resolve()
WHO = ("declared", "by hand")


@dataclass(frozen=True)
class Workload(deep.Workload):
    """A top-down VAE on bits, and one step of it."""

    rows: int = 64
    steps: int = 1


SMALL = Workload("small", 2, 2, 4, 2, 4, (1, 8, 8), 16)


def first_steps(work: Workload, who: str) -> Steps:
    """Return what compiles and takes a step."""
    x, items = bits(work.rows, work.shape), batches(work.rows, work.batch, work.steps)
    if who == "declared":
        return lambda: trained(load("topdown", x_shape=work.shape, **work.sizes), x, items, compile="default")
    return steps_of(HandWrittenTopDown(work.shape, **work.sizes), x, items, compile="default")


def process(who: str, small: bool, cache: str) -> float:
    """Return the seconds that a new process tells."""
    words = [sys.executable, str(HERE), "--process", who, *(["--small"] if small else [])]
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": cache}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{who} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def measured(work: Workload, rounds: int, small: bool) -> dict[str, Any]:
    """Return seconds of each, compiled anew and found in the cache."""
    found: dict[str, list[float]] = {f"{who}, {when}": [] for when in ("anew", "again") for who in WHO}
    for turn in range(rounds):
        for who in WHO[:: 1 if turn % 2 else -1]:
            with tempfile.TemporaryDirectory() as cache:
                for when in ("anew", "again"):
                    found[f"{who}, {when}"].append(process(who, small, cache))
    return timing.row(work.name, found, (), "s to the first step", **asdict(work))


def main(argv: Sequence[str] | None = None) -> None:
    """Run the workload, or one of its processes."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--process", choices=WHO)
    child, rest = options.parse_known_args(argv)
    options = timing.arguments(__doc__, rounds=3, argv=rest)
    work = SMALL if options.small else Workload()
    if child.process:
        print(timing.seconds(first_steps(work, child.process)))
    else:
        timing.write([measured(work, options.rounds, options.small)], options)


if __name__ == "__main__":
    main()
