"""What a run folder records of a run, and how the same objects are made from it again."""

import inspect
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from numbers import Real
from pathlib import Path
from typing import Any

from ppl_vae import checks, gallery, likelihoods, objectives
from ppl_vae import data as data_sets
from ppl_vae.backends import NAMES
from ppl_vae.backends import backend as backend_named
from ppl_vae.data import Data
from ppl_vae.errors import DataError, RunError, UsageError
from ppl_vae.objectives import files
from ppl_vae.options import COMPILE, Training
from ppl_vae.program import PlainProgram, Program

FORMAT = 1
GUESSED = ("max_plate_nesting",)  # by a stock ELBO at its first step, if it was not given
LIBRARIES = ("ppl-vae", "torch", "pyro-ppl", "lightning-fabric", "jax", "numpyro", "flax", "optax", "numpy")


def configuration(
    program: Program | PlainProgram,
    data: Data,
    objective: Any,
    training: Training,
    backend: str,
    compile: str,
) -> dict[str, Any]:
    """Return the resolved configuration of a run, as plain values."""
    return {
        "format": FORMAT,
        "program": gallery.source_of(program).record(),
        "model": _declared(program) if isinstance(program, Program) else {},
        "backend": backend,
        "data": data.describe() | {"options": data.options, "columns": data.coords.get("x")},
        "objective": objective_text(objective),
        **_objective_file(objective),
        "training": asdict(training) | {"lr": as_text(training.lr)},
        "compile": compile,
        "versions": versions(),
    }


