"""`main`: which verb, and its help; nothing here loads a backend."""

import ast
import importlib
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import ppl_vae
from ppl_vae.cli import running
from ppl_vae.summaries import readable

# Beside the scripts of inference/: what looks after files and installation.
TOOLS = ("copy", "data", "doctor", "list")
_FIRST = (
    "train",
    "evaluate",
    "sample",
    "reconstruct",
    "encode",
    "decode",
    "log_prob",
    "posterior",
    "export",
    "check",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ppl-vae` and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The words after `ppl-vae`; by default those of the process.
    """
    words = running.debugged(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help", "help"):
        return running.guarded(
            "", lambda: print(overview(), file=sys.stdout if words else sys.stderr)
        ) or 2 * (not words)
    if words[0] in ("-V", "--version"):
        return running.guarded("", lambda: print(f"ppl-vae {ppl_vae.__version__}"))
    return running.guarded("", lambda: _run(words[0], words[1:]))


def overview() -> str:
    """Return the page of `ppl-vae --help`: each verb with the first line of its file."""
    files = {name: Path(__file__).with_name(f"tool_{name}.py") for name in TOOLS} | _scripts()
    names = [*(name for name in _FIRST if name in files), *sorted(set(files) - set(_FIRST))]
    rows = "\n".join(f"  {name:<12} {_summary(files[name])}" for name in names)
    return (
        "usage: ppl-vae VERB ...      (ppl-vae VERB --help tells the options)\n\n"
        f"Variational autoencoders as probabilistic programs.\n\n{rows}\n\n"
        "A file inference/NAME.py of the working folder is a verb too.\n"
        "With --debug, an error shows its traceback.\n"
        "The result is a table on a terminal; elsewhere, or with --json, JSON on the last line of stdout.\n"
        "Everything else goes to stderr."
    )


def _scripts() -> dict[str, Path]:
    from ppl_vae import gallery

    return {name: gallery.script(name) for name in gallery.scripts()}


def _summary(path: Path) -> str:
    try:
        return readable((ast.get_docstring(ast.parse(path.read_bytes())) or "").partition("\n")[0])
    except (OSError, SyntaxError, ValueError):
        return "(cannot be read)"


def _run(verb: str, words: list[str]) -> int:
    from ppl_vae import gallery
    from ppl_vae.errors import UsageError

    if verb in TOOLS:
        tool = importlib.import_module(f"ppl_vae.cli.tool_{verb}")
        return running.run(verb, tool.parser, tool.main, words)
    if verb.startswith("-"):
        raise UsageError(f"unknown option {verb}: see ppl-vae --help")
    name = verb.replace("-", "_")
    known = gallery.scripts()
    if name not in known:
        raise UsageError(
            f"unknown verb {verb!r}{running.hint(name, [*known, *TOOLS], ': see ppl-vae --help')}"
        )
    path, before = gallery.script(name), sys.argv
    try:
        sys.argv = [str(path), *words]
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.argv = before
    return 0
