"""Data sets by name: list what there is, fetch one, or tell about one (or about a file).

$ ppl-vae data list
$ ppl-vae data fetch mnist
$ ppl-vae data info my_table.csv --label species
"""

from argparse import SUPPRESS
from contextlib import suppress
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import data
from ppl_vae.cli import arguments
from ppl_vae.cli.running import hint, say
from ppl_vae.cli.training import TABLE
from ppl_vae.data.delimited import Layout
from ppl_vae.data.files import TABLES
from ppl_vae.data.tables import told
from ppl_vae.errors import DataError, UsageError

ACTIONS = ("list", "fetch", "info")


def parser() -> ArgumentParser:
    """Return the options."""
    parser = arguments.new(__doc__, "data")
    parser.add_argument("action", nargs="?", type=str, default=SUPPRESS, help="list, fetch or info")
    parser.add_argument(
        "names", nargs="*", type=str, default=SUPPRESS, help="names of data sets; of info also a path"
    )
    arguments.offline(parser)
    arguments.table(parser)
    return parser


def main(options: Any) -> dict[str, Any]:
    """Do what is asked for each name."""
    action, names = options.get("action"), options.get("names") or []
    if action not in ACTIONS:
        raise UsageError(f"say what to do: ppl-vae data {'|'.join(ACTIONS)}{hint(action or '', ACTIONS)}")
    if action == "list":
        return _listed()
    if not names:
        raise UsageError(f"name a data set: ppl-vae data {action} NAME (ppl-vae data list shows them)")
    if action == "fetch":
        return {"fetched": [data.fetch(name, offline=options.offline) for name in names]}
    described = [_described(name, options) for name in names]
    return described[0] if len(described) == 1 else {"data": described}


def _described(name: str, options: Any) -> dict[str, Any]:
    """Return what a data set was understood to be; names of columns are cut short. What its columns hold
    comes first where they cannot be taken as they are.
    """
    try:
        loaded = data.load(
            name, offline=options.offline, quiet=True, **{part: options[part] for part in TABLE}
        )
    except (DataError, UsageError):
        _tell_columns(Path(name), Layout(options.delimiter, options.decimal, options.header))
        raise
    coords = {field: names[:20] for field, names in loaded.coords.items()}
    about = {"coords": coords, "row_labels": bool(loaded.labels), "notes": loaded.notes}
    return loaded.describe() | about | {"text": "\n".join(_words(loaded))}


def _tell_columns(path: Path, layout: Layout) -> None:
    if path.suffix.lower() not in TABLES or not path.is_file():
        return
    with suppress(DataError, UsageError, OSError):
        say("\n".join([f"{path} has the columns", *(f"  {line}" for line in told(path, layout))]))


def _words(loaded: data.Data) -> list[str]:
    """Return what was understood, in words, and how to change it."""
    rows = ", ".join(f"{loaded.num_rows(split)} {split}" for split in loaded.splits)
    lines = [f"{loaded.name}: {rows} ({loaded.split_rule})"]
    for field in loaded.fields:
        shape = "x".join(map(str, loaded.shape(field))) or "one number"
        named = loaded.coords.get(field, [])
        shown = f": {', '.join(named[:8])}{' ...' if len(named) > 8 else ''}" if named else ""
        what = f", {loaded.kind}" if field == "x" else ""
        lines.append(f"  {field}{what}, {shape} per row{shown}")
    if loaded.labels:
        lines.append(f"  names of rows: {', '.join(next(iter(loaded.labels.values()))[:3])} ...")
    lines += [f"  {note}" for note in loaded.notes]
    return [*lines, "  change it with --x --label --batch --index --ignore --mask (train takes --kind too)"]


def _listed() -> dict[str, Any]:
    rows = data.catalogue()
    lines = [
        f"{row['name']:<14} {row['kind']:<7} {'x'.join(map(str, row['shape'])):<9} {row['where']}"
        for row in rows
    ]
    return {"data": rows, "text": "\n".join(lines)}
