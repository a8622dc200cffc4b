"""Time whole processes: training from the command line beside the same loop by hand, and starting up.

    python benchmarks/process.py --out benchmarks/results/process.json

Training counts from the start of the process to its end, without the seconds that compiling took and those
of the report: the loop by hand writes none. Starting up is told in seconds, against limits.
"""

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import timing
from declared import bits
from timing import Aim

HERE = Path(__file__).resolve().parent
COMMAND = [sys.executable, "-c", "import sys; from ppl_vae.cli import main; sys.exit(main())"]
IMPORT = "import time; t = time.perf_counter(); import ppl_vae; print(time.perf_counter() - t)"
LIMITS = (("ppl-vae --help", 0.5), ("import ppl_vae", 0.1))
OURS, BY_HAND = "ppl-vae train", "by hand"
AIMS = (
    Aim(f"{OURS} --compile on", BY_HAND, 1.1),
    Aim(f"{OURS} --compile on", f"{BY_HAND}, compiled", 1.1),
    Aim(OURS, BY_HAND, 1.1),
)


@dataclass(frozen=True)
class Workload:
    """A training run on bits, four fifths of them for training."""

    name: str = "whole process, 784-400-20, 20 epochs of 8,000 rows"
    rows: int = 10_000
    epochs: int = 20
    batch: int = 128
    hidden: tuple[int, ...] = (400,)
    z_dim: int = 20
    shape: tuple[int, ...] = (28, 28)


SMALL = Workload("small", 80, 2, 16, (8,), 2, (4, 4))


def ran(words: Sequence[str]) -> subprocess.CompletedProcess:
    """Run a process to its end; what it says is in the error where it fails."""
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
    return done


def data_file(work: Workload, folder: Path) -> Path:
    """Write the rows with their splits, and return where."""
    x = bits(work.rows, work.shape).astype(np.uint8)
    train, valid = work.rows * 8 // 10, work.rows * 9 // 10
    path = folder / "bits.npz"
    np.savez(path, x_train=x[:train], x_valid=x[train:valid], x_test=x[valid:])
    return path


def commands(work: Workload, data: Path) -> dict[str, list[str]]:
    """Return the contenders' commands, all but the folder that they write to."""
    ours = [*COMMAND, "train", "vae", "--data", str(data), "--binarize", "none"]
    ours += ["--epochs", str(work.epochs), "--batch-size", str(work.batch), "--lr", "1e-3", "--device", "cpu"]
    ours += ["--model.hidden", json.dumps(work.hidden), "--model.z_dim", str(work.z_dim)]
    hand = [sys.executable, str(HERE / "peers" / "train_by_hand.py"), str(data)]
    hand += ["--epochs", str(work.epochs), "--batch", str(work.batch), "--z-dim", str(work.z_dim)]
    hand += ["--hidden", *map(str, work.hidden)]
    return {
        OURS: ours,
        f"{OURS} --compile on": [*ours, "--compile", "on"],
        BY_HAND: hand,
        f"{BY_HAND}, compiled": [*hand, "--compile"],
    }


def compile_seconds(done: subprocess.CompletedProcess, words: Sequence[str]) -> float:
    """Return the seconds that a training process says its compilation took.

    Raises
    ------
    RuntimeError
        Where it was told to compile and did not.
    """
    told = json.loads(done.stdout.splitlines()[-1]).get("compile_seconds")
    line = re.search(r"compiled .* in ([\d.]+) s", done.stderr)
    if line:
        told = float(line[1])
    if told is None and "--compile" in words:
        raise RuntimeError(f"{' '.join(words)} does not say that it compiled:\n{done.stderr[-2000:]}")
    return told or 0.0


def report_seconds(run: Path) -> float:
    """Return the seconds between the last checkpoint of a run and its report; 0 without one."""
    report = run / "report.html"
    return report.stat().st_mtime - (run / "state.pt").stat().st_mtime if report.exists() else 0.0


def trained(words: Sequence[str], folder: Path) -> tuple[float, float]:
    """Run a training process; return its seconds, and those without compilation and report."""
    with tempfile.TemporaryDirectory(dir=folder) as place:
        run, started = Path(place) / "run", time.perf_counter()
        done = ran([*words, "--out", str(run)])
        whole = time.perf_counter() - started
        return whole, whole - compile_seconds(done, words) - report_seconds(run)


def training(work: Workload, rounds: int) -> dict[str, Any]:
    """Return seconds of every training process, and the ratios to reach."""
    wholes: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as place:
        made = commands(work, data_file(work, Path(place)))

        def contender(name: str) -> Callable[[], float]:
            def run() -> float:
                whole, counted = trained(made[name], Path(place))
                wholes.setdefault(name, []).append(whole)
                return counted

            return run

        contenders = {name: contender(name) for name in made}
        found = timing.turns(contenders, rounds, warm_up=1, measure=lambda call: call())
    result = timing.row(work.name, found, AIMS, "s but for compilation and report", **asdict(work))
    return result | {"whole_seconds": {name: timing.spread(values[1:]) for name, values in wholes.items()}}


def starting(rounds: int) -> dict[str, Any]:
    """Return the seconds of starting up, against their limits."""
    calls = {
        "ppl-vae --help": lambda: timing.seconds(lambda: ran([*COMMAND, "--help"])),
        "import ppl_vae": lambda: float(ran([sys.executable, "-c", IMPORT]).stdout),
    }
    found = timing.turns(calls, rounds, warm_up=1, measure=lambda call: call())
    result = timing.row("starting up", found, (), "s")
    result["limits"] = [
        {
            "what": name,
            "median": result["contenders"][name]["median"],
            "target": most,
            "reached": result["contenders"][name]["median"] <= most,
        }
        for name, most in LIMITS
    ]
    for one in result["limits"]:
        verdict = "reached" if one["reached"] else "not reached"
        print(f"  {one['what']}: {one['median']:.3f} s, at most {one['target']:.1f} s: {verdict}")
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Run everything."""
    options = timing.arguments(__doc__, rounds=5, argv=argv)
    work = SMALL if options.small else Workload()
    timing.write([training(work, options.rounds), starting(options.rounds)], options)


if __name__ == "__main__":
    main()
