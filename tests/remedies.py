"""Messages that name a remedy: all of them, as the source has them, and one that is carried out."""

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ppl_vae import Program, fit
from ppl_vae.errors import PplVaeError

ROOT = Path(__file__).parent.parent
# A remedy begins with one of these, at the start of a text or behind a mark.
VERBS = (
    "add|ask for|bound|call|check|choose|convert|copy|correct|crop|declare|divide|draw|drop|end|fill|flatten|"
    "free|freeze|give|go on|hold|install|keep|lay|leave|list|look|lower|make|mask|move|name|open|pad|pass|"
    "pip|put|raise|register|remove|rename|replace|restore|return|round|rewrite|sample|save|say|scale|see|set|"
    "shorten|start|store|take|train|transform|treat|trim|try|unset|upgrade|use|wait|weight|write"
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
            if path.name == "arguments.py":  # help texts
                continue
            for line, text in _texts(ast.parse(path.read_text())):
                if len(text.split()) > 2 and "\n" not in text and REMEDY.search(text):
                    yield f"{path.relative_to(ROOT)}:{line}", text


def told_by(text: str, says: str) -> bool:
    """Tell whether what a case says is part of a message that a text of the source becomes, or holds it."""
    pieces = text.strip(" ,").split("{}")
    if any(says in piece for piece in text.split("{}")) or re.search(".*".join(map(re.escape, pieces)), says):
        return True
    for first, last in combinations(range(len(pieces)), 2):
        begins = _overlap(pieces[first], says)
        ends = _overlap(pieces[last][::-1], says[::-1])[::-1]
        pattern = ".*".join(map(re.escape, (begins, *pieces[first + 1 : last], ends)))
        if len(begins + ends) > 5 and re.fullmatch(pattern, says):
            return True
    return False


def _overlap(first: str, then: str) -> str:
    """Return the longest end of a text with which another one begins."""
    sizes = range(min(len(first), len(then)), 0, -1)
    return next((then[:size] for size in sizes if first.endswith(then[:size])), "")


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


X = np.random.default_rng(0).normal(size=(20, 2)).astype("f")
GAPS = np.where(np.arange(40).reshape(20, 2) % 7 == 0, np.nan, X)
SMALL = {"hidden": (4,), "z_dim": 2}


@dataclass(frozen=True)
class Toy(Program):
    """A row of two numbers around a latent; `fault` is what is wrong with it, "" nothing."""

    x_shape: tuple | None = None
    fault: str = ""

    def networks(self, nn):
        return {"w": nn.MLP(2, (4,), 3), "c": nn.Embedding(3, 2)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            k = ppl.sample("k", ppl.dist.Categorical(ppl.array([0.2, 0.3, 0.5])))
            ppl.sample("x", ppl.dist.Normal(net.c(k), 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            enumerated = {"enumerate": "parallel"} if self.fault == "enumerated" else {}
            ppl.sample("k", ppl.dist.Categorical(logits=net.w(x)), infer=enumerated)


@dataclass(frozen=True)
class Normal(Program):
    """A latent as wide as the row; `fault` is what is wrong with it, "" nothing."""

    x_shape: tuple | None = None
    fault: str = ""

    def networks(self, nn):
        return {"w": nn.MLP(2, (4,), 2)}

    def schedules(self):
        wrong = {"list": [1.0], "lr": {"lr": 0.1}, "plateau": {"t": "plateau:1:0.5:10"}}
        return wrong.get(self.fault, {"t": 0.5})

    def further(self, ppl):
        """Draw two numbers of a row in a plate of their own, or as one event."""
        if self.fault == "plate":
            with ppl.plate("columns", 2, dim=-2):
                ppl.sample("v", ppl.dist.Normal(ppl.array(0.0), 1.0))
        if self.fault == "event":
            ppl.sample("v", ppl.dist.Normal(ppl.array([0.0, 0.0]), 1.0).to_event(1))

    def model(self, ppl, net, x=None):
        if self.fault == "global":
            ppl.sample("g", ppl.dist.Normal(ppl.array(0.0), 1.0))
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            if self.fault == "model":
                ppl.sample("y", ppl.dist.Normal(z[..., 0], 1.0))
            self.further(ppl)
            ppl.sample("x", ppl.dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        if self.fault == "global":
            ppl.sample("g", ppl.dist.Normal(ppl.array(0.1), 1.0))
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.dist.Normal(net.w(x), 1.0).to_event(self.fault != "axes"))
            if self.fault == "guide":
                ppl.sample("y", ppl.dist.Normal(z[..., 0], 1.0))
            self.further(ppl)


@dataclass(frozen=True)
class Masked(Normal):
    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            seen = ppl.dist.Normal(z, 0.5)
            ppl.sample("x", (seen if mask is None else seen.mask(mask)).to_event(1), obs=x)

    def guide(self, ppl, net, x, mask=None):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.w(x), 1.0).to_event(1))


def short(program, found=X, objective=None, **options):
    return fit(program, found, objective, **{"max_steps": 1, "batch_size": 10} | options)


def trained(fault=""):
    return short(Normal(fault=fault))
