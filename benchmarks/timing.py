"""What the benchmarks share: contenders that take turns, medians with quartiles, and what they ran on."""

import argparse
import contextlib
import importlib.metadata
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from reproduce import machine

PACKAGES = ("torch", "pyro-ppl", "jax", "numpyro", "optax", "pythae", "vector-quantize-pytorch")
WARM_UP = 2
Call = Callable[[], Any]


@dataclass(frozen=True)
class Aim:
    """A ratio to reach: the time of `ours` over that of `peer`, at most `most`."""

    ours: str
    peer: str
    most: float


def arguments(doc: str, rounds: int = 15, argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the options that every benchmark takes: rounds, small and out."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="turns that count of every contender")
    parser.add_argument("--small", action="store_true", help="a tiny workload, to see that all of it runs")
    parser.add_argument("--out", type=Path, help="a file for the numbers, as JSON")
    options = parser.parse_args(argv)
    if options.rounds < 2:
        parser.error("--rounds: quartiles need at least 2")
    # As the library does, for all contenders: denormal numbers would slow the peers down.
    torch.set_flush_denormal(True)
    return options


def seconds(call: Call) -> float:
    """Return how long a call takes, with the work that it leaves to a GPU."""
    settle()
    started = time.perf_counter()
    call()
    settle()
    return time.perf_counter() - started


def settle() -> None:
    """Wait for what torch still has to do on a GPU."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def turns(
    contenders: Mapping[str, Call],
    rounds: int,
    warm_up: int = WARM_UP,
    measure: Callable[[Call], float] = seconds,
) -> dict[str, list[float]]:
    """Return what each contender measured in each round that counts.

    The contenders take turns, and each round begins with another one: what slows the machine for a while
    slows all of them, and none always runs after the same one.
    """
    names, found = list(contenders), {name: [] for name in contenders}
    for turn in range(warm_up + rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            value = measure(contenders[name])
            if turn >= warm_up:
                found[name].append(value)
    return found


def spread(values: Sequence[float], digits: int = 3) -> dict[str, Any]:
    """Return the median and the quartiles of measurements."""
    lower, _, upper = statistics.quantiles(values, n=4, method="inclusive")
    return {
        "median": round(statistics.median(values), digits),
        "quartiles": [round(lower, digits), round(upper, digits)],
    }


def compared(aim: Aim, found: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Return the median and the quartiles of the ratios within a round, and whether the aim is reached."""
    ours, peer = found[aim.ours], found[aim.peer]
    within = spread([one / other for one, other in zip(ours, peer, strict=True)])
    ratio = within["median"]
    return {
        "ours": aim.ours,
        "peer": aim.peer,
        "ratio": ratio,
        "ratio_quartiles": within["quartiles"],
        "target": aim.most,
        "reached": ratio <= aim.most,
    }


def row(
    workload: str,
    found: Mapping[str, Sequence[float]],
    aims: Sequence[Aim],
    unit: str,
    **settings: Any,
) -> dict[str, Any]:
    """Return a workload's numbers for JSON, and print them."""
    result = {
        "workload": workload,
        "unit": unit,
        "settings": settings,
        "contenders": {name: spread(values) for name, values in found.items()},
        "comparisons": [compared(aim, found) for aim in aims],
    }
    show(result)
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print a workload's numbers."""
    print(f"{result['workload']} ({result['unit']})")
    for name, numbers in result["contenders"].items():
        low, high = numbers["quartiles"]
        print(f"  {name:34s} {numbers['median']:10.3f}   quartiles {low:.3f} to {high:.3f}")
    for one in result["comparisons"]:
        verdict = "reached" if one["reached"] else "not reached"
        print(f"  {one['ours']} / {one['peer']}: {one['ratio']:.3f}, at most {one['target']:.2f}: {verdict}")
    sys.stdout.flush()


def versions() -> dict[str, str]:
    """Return the versions of the packages that take part, where they are installed."""
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def write(results: Sequence[Mapping[str, Any]], options: argparse.Namespace) -> None:
    """Write results and what they were measured on, whole or not at all."""
    if options.out is None:
        return
    facts = {
        "machine": machine(cuda=torch.cuda.is_initialized()),
        "threads": torch.get_num_threads(),
        "versions": versions(),
        "rounds": options.rounds,
        "small": options.small,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    staged = options.out.with_name(options.out.name + ".new")
    staged.write_text(json.dumps(facts | {"results": list(results)}, indent=1) + "\n")
    os.replace(staged, options.out)


class _Refusing(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING and "uncompiled" in record.getMessage():
            raise RuntimeError(f"the contender is not compiled: {record.getMessage()}")


@contextlib.contextmanager
def compiled_for_sure() -> Iterator[None]:
    """Stop where the library falls back to an uncompiled step: it would be timed under a false name."""
    logger, handler = logging.getLogger("ppl_vae"), _Refusing()
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
