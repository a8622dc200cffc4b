"""The text form of objectives: `elbo(beta=4,warm_up=1000)`, `iwae(k=50)`, `my.py:FreeBits(floor=0.5)`."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.objectives.base import SCHEDULE, Objective
from ppl_vae.objectives.elbo import ELBO
from ppl_vae.objectives.importance import IWAE, STL, DReG

OBJECTIVES: dict[str, type[Objective]] = {"elbo": ELBO, "iwae": IWAE, "dreg": DReG, "stl": STL}


def parse(text: str) -> Objective:
    """Return the objective that a text names.

    Raises
    ------
    UsageError
        For an unknown name, option or value.
    """
    name, options = parts(text)
    kind = _kind(name)
    known = {field.name: field for field in fields(kind)}
    for key, value in options.items():
        if key not in known:
            raise UsageError(f"{name} has no option {key!r}: it takes {', '.join(known) or 'none'}")
        numeric = known[key].type in (int, float, bool, "int", "float", "bool")
        if isinstance(value, str) and SCHEDULE not in known[key].metadata and numeric:
            raise UsageError(f"{key}={value!r} is not a number")
    return kind(**options)


def _kind(name: str) -> type[Objective]:
    path, colon, own = name.rpartition(":")
    if colon and path.endswith(".py"):
        from ppl_vae.objectives.files import load  # for those who have a file

        return load(path, own)
    if name.lower() not in OBJECTIVES:
        raise UsageError(f"unknown objective {name!r}: write {', '.join(map(usage, OBJECTIVES.values()))}")
    return OBJECTIVES[name.lower()]


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
    """Return the text form of an objective: its name, or its file and class, and what is no default."""
    kind = type(objective)
    name = next((name for name, known in OBJECTIVES.items() if known is kind), None)
    if name is None:
        from ppl_vae.objectives.files import source_of

        source = source_of(kind)
        name = f"{source.path}:{kind.__name__}" if source is not None else kind.__name__
    given = {field.name: (getattr(objective, field.name), field.default) for field in fields(kind)}
    changed = {key: value for key, (value, default) in given.items() if value != default}
    return text_of(name, changed)


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
