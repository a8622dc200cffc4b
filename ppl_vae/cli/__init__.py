"""The command line: `ppl-vae NAME ...` runs `inference/NAME.py`, or one of the tools of the package.

Results are a table on a terminal; elsewhere, or with --json, one JSON object on the last line of stdout.
Everything else goes to stderr.
Exit codes: 0 it worked, 1 it failed, 2 an impossible request, 130 Ctrl-C, 143 SIGTERM.
"""

from ppl_vae.cli.main import main
from ppl_vae.cli.running import script

__all__ = ["main", "script"]
