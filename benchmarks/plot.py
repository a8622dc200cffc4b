"""Draw how the cost of a step grows, from the committed numbers.

    python benchmarks/plot.py --out docs/growth.svg

The same numbers give the same file, byte by byte.
"""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot as plt

ROOT = Path(__file__).resolve().parent.parent
STYLES = {
    "declared, compiled": {"color": "#c0392b", "marker": "o", "linestyle": "-"},
    "declared": {"color": "#c0392b", "marker": "o", "linestyle": ":"},
    "by hand, compiled": {"color": "#2c3e50", "marker": "s", "linestyle": "-"},
    "by hand": {"color": "#2c3e50", "marker": "s", "linestyle": ":"},
    "SVI.step": {"color": "#7f8c8d", "marker": "^", "linestyle": "--"},
}
TITLES = {
    "latents": "Top-down VAE: number of latents",
    "batch": "VAE 784-400-20: rows per batch",
    "width": "VAE 784-W-20, batch 128: width W",
}
LABELS = {"SVI.step": "Pyro's SVI.step"}


def curve(results: Sequence[Mapping[str, Any]], grows: str, name: str) -> dict[str, list[float]]:
    """Return the points of one contender in one sweep: value, median, lower and upper quartile."""
    points = sorted((one for one in results if one["grows"] == grows), key=lambda one: one["value"])
    numbers = [one["contenders"][name] for one in points]
    return {
        "value": [one["value"] for one in points],
        "median": [one["median"] for one in numbers],
        "lower": [one["quartiles"][0] for one in numbers],
        "upper": [one["quartiles"][1] for one in numbers],
    }


def drawn(results: Sequence[Mapping[str, Any]]) -> Any:
    """Return a figure with one panel a sweep."""
    sweeps = list(dict.fromkeys(one["grows"] for one in results))
    figure, panels = plt.subplots(1, len(sweeps), figsize=(4 * len(sweeps), 3.6), squeeze=False)
    for grows, panel in zip(sweeps, panels[0], strict=True):
        for name, style in STYLES.items():
            points = curve(results, grows, name)
            label = LABELS.get(name, name)
            panel.plot(points["value"], points["median"], label=label, markersize=4, **style)
            panel.fill_between(
                points["value"], points["lower"], points["upper"], color=style["color"], alpha=0.15
            )
        panel.set(title=TITLES.get(grows, grows), ylabel="ms per step", xscale="log", yscale="log")
        panel.set_xticks(points["value"], [str(value) for value in points["value"]])
        panel.minorticks_off()
    panels[0, 0].legend(fontsize=8)
    figure.tight_layout()
    return figure


def main(argv: Sequence[str] | None = None) -> None:
    """Write the drawing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results" / "growth.json")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "growth.svg")
    options = parser.parse_args(argv)
    results = json.loads(options.results.read_text())["results"]
    staged = options.out.with_name(options.out.name + ".new")
    # Names within the file come from a salt, and it bears no date.
    with plt.rc_context({"svg.hashsalt": "growth", "svg.fonttype": "none"}):
        figure = drawn(results)
        figure.savefig(staged, format="svg", metadata={"Date": None})
        plt.close(figure)
    os.replace(staged, options.out)


if __name__ == "__main__":
    main()
