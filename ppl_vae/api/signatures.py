"""Functions that take the fields of a dataclass as options, and show them as their own."""

import functools
import inspect
import re
import textwrap
from collections.abc import Callable, Collection
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ppl_vae import annotations, checks

Function = TypeVar("Function", bound=Callable[..., Any])
Class = TypeVar("Class", bound=type)


class AsRecorded:
    """The default of what a run records: the value that it has there."""

    def __repr__(self) -> str:
        return "as recorded"


def taking(kind: type, recorded: Collection[str] = ()) -> Callable[[Function], Function]:
    """Return a decorator that writes a dataclass's fields, with their defaults and texts, into a function's
    signature and docstring instead of its `**options`: all, or some that are else as a run records them.
    """
    known, texts = annotations.types(kind), annotations.attributes(kind.__doc__)
    shown = {one.name: one.default for one in fields(kind) if one.init and one.default is not MISSING}
    if recorded:
        shown = {name: AsRecorded() for name in shown if name in recorded}

    def decorated(function: Function) -> Function:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=known[name])
            for name, default in shown.items()
        ]
        function.__signature__ = signature.replace(parameters=[*own, *added])
        lines = [
            f"    {name} : {inspect.formatannotation(known[name])}, default {default!r}\n"
            f"{_paragraph(texts.get(name, ''))}\n"
            for name, default in shown.items()
        ]
        doc = function.__doc__ or ""
        function.__doc__ = re.sub(r"    \*\*\w+\n(        .*\n)+", lambda _: "".join(lines), doc, count=1)
        return function

    return decorated


def hinting(function: Function) -> Function:
    """Return a function that refuses an option that it does not have with the one that may be meant."""
    taken = inspect.signature(function).parameters
    known = [name for name in taken if name != "self"]

    @functools.wraps(function)
    def called(*args: Any, **options: Any) -> Any:
        checks.options(function.__qualname__, options, known)
        return function(*args, **options)

    return called


def hinting_methods(kind: Class) -> Class:
    """Return a class whose public methods are `hinting`."""
    for name, value in list(vars(kind).items()):
        if inspect.isfunction(value) and not name.startswith("_"):
            setattr(kind, name, hinting(value))
    return kind


def _paragraph(text: str) -> str:
    return textwrap.indent(textwrap.fill(text if text.endswith(".") else f"{text}.", 100), " " * 8)
