"""Counts [N, D]: how often each count occurs, and how the variance grows with the mean."""

from dataclasses import replace

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags, vector
from ppl_vae.report.contents import Contents, Row
from ppl_vae.report.vector import LEGEND, PAIR, colour, parity, rows, summarise

_COLUMNS = 1500
_ROWS = 8


def samples(x, data, about: Contents) -> str:
    """Histogram on a log(1 + count) axis and mean against variance a column, data against samples."""
    sets = {"data": rows(data), "samples": rows(x)}
    sets = {name: values for name, values in sets.items() if values is not None}
    for values in sets.values():
        _refuse_broken(values)
    return tags.side_by_side(_histogram(sets), _mean_variance(sets))


def reconstructions(x, data, about: Contents) -> str:
    """Rows over their reconstructed rates, and all of them against each other, on log(1 + count) axes."""
    x, data = rows(x), rows(data)
    _refuse_broken(data)
    shown = [Row(i, 0.0, original=data[i], reconstruction=x[i]) for i in range(min(_ROWS, len(x)))]
    drawn = tags.tiles(*(tags.figure(pair(row, about), f"Row {row.number}") for row in shown))
    return tags.figure(drawn, "On a log(1 + count) axis.", PAIR) + parity(x, data, _log1p, "log(1 + count)")


def pair(row: Row, about: Contents) -> str:
    """A row over its reconstruction, on a log(1 + count) axis."""
    both = (row.original, row.reconstruction)
    original, made = (None if one is None else _log1p(np.asarray(one, np.float64)) for one in both)
    return vector.pair(replace(row, original=original, reconstruction=made), replace(about, originals=None))


def _refuse_broken(values: np.ndarray) -> None:
    if np.isinf(values).any() or (values < 0).any() or np.isnan(values).all():
        raise DataError("counts are negative or not finite: look for the step where training diverged")


def _log1p(values: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(values, 0))


def _histogram(sets: dict[str, np.ndarray]) -> str:
    figure, ax = plots.axes()
    sets = {name: plots.finite(values) for name, values in sets.items()}
    top = np.log1p(max(values.max() for values in sets.values()))
    bins = np.linspace(0, max(top, 0.1), 40)
    for name, values in sets.items():
        ax.hist(np.log1p(values), bins=bins, density=True, alpha=0.5, color=colour(name))
    ax.set_yscale("log")
    plots.label(ax, "log(1 + count)", "density")
    zeros = "; ".join(f"zeros in {name} {(v == 0).mean():.3g}" for name, v in sets.items())
    alt = f"Histogram of counts; {summarise(sets)}; {zeros}"
    return tags.figure(plots.svg(figure, alt), f"How often each count occurs; {zeros}.", _legend(sets))


def _mean_variance(sets: dict[str, np.ndarray]) -> str:
    figure, ax = plots.axes()
    ratios = []
    for name, values in sets.items():
        values = values[:, plots.spread(values.shape[1], _COLUMNS)]
        known = np.isfinite(values)
        number = np.maximum(known.sum(0), 1)
        mean = np.where(known, values, 0).sum(0) / number
        variance = np.where(known, np.square(values - mean), 0).sum(0) / number
        seen = (mean > 0) & (variance > 0)
        ax.plot(mean[seen], variance[seen], "o", markersize=4, alpha=0.6, color=colour(name))
        ratio = (variance[mean > 0] / mean[mean > 0]).mean() if (mean > 0).any() else np.nan
        ratios.append(f"{name} {ratio:.3g}")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ends = np.asarray(ax.get_xlim())
    ax.plot(ends, ends, color=plots.GREY, linewidth=1)
    plots.label(ax, "mean of a column", "variance")
    words = f"Variance over mean (1 for Poisson, the grey line): {'; '.join(ratios)}."
    alt = f"Variance against mean, a point a column. {words}"
    return tags.figure(plots.svg(figure, alt), words, _legend(sets))


def _legend(sets) -> dict[str, str]:
    return {name: LEGEND[name] for name in sets}
