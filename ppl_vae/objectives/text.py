"""The text form of objectives: `elbo(beta=4,warm_up=1000)`, `iwae(k=50)`, `my.py:FreeBits(floor=0.5)`."""

from collections.abc import Mapping
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from ppl_vae import checks, model_files, schedules
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.model_files import ModelSource
from ppl_vae.objectives.base import SCHEDULE, Objective
from ppl_vae.objectives.elbo import ELBO
from ppl_vae.objectives.importance import IWAE, STL, DReG

OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO, "iwae": IWAE, "dreg": DReG, "stl": STL}
_sources: WeakKeyDictionary[type, ModelSource] = WeakKeyDictionary()  # of the classes that files declare


def parse(text: str) -> Objective:
    """Return the objective that a text names, of a file too.

    Raises
    ------
    UsageError
        For an unknown name, option or value, and where there is no such file.
    ProgramError
        For a file that fails, or that has no such frozen dataclass.
    """
    name, options = parts(text)
    path, colon, own = name.rpartition(":")
    if colon and path.endswith(".py"):
        return make(_loaded(path, own), options, name)
    if name.lower() not in OBJECTIVES:
        close = checks.near(name.lower(), OBJECTIVES)
        ask = f"did you mean {close}? Write" if close else "write"
        raise UsageError(f"unknown objective {name!r}: {ask} {', '.join(map(usage, OBJECTIVES.values()))}")
    return make(OBJECTIVES[name.lower()], options, name)


def make(kind: type[Objective], options: Mapping[str, Any] = {}, name: str = "") -> Objective:
    """Return an objective of a class.

    Raises
    ------
    UsageError
        For an unknown option or value, and where one is missing.
    ProgramError
        For a class that is no objective.
    """
    if fault := kind.fault():
        raise ProgramError(fault)
    name, known = name or kind.__name__, {field.name: field for field in fields(kind) if field.init}
    for key, value in options.items():
        if key not in known:
            hint = checks.meant(key, known)
            raise UsageError(f"{name} has no option {key!r}: {hint} takes {', '.join(known) or 'none'}")
        if str(value).startswith("<"):
            raise UsageError(
                f"{name}: {key} was an object of Python, {value}: give the objective as an object"
            )
    for key, field in known.items():
        if key not in options and _default(field) is MISSING:
            raise UsageError(f"{name} needs {key}: write {kind.__name__}({key}=...)")
    return kind(**options)


def _loaded(path: str, name: str) -> type[Objective]:
    """Execute a file and return its class of a name."""
    source = model_files.read(Path(path), kind="objective")
    kind = vars(model_files.execute(source)).get(name)
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise ProgramError(f"{path} has no class {name} that inherits from ppl_vae.Objective")
    if fault := kind.fault():
        raise ProgramError(f"{path}: {fault}")
    _sources[kind] = source
    return kind


def source_of(kind: type[Objective]) -> ModelSource | None:
    """Return the file that an objective was loaded from; None for any other."""
    return _sources.get(kind)


def usage(kind: type[Objective]) -> str:
    """Return an objective's text form with its defaults, such as `iwae(k=5)`."""
    return text_of(kind.__name__.lower(), {field.name: field.default for field in fields(kind)})


def parts(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of `name(option=value,...)`: numbers, truth values or texts."""
    name, bracket, rest = text.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise UsageError(f"objective {text!r} is not closed: write name(option=value,...)")
    items = [item.partition("=") for item in rest.removesuffix(")").split(",") if item.strip()]
    return name.strip(), {key.strip(): _value(value.strip()) for key, _, value in items}


def names_stock(text: str) -> bool:
    """Tell whether a text names an ELBO of the backend's library, such as `Trace_ELBO(num_particles=2)`."""
    name, _ = parts(text)
    return name.endswith("ELBO") and name.lower() not in OBJECTIVES and ":" not in name


def text_of(name: str, options: Mapping[str, Any]) -> str:
    """Return what `parts` reads."""
    return f"{name}({','.join(f'{key}={value}' for key, value in options.items())})" if options else name


def objective_text(objective: Objective) -> str:
    """Return the text form of an objective: its name, or its file and class, and what is no default.

    What no text gives, such as a schedule of a class of one's own, is written as `<CLASS>`, which `parse`
    refuses.
    """
    kind = type(objective)
    name = next((name for name, known in OBJECTIVES.items() if known is kind), None)
    if name is None:
        source = source_of(kind)
        name = f"{source.path}:{kind.__name__}" if source is not None else kind.__name__
    given = [(field, getattr(objective, field.name)) for field in fields(kind)]
    return text_of(name, {one.name: _written(one, value) for one, value in given if value != _default(one)})


def _written(field: Field, value: Any) -> str:
    """Return an option's value as a text, where `parts` reads the same."""
    if SCHEDULE in field.metadata:
        return schedules.text_of(value)
    same = parts(text_of("", {field.name: value}))[1] == {field.name: value}
    return str(value) if same else f"<{type(value).__name__}>"


def _default(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _value(text: str) -> Any:
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
