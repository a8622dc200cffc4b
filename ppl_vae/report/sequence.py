"""Sequences [N, T, D]: each channel over the steps, data against samples, and rows as lines."""

from collections.abc import Mapping

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags, vector
from ppl_vae.report.contents import Contents, Row

_CHANNELS = 3
_ROWS = 8
_STEPS = 300


def are(x) -> bool:
    """Tell sequences from rows that are one line."""
    return np.ndim(x) == 3 and np.shape(x)[1] > 1


def samples(x, data, about: Contents) -> str:
    """Mean and range of each channel at each step, data against samples, and the first samples as lines."""
    sets = {"data": data, "samples": x}
    sets = {name: np.asarray(values, np.float64) for name, values in sets.items() if values is not None}
    if any(not values.size for values in sets.values()):
        raise DataError("there are no rows to show")
    shown = []
    for channel in _channels(x):
        at = plots.spread(np.shape(x)[1], _STEPS)
        one = {name: values[:, at, channel] for name, values in sets.items()}
        figure, ax = plots.axes(height=2.6)
        for name, values in one.items():
            vector.draw_range(ax, name, values, at, banded=True)
        plots.label(ax, "step", _called(channel))
        words = f"Mean and 5 to 95 % range of {_called(channel)} at each step: {' against '.join(one)}"
        drawn = plots.svg(figure, f"{words}; {vector.summarise(one)}")
        shown.append(tags.figure(drawn, words + ".", {name: vector.LEGEND[name] for name in one}))
    names = {f"Sample {i}": row for i, row in enumerate(np.asarray(x)[:_ROWS])}
    tiles = (tags.figure(_lines({plots.MODEL: row}, name), name) for name, row in names.items())
    return tags.side_by_side(*shown) + tags.tiles(*tiles) + _note(x)


def reconstructions(x, data, about: Contents) -> str:
    """Rows over their reconstructions, channel by channel, and all values against each other."""
    x, data = np.asarray(x), np.asarray(data)
    if x.shape != data.shape:
        raise DataError(f"originals {data.shape} and reconstructions {x.shape} have different shapes")
    rows = [Row(i, 0.0, original=data[i], reconstruction=x[i]) for i in range(min(_ROWS, len(x)))]
    tiles = tags.tiles(*(tags.figure(pair(row, about), f"Row {row.number}") for row in rows))
    return tags.figure(tiles + _note(x), "", vector.PAIR) + vector.parity(vector.rows(x), vector.rows(data))


def pair(row: Row, about: Contents) -> str:
    """A row over its reconstruction: lines over the steps, a picture a channel."""
    both = {plots.DATA: row.original, plots.MODEL: row.reconstruction}
    series = {colour: values for colour, values in both.items() if values is not None}
    return _lines(series, f"Row {row.number} and its reconstruction")


def _lines(series: Mapping[str, np.ndarray], name: str) -> str:
    """Sequences [T, D] by colour, a picture a channel."""
    drawn = []
    for channel in _channels(next(iter(series.values()), np.zeros((0, 0)))):
        held = {colour: np.asarray(x, np.float64)[:, channel] for colour, x in series.items()}
        held = {colour: values[plots.spread(len(values), _STEPS)] for colour, values in held.items()}
        ends = plots.limits(*held.values())
        drawn.append(plots.lines(held, *ends, f"{name}, {_called(channel)}"))
    return "".join(drawn)


def _channels(x) -> np.ndarray:
    return plots.spread(np.shape(x)[-1], _CHANNELS)


def _called(channel: int) -> str:
    return f"channel {channel}"


def _note(x) -> str:
    steps, wide = np.shape(x)[-2:]
    at = ", ".join(map(str, _channels(x)))
    which = f"channels {at} of {wide}, one above the other" if wide > 1 else "the only channel"
    return tags.note(f"From left to right: {steps:,} steps; {which}.")
