"""Print the README's table of speed from the committed numbers of the benchmarks.

python benchmarks/speed_table.py
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"
FILES = ("steps", "epochs", "deep", "codes", "jax_steps", "process", "evaluation", "memory")
COLUMNS = ("workload", "ours", "peer", "ours / peer", "at most", "reached")


def number(value: float) -> str:
    """Return three digits of a measurement."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def cell(name: str, numbers: Mapping[str, Any], unit: str) -> str:
    """Return who measured what."""
    return f"{name}: {number(numbers['median'])} {unit.partition(' but')[0]}"


def rows(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row for every ratio or limit of a workload."""
    found, unit = result["contenders"], result["unit"]
    for one in result["comparisons"]:
        low, high = one["ratio_quartiles"]
        ours, peer = (cell(one[role], found[one[role]], unit) for role in ("ours", "peer"))
        ratio = f"**{one['ratio']:.2f}** ({low:.2f} to {high:.2f})"
        yield result["workload"], ours, peer, ratio, f"{one['target']:.2f}", yes(one["reached"])
    for one in result.get("limits", ()):
        value = f"{number(one['median'])} s"
        yield f"`{one['what']}`", value, "", "", f"{one['target']:.1f} s", yes(one["reached"])


def yes(reached: bool) -> str:
    """Return the word for a target that is reached or not."""
    return "yes" if reached else "no"


def table(folder: Path = RESULTS) -> str:
    """Return the table in Markdown, with the rows of every file that is there."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name in FILES:
        path = folder / f"{name}.json"
        if path.exists():
            content = json.loads(path.read_text())
            lines += [f"| {' | '.join(one)} |" for result in content["results"] for one in rows(result)]
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the JSON files")
    print(table(parser.parse_args(argv).results), end="")


if __name__ == "__main__":
    main()
