"""Vectors [N, D]: the distribution of each dimension, data against samples."""

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags

_POINTS = 4000
_BARS = 40


def samples(x, data, summary) -> str:
    """Samples against data: a scatter plot of two dimensions, a histogram of one, else quantiles."""
    sets = {"data": rows(data), "samples": rows(x)}
    sets = {name: values for name, values in sets.items() if values is not None}
    dims = {values.shape[1] for values in sets.values()}
    if len(dims) > 1:
        raise DataError(f"data and samples have different numbers of columns ({sorted(dims)})")
    draw, title = {1: (_histogram, "histogram"), 2: (_scatter, "scatter plot")}.get(
        dims.pop(), (_quantiles, "mean and 5 to 95 % range of each dimension")
    )
    figure, (ax,) = plots.axes(width=8, height=4)
    for index, (name, values) in enumerate(sets.items()):
        draw(ax, name, values, index - 0.5)
    plots.legend(ax)
    words = f"{title}: {' against '.join(sets)}"
    return tags.picture(plots.png(figure), f"{words}, {summarise(sets)}", words)


def reconstructions(x, data, summary) -> str:
    """Reconstructed against original values, with the share of the variance that is explained."""
    return parity(rows(x), rows(data))


def parity(x: np.ndarray, data: np.ndarray, scale=lambda values: values, unit: str = "value") -> str:
    """A figure of values against values; `scale` is applied to what is drawn, not to the numbers."""
    if x.shape != data.shape:
        raise DataError(f"originals {data.shape} and reconstructions {x.shape} have different shapes")
    spread = float(np.mean((data - data.mean(0)) ** 2))
    explained = 1 - float(np.mean((data - x) ** 2)) / spread if spread > 0 else float("nan")
    pairs = plots.thin(np.stack([data.ravel(), x.ravel()], 1), _POINTS)
    pairs = scale(pairs[np.isfinite(pairs).all(1)])
    figure, (ax,) = plots.axes(width=4.6, height=4.2)
    ax.plot(*pairs.T, ".", markersize=3, alpha=0.4, color=plots.MODEL)
    if len(pairs):
        ends = [pairs.min(), pairs.max()]
        ax.plot(ends, ends, color=plots.GREY, linewidth=1)
    plots.label(ax, "reconstructed against original", f"original {unit}", f"reconstructed {unit}")
    words = f"explained variance {tags.words(explained)}"
    return tags.picture(plots.png(figure), f"Reconstructed against original values; {words}", words)


def rows(x) -> np.ndarray | None:
    """An array as float rows [N, D]; None stays None."""
    if x is None:
        return None
    x = np.asarray(x, dtype=np.float64)
    if x.size == 0:
        raise DataError(f"there are no rows to show (shape {x.shape})")
    return x.reshape(len(x), -1)


def summarise(sets: dict[str, np.ndarray]) -> str:
    """Means in words, for those who do not see the picture."""
    finite = {name: plots.finite(values) for name, values in sets.items()}
    means = [f"mean of {name} {tags.words(values.mean())}" for name, values in finite.items() if values.size]
    return "; ".join(means) or "no finite values"


def colour(name: str) -> str:
    """Data and model keep their colours in all pictures."""
    return plots.DATA if name == "data" else plots.MODEL


def _scatter(ax, name, values, shift) -> None:
    values = plots.thin(values, _POINTS)
    ax.plot(values[:, 0], values[:, 1], ".", markersize=4, alpha=0.4, color=colour(name), label=name)
    plots.label(ax, x="dimension 0", y="dimension 1")


def _histogram(ax, name, values, shift) -> None:
    ax.hist(plots.finite(values), bins=50, density=True, alpha=0.5, color=colour(name), label=name)
    plots.label(ax, x="value", y="density")


def _quantiles(ax, name, values, shift) -> None:
    values = np.where(np.isfinite(values), values, 0.0)
    at, mean = np.arange(values.shape[1]), values.mean(0)
    low, high = np.quantile(values, [0.05, 0.95], axis=0)
    if len(at) <= _BARS:
        at = at + 0.3 * shift
        ax.vlines(at, low, high, color=colour(name), alpha=0.6)
        ax.plot(at, mean, "o", markersize=4, color=colour(name), label=name)
    else:
        ax.fill_between(at, low, high, color=colour(name), alpha=0.25)
        ax.plot(at, mean, color=colour(name), label=name)
    plots.label(ax, x="dimension", y="value")
