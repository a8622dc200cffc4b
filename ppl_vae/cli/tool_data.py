"""Data sets by name: list what there is, fetch one, or tell about one (or about a file).

$ ppl-vae data list
$ ppl-vae data fetch mnist
$ ppl-vae data info my_table.csv --label species
"""

from argparse import SUPPRESS
from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import data
from ppl_vae.cli import arguments
from ppl_vae.cli.running import hint
from ppl_vae.cli.training import TABLE
from ppl_vae.errors import UsageError

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
    """Return what a data set was understood to be; names of columns are cut short."""
    loaded = data.load(name, offline=options.offline, **{part: options[part] for part in TABLE})
    coords = {field: names[:20] for field, names in loaded.coords.items()}
    return loaded.describe() | {"coords": coords, "row_labels": bool(loaded.labels), "notes": loaded.notes}


def _listed() -> dict[str, Any]:
    rows = data.catalogue()
    lines = [
        f"{row['name']:<14} {row['kind']:<7} {'x'.join(map(str, row['shape'])):<9} {row['where']}"
        for row in rows
    ]
    return {"data": rows, "text": "\n".join(lines)}
