"""Errors of a user's own code, in one line: whose, in which file and line, at which site, on what shapes."""

import ast
import linecache
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppl_vae.errors import DataError, PplVaeError, ProgramError, RunError, UsageError

_LIBRARIES = (str(Path(__file__).parent), *{sysconfig.get_path(n) for n in ("stdlib", "purelib", "platlib")})
MOST = 300  # characters of what an error says
_SHOWN = ("<ipython-input", "<stdin>")  # code without a file that a person wrote
_SITES = ("sample", "deterministic", "factor")
_NETWORK = "_ppl_vae_network"


class Fault(ProgramError):
    """An error that a program's own code raised; its cause is that error.

    Parameters
    ----------
    who : str
        "the model", "the guide", "the method networks", "the objective Loss" ...
    error : Exception
    reason : str or None
        What the library says, put into words.
    """

    def __init__(self, who: str, error: BaseException, reason: str | None = None):
        network, inputs = getattr(error, _NETWORK, (None, ""))
        owner = f"network {network!r} (called by {who})" if network else who
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
        at = f" in {Path(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
        site = next(filter(None, map(_site, reversed(frames))), None)
        at += (f", at site {site}" if site else "") + (f", on {inputs}" if inputs else "")
        super().__init__(f"{owner} fails{at}: {reason or said(error)}")


@contextmanager
def told(who: str, reason: Callable[[BaseException], str | None] = lambda error: None) -> Iterator[None]:
    """Turn what a user's code raises into a Fault; errors of usage, data and runs stay what they are.

    Parameters
    ----------
    who : str
    reason : callable, optional
        Puts a library's error into words; None where it has none.
    """
    try:
        yield
    except (Fault, UsageError, DataError, RunError):
        raise
    except Exception as error:
        if type(error).__name__ == "NonlocalExit":  # how Pyro enumerates: no error
            raise
        raise Fault(who, error, reason(error)) from error


def note_network(error: BaseException, name: str, inputs: Iterable[Any]) -> None:
    """Note on an error in which network it arose, and the shapes of what that was called with."""
    setattr(error, _NETWORK, (name, ", ".join(filter(None, map(_shape, inputs)))))


def cause_of(error: BaseException) -> BaseException:
    """Return the error of a Fault as it was raised, or any other as it is."""
    return error.__cause__ if isinstance(error, Fault) and error.__cause__ else error


def said(error: BaseException) -> str:
    """Return what an error says, in one line."""
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines)
    if len(text) > MOST:
        # What a library lists behind a colon belongs to the line.
        text = " ".join(lines[: 2 if lines[0].endswith(":") and len(lines) > 1 else 1])
        text = text if len(text) <= MOST else f"{text[:MOST]} ..."
    return text if isinstance(error, PplVaeError) else ": ".join(filter(None, [type(error).__name__, text]))


def _is_users(name: str) -> bool:
    if name.startswith("<"):
        return name.startswith(_SHOWN)
    return not name.startswith(_LIBRARIES) and "site-packages" not in name


def _site(frame: traceback.FrameSummary) -> str | None:
    """Return the name, as it is written, of the site in whose statement a frame is."""
    try:
        tree = ast.parse("".join(linecache.getlines(frame.filename)))
    except (SyntaxError, ValueError):
        return None
    here, found = (frame.lineno, frame.colno or 0), None
    for node in ast.walk(tree):  # from the outside in
        if not isinstance(node, ast.Call) or not node.args:
            continue
        begins, ends = (node.lineno, node.col_offset), (node.end_lineno, node.end_col_offset)
        name = getattr(node.func, "attr", getattr(node.func, "id", None))
        if name in _SITES and begins <= here <= ends:
            found = ast.unparse(node.args[0])
    return found


def _shape(value: Any) -> str:
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_shape, value))})"
    if isinstance(value, Mapping):
        return _shape(list(value.values()))
    shape = getattr(value, "shape", None)
    if shape is None:
        return ""
    kind = str(value.dtype).removeprefix("torch.")
    return str(list(map(str, shape))).replace("'", "") + (f" {kind}" if kind != "float32" else "")
