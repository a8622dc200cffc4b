"""Data sets by name: list what there is, fetch one, or tell about one (or about a file).

$ ppl-vae data list
$ ppl-vae data fetch mnist
$ ppl-vae data info my_table.csv
"""

from argparse import SUPPRESS
from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import data
from ppl_vae.cli import arguments
from ppl_vae.cli.running import hint, say
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
    described = [data.load(name, offline=options.offline).describe() for name in names]
    return described[0] if len(described) == 1 else {"data": described}


def _listed() -> dict[str, Any]:
    rows = data.catalogue()
    for row in rows:
        say(f"{row['name']:<14} {row['kind']:<7} {'x'.join(map(str, row['shape'])):<9} {row['where']}")
    return {"data": rows}
