"""Plots as SVG inside the page, in its colours: matplotlib's objects, no pyplot; and small lines."""

import io
import re
import warnings

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ppl_vae.report.tags import attribute

BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"  # apart for colour-blind eyes too
DATA, MODEL = BLUE, ORANGE
_INK, _ON_TOP = "#010203", "#010204"  # stand for colours of the page
_HALO = "currentColor; stroke: var(--paper); stroke-width: 3px; paint-order: stroke"
OF_PAGE = {BLUE: "var(--blue)", ORANGE: "var(--orange)", _INK: "currentColor", _ON_TOP: _HALO}
_STYLE = {"svg.fonttype": "none", "svg.hashsalt": "report", "font.family": "sans-serif", "text.color": _INK}
_DROPPED = re.compile(r'<metadata>.*?</metadata>|<style.*?</style>| xmlns(:xlink)?="[^"]*"', re.DOTALL)
_WIDE, _HIGH = 240, 80


def axes(width=5.6, height=3.2) -> tuple[Figure, Axes]:
    """A new figure of so many inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    with rc_context(_STYLE):
        ax = figure.subplots()
    ax.grid(True, alpha=0.25)
    ax.locator_params(axis="x", nbins=7)
    ax.tick_params(which="both", colors=_INK)
    ax.spines[["top", "right"]].set_visible(False)
    for edge in ax.spines.values():
        edge.set_color(_INK)
    return figure, ax


def label(ax: Axes, x: str = "", y: str = "") -> None:
    """Name the axes; a dollar sign in a name is no mathematics."""
    for axis, words in ((ax.xaxis, x), (ax.yaxis, y)):
        axis.set_label_text(words, color=_INK).set_parse_math(False)


def name(ax: Axes, words: str, x: float, y: float) -> None:
    """Write over what is drawn."""
    text = ax.text(x, y, words, color=_ON_TOP, ha="center", va="center", weight="bold")
    text.set_parse_math(False)


def svg(figure: Figure, alt: str) -> str:
    """The figure as an element of the page."""
    out = io.StringIO()
    with warnings.catch_warnings(), rc_context(_STYLE):
        warnings.simplefilter("ignore", UserWarning)  # glyphs that the font lacks
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = _DROPPED.sub("", text[text.index("<svg") :])
    for colour, of_page in OF_PAGE.items():
        text = text.replace(colour, of_page)
    opening, rest = text.split(">", 1)
    view = re.search(r'viewBox="[\d. ]+"', opening)[0]
    return f'<svg role="img" aria-label="{attribute(alt)}" {view}>{rest.strip()}'


def lines(series: dict[str, np.ndarray], low: float, high: float, alt: str) -> str:
    """Rows [D] drawn over each other without axes, by colour, between two values; a NaN is a gap."""
    drawn = "".join(_line(values, colour, low, high) for colour, values in series.items())
    box = f'viewBox="0 0 {_WIDE} {_HIGH}" class="lines"'
    return f'<svg role="img" aria-label="{attribute(alt)}" {box}>{drawn}</svg>'


def _line(values: np.ndarray, colour: str, low: float, high: float) -> str:
    at = np.linspace(4, _WIDE - 4, len(values)) if len(values) > 1 else np.array([_WIDE / 2])
    heights = _HIGH - 4 - (values - low) / (high - low or 1) * (_HIGH - 8)
    ink = OF_PAGE[colour]
    known = np.isfinite(heights)
    runs = np.split(np.arange(len(values)), np.flatnonzero(~known))
    points = [[f"{at[i]:.1f},{heights[i]:.1f}" for i in run if known[i]] for run in runs]
    drawn = "".join(
        f'<polyline points="{" ".join(run)}" fill="none" style="stroke: {ink}"/>'
        for run in points
        if len(run) > 1
    )
    if len(values) <= 40:
        dots = (point.split(",") for run in points for point in run)
        drawn += "".join(f'<circle cx="{x}" cy="{y}" r="2.2" style="fill: {ink}"/>' for x, y in dots)
    return drawn


def limits(*arrays: np.ndarray) -> tuple[float, float]:
    """The lowest and the highest finite value of arrays."""
    values = np.concatenate([finite(values) for values in arrays])
    return (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)


def finite(values) -> np.ndarray:
    """The finite values of an array, flat."""
    values = np.asarray(values, dtype=np.float64).ravel()
    return values[np.isfinite(values)]


def spread(length: int, most: int) -> np.ndarray:
    """At most so many places, evenly spaced, so that a plot stays quick and small."""
    return np.arange(length) if length <= most else np.linspace(0, length - 1, most).astype(int)
