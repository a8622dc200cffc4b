"""Plots as PNG bytes, by matplotlib's objects: no pyplot, no global state."""

import io
import warnings

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#777777"  # apart for colour-blind eyes too
DATA, MODEL = BLUE, ORANGE
DPI = 110


def axes(rows=1, columns=1, width=5.2, height=3.2) -> tuple[Figure, list[Axes]]:
    """A new figure with `rows x columns` axes, each `width x height` inches."""
    figure = Figure(figsize=(width * columns, height * rows), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for ax in grid:
        ax.grid(True, alpha=0.25)
        ax.spines[["top", "right"]].set_visible(False)
    return figure, grid


def label(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Name the axes; a dollar sign in a name is no mathematics."""
    for set_text, words in ((ax.set_title, title), (ax.set_xlabel, x), (ax.set_ylabel, y)):
        set_text(words).set_parse_math(False)


def legend(ax: Axes) -> None:
    """A legend, where a line has a name."""
    if ax.get_legend_handles_labels()[1]:
        for words in ax.legend(frameon=False).get_texts():
            words.set_parse_math(False)


def png(figure: Figure) -> bytes:
    """The figure as a PNG file."""
    out = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # glyphs that the font lacks
        figure.savefig(out, format="png", metadata={"Software": None})
    return out.getvalue()


def finite(values) -> np.ndarray:
    """The finite values of an array, flat."""
    values = np.asarray(values, dtype=np.float64).ravel()
    return values[np.isfinite(values)]


def thin(values: np.ndarray, most: int) -> np.ndarray:
    """At most so many rows, evenly spaced, so that a plot stays quick and small."""
    if len(values) <= most:
        return values
    return values[np.linspace(0, len(values) - 1, most).astype(int)]
