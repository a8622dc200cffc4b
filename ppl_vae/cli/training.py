"""From the options of `ppl-vae train` to what `fit` and `resume` take, and from a run to its summary."""

import shlex
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppl_vae import bars, load, objectives
from ppl_vae import data as data_sets
from ppl_vae.api import Run, resume
from ppl_vae.api.fitting import Shown, start
from ppl_vae.api.record import CHANGES, RunRecord
from ppl_vae.api.settings import TRAINING, Settings
from ppl_vae.cli.running import as_json, say
from ppl_vae.data import Data
from ppl_vae.data.roles import ROLES
from ppl_vae.errors import UsageError
from ppl_vae.history import chosen
from ppl_vae.store import RunFolder
from ppl_vae.training import VALIDATED

TABLE = (*ROLES, "delimiter", "decimal", "header")
_ASIDE = ("out", "resume", "model_file", "objective", "tensorboard", "progress", "data", "offline", "json")


def trained(options: Any) -> Run:
    """Train as the command line says. What is impossible is refused before any data is read."""
    if options.resume and options.out is None:
        raise UsageError("--resume needs the run folder: --out DIR")
    if options.resume and options.get("program") is None:
        return go_on(options)
    program = load(program_name(options), **options.model)
    chosen, out = settings(options, program), folder(options)
    return start(program, load_data(options), chosen, out, options.resume, shown(options, out))


def program_name(options: Any) -> str:
    """Return the PROGRAM; refuses its absence."""
    if options.get("program") is None:
        raise UsageError("name a program, such as vae, or a file of yours (ppl-vae list shows the gallery)")
    return options.program


def settings(options: Any, program: Any) -> Settings:
    """Return how the program is trained."""
    training = {name: options[name] for name in TRAINING if name in options.given}
    return Settings.of(program, objective(options), options.backend, options.compile, **training)


def shown(options: Any, out: str | Path) -> Shown:
    """Return who hears of the training."""
    return Shown([announced(out, options.progress)], options.progress, options.tensorboard)


def objective(options: Any) -> Any:
    """Return the objective: its text, or our own one with --beta and --warm-up."""
    changes = {name: options[name] for name in ("beta", "warm_up") if options[name] is not None}
    text = options.objective
    chosen = text if objectives.names_stock(text) else objectives.parse(text)
    known = getattr(chosen, "__dataclass_fields__", ())
    for name in changes:
        if name not in known:
            raise UsageError(f"--{name.replace('_', '-')} is no option of the objective {text}")
    return replace(chosen, **changes) if changes else chosen


def load_data(options: Any) -> Data:
    """Load the data of a training."""
    names = ("binarize", "offline", "valid", "test", "split_seed", "kind", "levels", *TABLE)
    return data_sets.load(options.data, **{name: options[name] for name in names})


def folder(options: Any) -> Path:
    """Return --out, or the first free one of runs/PROGRAM-DATA, runs/PROGRAM-DATA-2 ..."""
    if options.out is not None:
        return Path(options.out)
    stem = Path("runs") / f"{Path(options.program).stem}-{Path(options.data).stem}"
    number = 1
    while (candidate := stem if number == 1 else stem.with_name(f"{stem.name}-{number}")).exists():
        number += 1
    return candidate


def announced(
    out: str | Path, progress: bool | None = None, seconds: float = 10.0
) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a callback that says where the run is written, and now and then how it stands if no bar does."""
    last, bar = None, bars.moves(sys.stderr) if progress is None else progress

    def tell(event: str, state: Mapping[str, Any]) -> None:
        nonlocal last
        if last is None:
            say(f"writing to {out}")
            last = time.monotonic()
        elif event == "valid" and not bar and time.monotonic() - last > seconds:
            row, last = state["row"], time.monotonic()
            say(f"step {row['step']}: {row['elbo_nats']:.2f} nats on the validation rows")

    return tell


def go_on(options: Any) -> Run:
    """Go on with the run in --out as it records it."""
    record = RunRecord.open(RunFolder.open(options.out))
    for name in options.given:
        if name not in (*CHANGES, *_ASIDE) and not _is_recorded(record, name, options[name]):
            raise UsageError(
                f"--{name.replace('_', '-')} is recorded in the run, which goes on with it: "
                "leave it out on --resume, or train into another folder"
            )
    changes = {name: options[name] for name in CHANGES if name in options.given}
    if "epochs" in changes or "max_steps" in changes:
        changes = {"epochs": None, "max_steps": None} | changes
    data = record.data.again(options.data if "data" in options.given else None, options.offline)
    hearers = vars(shown(options, options.out))
    objective = options.objective if "objective" in options.given else None
    return resume(
        options.out, model_file=options.model_file, data=data, objective=objective, **hearers, **changes
    )


def _is_recorded(record: RunRecord, name: str, value: Any) -> bool:
    if name == "compile":
        return value in ("auto", record.compile)
    before = record.to_config()["training"] | {"backend": record.backend}
    return name in before and before[name] == as_json(value)


def tell_stop(run: Run) -> None:
    """Say how a run that was stopped goes on."""
    if run.stopped_by and run.folder is not None:
        path = shlex.quote(str(run.folder.path))
        say(f"stopped by {run.stopped_by}: ppl-vae train --resume --out {path} goes on")


def summary(run: Run) -> dict[str, Any]:
    """Return what `ppl-vae train` prints: where the run stands, and the bound on the validation rows."""
    data, path = run.record.data, None if run.folder is None else run.folder.path
    result = {
        "program": run.name,
        "backend": run.backend,
        "data": data.name,
        "binarize": data.binarize,
        "steps": run.steps,
    }
    row = validation(run)
    result |= {name: row.get(name) for name in VALIDATED} | {"elbo_split": "valid" if row else None}
    result |= {"best_step": row.get("step"), "n": data.rows.get("valid", 0)}
    return result | {"stopped_by": run.stopped_by, "out": None if path is None else str(path)}


def validation(run: Run) -> Mapping[str, Any]:
    """Return the row of the history that tells of the weights that were chosen."""
    return chosen(run.history, run.record.training.keep)
