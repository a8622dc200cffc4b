"""Copy a model, script or recipe of the gallery, to be edited.

$ ppl-vae copy vae my.py
$ ppl-vae train my.py --data digits
"""

from argparse import SUPPRESS
from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import gallery
from ppl_vae.cli import arguments
from ppl_vae.errors import UsageError


def parser() -> ArgumentParser:
    """Return the options."""
    parser = arguments.new(__doc__, "copy")
    parser.add_argument("name", nargs="?", type=str, default=SUPPRESS, help="a name of ppl-vae list")
    parser.add_argument(
        "dest", nargs="?", type=str, default=".", help="a folder, or the name of the new file"
    )
    return parser


def main(options: Any) -> dict[str, Any]:
    """Copy the file; nothing is overwritten."""
    if options.get("name") is None:
        raise UsageError("say what to copy: ppl-vae copy NAME DEST")
    return {"name": options.name, "path": str(gallery.copy(options.name, options.dest))}
