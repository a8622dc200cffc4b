"""The tables of speed, from the committed numbers of the benchmarks."""

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


def cell(name: str, result: Mapping[str, Any]) -> str:
    """Return who measured what."""
    told = f"{name}: {number(result['contenders'][name]['median'])} {result['unit'].partition(' but')[0]}"
    whole = result.get("whole_seconds")
    return told if whole is None else f"{told} (in all {number(whole[name]['median'])} s)"


def rows(result: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield a row for every ratio or limit of a workload."""
    for one in result["comparisons"]:
        low, high = one["ratio_quartiles"]
        ours, peer = (cell(one[role], result) for role in ("ours", "peer"))
        ratio = f"**{one['ratio']:.2f}** ({low:.2f} to {high:.2f})"
        yield result["workload"], ours, peer, ratio, f"{one['target']:.2f}", yes(one["reached"])
    for one in result.get("limits", ()):
        value = f"{number(one['median'])} s"
        yield f"`{one['what']}`", value, "", "", f"{one['target']:.1f} s", yes(one["reached"])


def yes(reached: bool) -> str:
    """Return the word for a target that is reached or not."""
    return "yes" if reached else "no"


def table(folder: Path = RESULTS, files: Sequence[str] = FILES) -> str:
    """Return the table in Markdown, with the rows of every file that is there."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name in files:
        path = folder / f"{name}.json"
        if path.exists():
            content = json.loads(path.read_text())
            lines += [f"| {' | '.join(one)} |" for result in content["results"] for one in rows(result)]
    return "\n".join(lines) + "\n"


def gpu(folder: Path = RESULTS) -> str:
    """Return the table of steps on a GPU in Markdown."""
    return table(folder, ("gpu",))


def formats(folder: Path = RESULTS) -> str:
    """Return the table of precisions and memory formats in Markdown, the quickest of a recipe in bold."""
    results = json.loads((folder / "formats.json").read_text())["results"]
    names = list(dict.fromkeys(name for result in results for name in result["contenders"]))
    lines = [f"| ms per step | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for result in results:
        took = {name: number(found["median"]) for name, found in result["contenders"].items()}
        took[result["quickest"]] = f"**{took[result['quickest']]}**"
        lines.append(f"| `{result['workload']}` | {' | '.join(took.get(name, '') for name in names)} |")
    return "\n".join(lines) + "\n"


def profiles(folder: Path = RESULTS) -> str:
    """Return the table of where a step's time goes in Markdown."""
    results = json.loads((folder / "profiles.json").read_text())["results"]
    names = list(next(iter(results[0]["contenders"].values()))["parts"])
    lines = [f"| ms per step | | {' | '.join(names)} | all |", "|---" * (len(names) + 3) + "|"]
    for result in results:
        for name, found in result["contenders"].items():
            cells = [number(value) for value in (*found["parts"].values(), found["median"])]
            lines.append(f"| {result['workload']} | {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
