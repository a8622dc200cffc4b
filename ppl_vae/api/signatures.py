"""Functions that take the fields of a dataclass as options, and show them as their own."""

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from ppl_vae import annotations

Function = TypeVar("Function", bound=Callable[..., Any])


def taking(kind: type) -> Callable[[Function], Function]:
    """Return a decorator that writes a dataclass's fields, with their defaults and texts, into a function's
    signature and docstring instead of its `**options`.
    """
    known, texts = annotations.types(kind), annotations.attributes(kind.__doc__)
    shown = {one.name: one.default for one in fields(kind) if one.init and one.default is not MISSING}

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


def _paragraph(text: str) -> str:
    return textwrap.indent(textwrap.fill(text if text.endswith(".") else f"{text}.", 100), " " * 8)
