"""What a run folder records of a run, and how the same objects are made from it again."""

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import NoneType
from typing import Any

from ppl_vae import annotations, checks, gallery, model_files, objectives, schedules, session
from ppl_vae.api import settings, sources
from ppl_vae.backends import NAMES
from ppl_vae.data import Data
from ppl_vae.data.description import Description
from ppl_vae.data.loader import Loader
from ppl_vae.errors import RunError, UsageError
from ppl_vae.options import Training
from ppl_vae.program import PlainProgram, Program
from ppl_vae.store import RunFolder, as_yaml, write_config

CONFIG = "config.yaml"
FORMAT = 1
# What may change when a run goes on: how long it takes and where it runs, not what it computes; and the
# learning rate, for a run that diverged.
CHANGES = ("epochs", "max_steps", "patience", "checkpoint_every", "device", "devices", "lr")
LIBRARIES = ("ppl-vae", "torch", "pyro-ppl", "lightning-fabric", "jax", "numpyro", "flax", "optax", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """A run, resolved: what config.yaml holds, in its order.

    Attributes
    ----------
    program : dict
        Origin, name and hash of the model file; see `ModelSource.record`.
    model : dict
        The program's fields; empty for plain functions.
    backend : str
    data : Description
    objective : str
        Its text form; of a callable the name.
    objective_file : dict or None
        The file that it was loaded from, or the source of an object of Python.
    schedule_file : dict or None
        The source of a learning rate that is an object of Python.
    training : Training
    compile : str
        on, off or auto; once it has trained, what auto decided.
    versions : dict
        Of Python and the libraries that the run began with.
    kept : dict
        What another version wrote beside all that: it is written again, and not looked at.
    """

    format: int = FORMAT
    program: dict[str, str]
    model: dict[str, Any]
    backend: str
    data: Description
    objective: str
    objective_file: dict[str, str] | None = None
    schedule_file: dict[str, str] | None = None
    training: Training
    compile: str
    versions: dict[str, str]
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, program: Program | PlainProgram, data: Data | Loader, chosen: "settings.Settings"
    ) -> "RunRecord":
        """Record a training that is about to start."""
        return cls(
            **sources.program_record(program),
            backend=chosen.backend,
            data=Description.of(data),
            **_objective(chosen.objective),
            schedule_file=sources.recorded(sources.schedule_source(chosen.training.lr)),
            training=chosen.training,
            compile=chosen.compile,
            versions=versions(),
        )

    @classmethod
    def open(cls, folder: RunFolder) -> "RunRecord":
        """Read the record of a run folder, of another version too.

        Raises
        ------
        RunError
            For a newer format, and where something is missing or is not what its name says.
        """
        config, place = folder.config(), str(folder.path / CONFIG)
        written = config.get("format", FORMAT)
        if isinstance(written, int) and written > FORMAT:
            raise RunError(
                f"{place} has format {written}, of a newer ppl_vae (this one reads {FORMAT}): upgrade ppl_vae"
            )
        kept = _unknown(cls, config)
        parts = {}
        for name, kind in (("data", Description), ("training", Training)):
            values = config.get(name)
            known = annotations.recorded(kind, values, f"{place}: {name}")
            try:
                parts[name] = kind(**known)
            except UsageError as error:
                raise RunError(f"{place}: {name}: {error}") from None
            if unknown := _unknown(kind, values):
                kept[name] = unknown
        values = annotations.recorded(cls, config | parts, place)
        for name in ("origin", "name", "sha256"):
            if name not in values["program"]:
                raise RunError(f"{place}: program has no {name}: restore it from a copy of the run")
        if values["backend"] not in NAMES:
            raise RunError(f"{place}: unknown backend {values['backend']!r}: choose {' or '.join(NAMES)}")
        return cls(**values | {"kept": kept})

    def to_config(self) -> dict[str, Any]:
        """Return the record as config.yaml holds it."""
        made, lr = {field.name: getattr(self, field.name) for field in fields(self)}, self.training.lr
        kept = made.pop("kept")
        plain_values = {"lr": lr if isinstance(lr, (int, float, str)) else schedules.text_of(lr)}
        plain_values["betas"] = list(self.training.betas)
        made |= {"data": self.data.record(), "training": asdict(self.training) | plain_values}
        for name, value in kept.items():
            made[name] = made[name] | value if name in made else value
        return {name: value for name, value in made.items() if value is not None}

    def content(self) -> bytes:
        """Return the bytes of config.yaml."""
        return write_config(self.to_config())

    def going_on(self, changes: Mapping[str, Any], run: Path) -> "RunRecord":
        """Return the record of how the run, in a folder, trains from now on.

        Raises
        ------
        UsageError
            For what cannot change, and for a learning rate that has no record and is not given again.
        RunError
            For one whose source is not at hand.
        """
        checks.options("resume", changes, settings.TRAINING)
        before, file = self.training.lr, self.schedule_file
        if "lr" in changes:
            file = sources.recorded(sources.schedule_source(changes["lr"]))
        elif sources.is_object(before):
            if file is None:
                raise UsageError(f"the run's lr was the schedule {before} of Python: give it again as lr=...")
            changes = {**changes, "lr": sources.made(file, run, "schedule", "lr=...")}
        fixed = sorted(set(changes) - {*CHANGES, "log_every"})
        if fixed:
            raise UsageError(f"{fixed[0]} of a run cannot change: start another one, in another folder")
        return replace(self, training=replace(self.training, **changes), schedule_file=file)

    def moved(self, program: Any = None, objective: Any = None) -> "RunRecord":
        """Return the record of the same run, with a program's and an objective's files where they lie now."""
        changes = {} if program is None else sources.program_record(program)
        if objective is not None:
            changes |= _objective(objective)
        return replace(self, **changes)

    @property
    def stated(self) -> dict[str, Any]:
        """The program's fields without those that stand for objects, which its source makes."""
        made = self.program["origin"] == session.ORIGIN
        return {name: v for name, v in self.model.items() if not (made and sources.is_object(v))}

    def made_program(self, run: Path, model_file: str | Path | None = None) -> Program | PlainProgram:
        """Return the recorded program, as `gallery.load_recorded` finds it."""
        return gallery.load_recorded(self.program, model_file, fields=self.stated, run=run)

    def made_objective(self, run: Path, given: Any = None) -> Any:
        """Return the recorded objective, or the given one.

        Raises
        ------
        RunError
            For one that was defined in Python, and for a file that is gone or has changed.
        UsageError
            Where the given one is another.
        """
        if given is not None:
            return self._same(settings.make_objective(given, self.backend))
        text, file = self.objective, self.objective_file
        if file is not None and file.get("origin") == session.ORIGIN:
            return sources.made(file, run, "objective", "objective=...")
        if file is not None:
            option, path = "objective='FILE:Class(...)'", Path(str(file.get("path", "")))
            source = model_files.recorded_source(path, file, run, option, "objective")
            text = f"{source.path}:{_bare(text)}"  # no other file than the one that was looked at
        elif text.partition("(")[0].lower() not in objectives.OBJECTIVES and not objectives.names_stock(text):
            raise RunError(f"the run's objective {text!r} was defined in Python: give it as objective=...")
        return settings.make_objective(text, self.backend)

    def _same(self, objective: Any) -> Any:
        """Return an objective that is the recorded one, wherever its file lies now and whatever is in it."""
        given = settings.objective_text(objective)
        if _bare(given) != _bare(self.objective):
            raise UsageError(
                f"the run was trained with the objective {self.objective}, not {given}: "
                "go on with that one, or choose another folder"
            )
        return objective

    def refuse_other(self, now: "RunRecord", place: str | Path) -> None:
        """Refuse to go on with a run that computes something else; a moved file is the same."""
        remedy = "go on with what it records, or choose another folder"
        for (part, before), after in zip(_computed(self).items(), _computed(now).values(), strict=True):
            if before != after and not self._knows_less(part, now):
                raise UsageError(f"{place} was trained with another {part}: {remedy}")
        before, after = (as_yaml(one.to_config()["training"]) for one in (self, now))
        for name, value in after.items():
            if name not in CHANGES and before[name] != value:
                raise UsageError(f"{place} was trained with {name}={before[name]}, not {value}: {remedy}")

    def _knows_less(self, part: str, now: "RunRecord") -> bool:
        """Tell whether a part has a source now that an earlier version did not record."""
        if part == "program":
            return self.program["origin"] == "python" and now.program["origin"] == session.ORIGIN
        return part == "objective file" and self.objective_file is None