def _declared(program: Program) -> dict[str, Any]:
    """Return a program's fields; a likelihood of the library's as the text that names it."""
    values = {field.name: getattr(program, field.name) for field in fields(program)}
    return {
        name: str(value) if type(value) in likelihoods.KNOWN.values() else value
        for name, value in values.items()
    }


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that matter, where they are installed."""
    found = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def as_text(value: Any) -> Any:
    """Return a number or a text as it is, a schedule in its text form."""
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def objective_text(objective: Any) -> str:
    """Return an objective in the text form that `make_objective` reads (for a callable, its name)."""
    if isinstance(objective, objectives.Objective):
        return objectives.objective_text(objective)
    module = type(objective).__module__.split(".")[0]
    if module in ("pyro", "numpyro"):
        return objectives.text_of(f"{module}.infer.{type(objective).__name__}", _settings(objective))
    return getattr(objective, "__qualname__", type(objective).__qualname__)


def _objective_file(objective: Any) -> dict[str, Any]:
    """Return the record of the file that an objective was loaded from, where it was."""
    source = files.source_of(type(objective))
    return {} if source is None else {"objective_file": source.record()}


def objective_of(config: Mapping[str, Any], run: Path, given: Any = None) -> Any:
    """Return the recorded objective, or the given one.

    Raises
    ------
    RunError
        For one that was defined in Python, and for a file that is gone or has changed.
    """
    if given is not None:
        return make_objective(given, config["backend"])
    record, text = config.get("objective_file"), config["objective"]
    if record is not None:
        gallery.recorded_source(Path(record["path"]), record, run, "objective=...")
    elif text.partition("(")[0].lower() not in objectives.OBJECTIVES and not objectives.names_stock(text):
        raise RunError(f"the run's objective {text!r} was defined in Python: give it as objective=...")
    return make_objective(text, config["backend"])


def _settings(objective: Any) -> dict[str, Any]:
    """Return the numbers and truth values of a stock ELBO that are not its defaults."""
    taken = inspect.signature(type(objective).__init__).parameters.values()
    given = {p.name: (getattr(objective, p.name, p.default), p.default) for p in taken}
    return {
        name: value
        for name, (value, default) in given.items()
        if isinstance(value, Real) and value != default and name not in GUESSED
    }


def make_objective(value: Any, backend: str) -> Any:
    """Return an objective from its text form, or as it is.

    Raises
    ------
    UsageError
        For an unknown name or option.
    """
    if isinstance(value, type) and is_dataclass(value):
        return value()
    if not isinstance(value, str):
        return value
    if not objectives.names_stock(value):
        return objectives.parse(value)
    name, options = objectives.parts(value)
    for key, given in options.items():
        if isinstance(given, str) or (key == "num_particles" and given < 1):
            raise UsageError(f"objective {value!r}: {key}={given} is not a number that it can be made with")
    try:
        return backend_named(backend).stock_objective(name)(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"objective {value!r}: {error}") from None


def training_of(config: Mapping[str, Any], changes: Mapping[str, Any] | None = None) -> Training:
    """Return the recorded training options, with changes."""
    known = {field.name for field in fields(Training)}
    recorded = {name: value for name, value in config["training"].items() if name in known}
    return Training(**recorded | dict(changes or {}))


def program_of(config: Mapping[str, Any], run: Path, model_file: str | None = None) -> Program | PlainProgram:
    """Return the recorded program, as `gallery.load_recorded` finds it."""
    return gallery.load_recorded(config["program"], model_file, fields=config["model"], run=run)


def data_of(config: Mapping[str, Any], offline: bool = False, place: str | None = None) -> Data:
    """Load the recorded data again, from another place where one is given, and compare its hash.

    Raises
    ------
    RunError
        Where it was made in memory, or has changed.
    """
    described = config["data"]
    options = described.get("options")
    if not options:
        raise RunError(f"the run's data {described['name']!r} was made in memory: give it as data=...")
    options = dict(options)
    where = options.pop("name_or_path")
    return same_data(config, data_sets.load(place or where, offline=offline, **options))


def same_data(config: Mapping[str, Any], data: Data) -> Data:
    """Return the data as the run was trained on it; refuses other data."""
    described = config["data"]
    if data.sha256 != described["sha256"]:
        raise RunError(
            f"{data.name!r} is not what the run was trained on (its sha256 differs): "
            "name the right data with --data"
        )
    return with_binarize(data, described["binarize"])


def other_data(config: Mapping[str, Any], make: Callable[..., Data]) -> Data:
    """Return data beside a run's own, as it was binarized: without splits of its own, all of its rows, in
    order, as one test split.

    Parameters
    ----------
    config : dict
    make : callable
        Returns the data; takes `valid` and `test`, the rows to hold out.
    """
    made, columns = make, config["data"].get("columns")

    def make(**held: int) -> Data:
        return in_order(made(**held), columns)

    found = make()
    if found.sha256 != config["data"]["sha256"] and found.split_rule.startswith("random"):
        found = make(valid=0, test=0)
        found = replace(found, splits={"test": found.splits["train"]}, split_rule="all rows")
    return with_binarize(found, config["data"]["binarize"])


def in_order(data: Data, columns: Sequence[str] | None) -> Data:
    """Return a table with its columns in the order of another, where both have names.

    Raises
    ------
    DataError
        Where the names are others.
    """
    names = data.coords.get("x")
    if not columns or not names or list(names) == list(columns):
        return data
    place = [names.index(name) for name in common_columns(names, columns)]
    splits = {split: rows | {"x": rows["x"][:, place]} for split, rows in data.splits.items()}
    return replace(data, splits=splits, coords=data.coords | {"x": list(columns)})


def common_columns(names: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the columns that a run was trained on; refuses a table that has others."""
    missing = [name for name in columns if name not in names]
    unknown = [name for name in names if name not in columns]
    if missing or unknown:
        listed = [f"lacks {', '.join(missing)}"] * bool(missing) + [f"has {', '.join(unknown)}"] * bool(
            unknown
        )
        raise DataError(f"the table {' and '.join(listed)}: the run was trained on {', '.join(columns)}")
    return list(columns)


def with_binarize(data: Data, binarize: str) -> Data:
    """Return the data with another rule of binarization."""
    return data if data.binarize == binarize else data_sets.of(data, binarize=binarize)


def settle_binarize(program: Program | PlainProgram, data: Data) -> Data:
    """Decide what "auto" means: new bits at every step for a Bernoulli on grey levels, else none."""
    if data.binarize != "auto":
        return data
    grey = data.levels is not None and data.levels > 2
    bits = likelihoods.takes(getattr(program, "likelihood", None)) == "bits" and grey
    return with_binarize(data, "dynamic" if bits else "none")


def check_compile(compile: str, backend: str | None) -> None:
    """Refuse an unknown choice, and one that a backend does not have."""
    checks.one_of("compile", compile, COMPILE)
    if (backend, compile) == ("numpyro", "off"):
        raise UsageError("compile='off': NumPyro always compiles, leave it away")


def check_backend(program: Program | PlainProgram, backend: str) -> None:
    """Refuse a program that has no twin on a backend."""
    checks.one_of("backend", backend, NAMES)
    if backend not in program.backends:
        name = getattr(program, "name", type(program).__name__)
        raise UsageError(
            f"{name} runs on {', '.join(program.backends)} only: choose --backend {program.backends[0]}"
        )
