"""Write the tables of README and docs from the committed numbers of benchmarks and recipes.

python benchmarks/tables.py
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import speed_table
import table

ROOT = Path(__file__).resolve().parent.parent
PAGES = ("README.md", "docs/results.md", "docs/speed.md")
MADE: Mapping[str, Callable[[], str]] = {
    "first results": table.short,
    "results": table.table,
    "speed": speed_table.table,
    "gpu": speed_table.gpu,
    "formats": speed_table.formats,
    "profiles": speed_table.profiles,
}


def filled(text: str) -> str:
    """Return a page with its tables, from `<!-- made: NAME -->` to `<!-- end -->`, made anew."""
    return re.sub(
        r"(?<=<!-- made: )([\w ]+)( -->\n).*?(?=<!-- end -->)",
        lambda block: f"{block[1]}{block[2]}{MADE[block[1]]()}",
        text,
        flags=re.S,
    )


def main() -> None:
    """Write the pages."""
    for page in PAGES:
        path = ROOT / page
        path.write_text(filled(path.read_text()))


if __name__ == "__main__":
    main()