def _computed(record: RunRecord) -> dict[str, Any]:
    """Return what two parts of one run share, by the name that messages give it."""
    return {
        "model": as_yaml(record.model),
        "objective": _bare(record.objective),
        "backend": record.backend,
        "program": record.program["sha256"],
        "data": record.data.sha256,
        "objective file": (record.objective_file or {}).get("sha256"),
        "binarize": record.data.binarize,
    }


def _objective(objective: Any) -> dict[str, Any]:
    """Return what is recorded of an objective."""
    return {
        "objective": settings.objective_text(objective),
        "objective_file": sources.recorded(sources.objective_source(objective)),
    }


def _bare(text: str) -> str:
    """Return an objective's text without the place of its file."""
    return text.rpartition(".py:")[2]


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter, where they are installed."""
    installed = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _unknown(kind: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is none of a dataclass's fields."""
    known = {field.name for field in fields(kind)} - {"kept"}
    return {name: value for name, value in values.items() if name not in known}


def history(folder: RunFolder) -> list[dict[str, Any]]:
    """Return the rows of metrics.jsonl.

    Raises
    ------
    RunError
        For a row that no training wrote.
    """
    rows = folder.metrics()
    for line, row in enumerate(rows, 1):
        numbers = [value for name, value in row.items() if name != "split"]
        whole = [row.get("step"), row.get("epoch", 0)]
        if (
            not all(isinstance(value, int) and value >= 0 for value in whole)
            or not isinstance(row.get("split"), str)
            or not all(isinstance(value, (int, float, NoneType)) for value in numbers)
        ):
            raise RunError(
                f"{folder.path / 'metrics.jsonl'}, line {line} is no row of a training's history: "
                "restore the file from a copy of the run"
            )
    return rows
