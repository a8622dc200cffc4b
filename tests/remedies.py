"""Messages that name a remedy: all of them, as the source has them, and one that is carried out."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from ppl_vae.errors import PplVaeError

ROOT = Path(__file__).parent.parent
# A remedy begins with one of these, at the start of a text or behind a mark.
VERBS = (
    "add|ask for|bound|call|check|choose|convert|correct|crop|declare|divide|draw|drop|end|fill|flatten|free|"
    "freeze|give|go on|hold|install|keep|lay|leave|list|look|lower|make|mask|move|name|open|pad|pass|pip|put|"
    "raise|register|remove|rename|replace|restore|return|round|rewrite|sample|save|say|scale|see|set|shorten|"
    "start|store|take|train|transform|treat|trim|try|unset|upgrade|use|wait|weight|write"
)
REMEDY = re.compile(rf"(?:^|[:;,(] (?:or |and |then )?|\(| or | and )(?:{VERBS})\b(?![\w-]|\(\))")


class Case(NamedTuple):
    """A message and its remedy.

    Attributes
    ----------
    wrong : callable
        What raises it.
    says : str
        The remedy, as the source of the message has it, around names and numbers.
    right : callable
        The same, after doing what the message says.
    """

    wrong: Callable[[], Any]
    says: str
    right: Callable[[], Any]

    def carried_out(self) -> None:
        with pytest.raises(PplVaeError) as caught:
            self.wrong()
        message = str(caught.value)
        assert self.says in message and "\n" not in message, message
        self.right()


def messages() -> Iterator[tuple[str, str]]:
    """Yield every text of the source that names a remedy, {} for what is filled in, and its place."""
    for folder in ("ppl_vae", "models", "inference"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for line, text in _texts(ast.parse(path.read_text())):
                if len(text.split()) > 2 and REMEDY.search(text):
                    yield f"{path.relative_to(ROOT)}:{line}", text


def _texts(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the texts below a node but for docstrings and help texts of options."""
    if isinstance(node, ast.JoinedStr):
        parts = (one.value if isinstance(one, ast.Constant) else "{}" for one in node.values)
        yield node.lineno, "".join(map(str, parts))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.lineno, node.value
    for child in ast.iter_child_nodes(node):
        documents = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
        of_option = isinstance(child, ast.keyword) and child.arg == "help"
        within = isinstance(node, ast.JoinedStr) and isinstance(child, ast.Constant)
        if not (documents or of_option or within):
            yield from _texts(child)
