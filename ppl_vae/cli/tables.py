"""A verb's result as a person reads it: measured numbers with errors and units, then the facts."""

import sys
from collections.abc import Mapping
from typing import Any

from ppl_vae import bars
from ppl_vae.diagnostics.measures import is_shown, measures
from ppl_vae.summaries import number, readable, shape_text

# Told in the title, or of no use to a reader.
_TITLE = ("program", "data", "backend", "split", "elbo_split", "n")
_MACHINE = ("k", "seed", "data_sha256", "iw_note", "perplexity_batch", "perplexity_per_batch")
_WIDEST = 30  # columns of a name


def show(result: Mapping[str, Any], stream: Any = None) -> None:
    """Print a result on a terminal."""
    from rich.table import Table
    from rich.text import Text

    console = bars.console(stream or sys.stdout)
    if head := title(result):
        console.print(Text(readable(head), "bold"), soft_wrap=True)
    rows = measures(result)
    if rows:
        table = Table.grid(padding=(0, 2, 0, 0))
        for number_column in (False, True, True, False):  # a number is never cut
            table.add_column(no_wrap=number_column)
        for name, value, error, unit in rows:
            table.add_row(Text(readable(f"  {name}")), Text(value, "bold"), Text(error), Text(unit, "dim"))
        console.print(table)
    rest = facts(result)
    width = min(max((len(name) for name, _ in rest), default=0), _WIDEST)
    for name, value in rest:  # a terminal breaks what is too long, so that a path is copied whole
        cells = (readable(f"  {name:<{width}}"), "dim"), "  ", readable(value)
        console.print(Text.assemble(*cells), soft_wrap=True)


def title(result: Mapping[str, Any]) -> str:
    """Return what a result is of: program, data, backend, rows."""
    if not isinstance(result.get("program"), str):
        return ""
    on = f" on {result['data']}" if isinstance(result.get("data"), str) else ""
    split = result.get("split") or result.get("elbo_split")
    kind = f"{split} rows" if split else "rows"
    of = f", {result['n']:,} {kind}" if isinstance(result.get("n"), int) and result["n"] else ""
    return f"{result['program']}{on} ({result['backend']}){of}" if "backend" in result else result["program"]


def facts(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what else a result tells, by name; files last."""
    left_out = _MACHINE + (_TITLE if title(result) else ())
    lines = []
    for key, value in result.items():
        if key not in left_out and not is_shown(key):
            lines += _lines(key.replace("_", " "), value)
    return lines


def _lines(name: str, value: Any) -> list[tuple[str, str]]:
    if value in (None, "", {}, []):
        return []
    if name == "seconds":
        return [("time", f"{value:.1f} s")]
    if name in ("arrays", "shapes"):
        return [(f"{name[:-1]} of {key}", shape_text(shape)) for key, shape in value.items()]
    if isinstance(value, Mapping):
        return [line for key, one in value.items() for line in _lines(f"{name}.{key}", one)]
    if isinstance(value, (list, tuple)):
        if any(isinstance(one, Mapping) for one in value):
            return [line for i, one in enumerate(value) for line in _lines(f"{name}.{i}", one)]
        return [(name, ", ".join(map(str, value)))]
    if isinstance(value, float):
        return [(name, number(value))]
    return [(name, str(value))]
