"""What the fields of a dataclass hold, against their annotations, and what is said of them."""

import ast
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from ppl_vae import checks
from ppl_vae.errors import RunError, UsageError

_NUMBERS = {int: Integral, float: Real}
_WORDS = {int: "a whole number", float: "a number", str: "a text", bool: "True or False", NoneType: "None"}


def types(kind: type) -> dict[str, Any]:
    """Return the annotation of each field that may be given; Any for one that names something absent."""
    space = vars(sys.modules[kind.__module__]) if kind.__module__ in sys.modules else {}

    def resolved(annotation: Any) -> Any:
        try:
            return eval(annotation, space) if isinstance(annotation, str) else annotation
        except Exception:
            return Any

    return {field.name: resolved(field.type) for field in fields(kind) if field.init}


def attributes(doc: str | None) -> dict[str, str]:
    """Return the texts of a numpydoc list of attributes or parameters by name, each in one line."""
    texts, entry = {}, r"^(\w[\w, ]*) : [^\n]*((?:\n    [^\n]+)+)"
    for names, lines in re.findall(entry, inspect.cleandoc(doc or ""), re.M):
        text = " ".join(lines.split())
        text = text if text.endswith("...") else text.removesuffix(".")
        texts |= dict.fromkeys(names.split(", "), text)
    return texts


def comments(source: str) -> dict[str, str]:
    """Return the comments behind the annotated names of a file's classes, by name."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    by_line = {one.start[0]: one.string.lstrip("# ") for one in tokens if one.type == tokenize.COMMENT}
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    found = [one for node in classes for one in node.body if isinstance(one, ast.AnnAssign)]
    return {one.target.id: by_line[one.end_lineno] for one in found if one.end_lineno in by_line}


def described(kind: type, source: str = "") -> dict[str, str]:
    """Return what is said of a class's fields: by numpydoc, of its bases too, else by the comments of its
    source.
    """
    documented: dict[str, str] = {}
    for one in reversed(kind.__mro__):
        documented |= attributes(vars(one).get("__doc__"))
    return comments(source) | documented


def check(made: Any) -> None:
    """Raise UsageError for a field that is not what its annotation says, unless it is left at its default."""
    defaults = {field.name: field.default for field in fields(made)}
    for name, kind in types(type(made)).items():
        value = getattr(made, name)
        if get_origin(kind) is Literal:
            checks.one_of(name, value, get_args(kind))
        elif value is not defaults[name] and not matches(value, kind):
            example = f", such as ({value!r},)" if matches((value,), kind) else ""
            raise UsageError(f"{name}={value!r}: give {words(kind)}{example}")


def recorded(kind: type, values: Any, place: str) -> dict[str, Any]:
    """Return the values of a dataclass's fields out of those that a file holds.

    Raises
    ------
    RunError
        Naming the `place`: for what is no mapping, lacks a field or holds something else under its name.
    """
    remedy = "restore it from a copy of the run"
    if not isinstance(values, Mapping):
        raise RunError(f"{place} is not a mapping of names to values: {remedy}")
    taken, needed = types(kind), {one.name for one in fields(kind) if one.init and _is_needed(one)}
    for name, wanted in taken.items():
        if name in values and not matches(values[name], wanted):
            raise RunError(f"{place}: {name} is not {words(wanted)}: {remedy}")
        if name in needed - values.keys():
            raise RunError(f"{place} has no {name}: {remedy}")
    return {name: values[name] for name in taken if name in values}


def _is_needed(field: Any) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def matches(value: Any, kind: Any) -> bool:
    """Tell whether a value is what an annotation says; true of annotations that say nothing at run time."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(matches(value, one) for one in inner)
    if origin is Literal:
        return value in inner
    if kind in _NUMBERS:
        return isinstance(value, _NUMBERS[kind]) and not isinstance(value, bool)
    if kind is str:  # a likelihood of one's own stands for its text
        return isinstance(value, str) or hasattr(value, "name")
    if origin in (tuple, list, Sequence):
        return _items_match(value, origin, inner)
    if origin in (dict, Mapping) and isinstance(value, Mapping):
        return all(matches(key, inner[0]) and matches(item, inner[1]) for key, item in value.items())
    try:
        return isinstance(value, NoneType if kind is None else origin or kind)
    except TypeError:  # Any, a type variable, a protocol
        return True


def _items_match(value: Any, origin: Any, inner: tuple[Any, ...]) -> bool:
    if not isinstance(value, (tuple, list)):  # lists count as tuples
        return False
    if origin is tuple and inner[-1:] != (Ellipsis,):
        return len(value) == len(inner) and all(map(matches, value, inner))
    return all(matches(item, inner[0]) for item in value)


def words(kind: Any) -> str:
    """Return an annotation as a message names it."""
    if get_origin(kind) in (Union, UnionType):
        return " or ".join(map(words, get_args(kind)))
    return _WORDS.get(kind) or (kind.__name__ if type(kind) is type else str(kind))
