"""Vectors [N, D]: the distribution of each column, data against samples, and rows as lines."""

import warnings

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags
from ppl_vae.report.contents import Contents, Row

_POINTS = 1500
_WIDEST = 300
_NAMED = 20
_ROWS = 8
LEGEND = {"data": plots.OF_PAGE[plots.DATA], "samples": plots.OF_PAGE[plots.MODEL]}
PAIR = {"original": LEGEND["data"], "reconstruction": LEGEND["samples"]}


def samples(x, data, about: Contents) -> str:
    """Samples against data: a scatter plot of two columns, a histogram of one, else ranges and lines."""
    sets = {"data": rows(data), "samples": rows(x)}
    sets = {name: values for name, values in sets.items() if values is not None}
    dims = {values.shape[1] for values in sets.values()}
    if len(dims) > 1:
        raise DataError(f"data and samples have different numbers of columns ({sorted(dims)})")
    wide = dims.pop()
    legend = {name: LEGEND[name] for name in sets}
    if wide <= 2:
        draw, title = [(_histogram, "Histogram"), (_scatter, "Scatter plot")][wide - 1]
        figure, ax = plots.axes()
        for name, values in sets.items():
            draw(ax, name, values, about, plots.limits(*sets.values()))
        words = f"{title}: {' against '.join(sets)}"
        drawn = plots.svg(figure, f"{words}; {summarise(sets)}")
        return tags.side_by_side(tags.figure(drawn, words + ".", legend))
    at = plots.spread(wide, _WIDEST)
    sets = {name: values[:, at] for name, values in sets.items()}
    return _ranges(sets, at, about, legend) + lines(rows(x), about)


def reconstructions(x, data, about: Contents) -> str:
    """Rows over their reconstructions, and all values against each other."""
    x, data = rows(x), rows(data)
    if x.shape != data.shape:
        raise DataError(f"originals {data.shape} and reconstructions {x.shape} have different shapes")
    several = x.shape[1] > 2
    shown = [Row(i, 0.0, original=data[i], reconstruction=x[i]) for i in range(min(_ROWS, len(x)))]
    drawn = tags.tiles(*(tags.figure(pair(row, about), f"Row {row.number}") for row in shown))
    return (tags.figure(drawn, "", PAIR) if several else "") + parity(x, data)


def pair(row: Row, about: Contents) -> str:
    """A row over its reconstruction: lines, of few columns also the numbers."""
    series = {plots.DATA: _line(row.original), plots.MODEL: _line(row.reconstruction)}
    series = {colour: values for colour, values in series.items() if values is not None}
    if not series:
        return ""
    if len(next(iter(series.values()))) <= 2:
        told = (f"{name} {_listed(values)}" for name, values in zip(PAIR, series.values(), strict=False))
        return tags.paragraph("; ".join(told))
    scale = _standard(about.originals)
    series = {colour: scale(values) for colour, values in series.items()}
    low, high = plots.limits(*series.values())
    return plots.lines(series, low, high, f"Row {row.number} and its reconstruction")


def lines(x: np.ndarray, about: Contents) -> str:
    """The first samples as lines, on one scale."""
    shown = _standard(about.originals)(x[:_ROWS, plots.spread(x.shape[1], _WIDEST)])
    low, high = plots.limits(shown)
    names = (f"Sample {i}" for i in range(len(shown)))
    drawn = (
        (plots.lines({plots.MODEL: row}, low, high, name), name)
        for row, name in zip(shown, names, strict=True)
    )
    return tags.tiles(*(tags.figure(*one) for one in drawn))


def parity(x: np.ndarray, data: np.ndarray, scale=lambda values: values, unit: str = "value") -> str:
    """A figure of values against values; `scale` is applied to what is drawn, not to the numbers."""
    known = np.isfinite(data) & np.isfinite(x)
    if not known.any():
        return tags.note("No reconstructed value is a finite number.")
    error, number = np.square(data - x, where=known, out=np.zeros_like(x)).sum(), known.sum()
    total = float(np.square(_centred(data, known), where=known, out=np.zeros_like(x)).sum())
    at = np.flatnonzero(known.ravel())[plots.spread(int(number), _POINTS)]
    pairs = scale(np.stack([data.ravel()[at], x.ravel()[at]], 1))
    figure, ax = plots.axes(width=5, height=4.2)
    ax.plot(*pairs.T, ".", markersize=4, alpha=0.4, color=plots.MODEL)
    ends = [pairs.min(), pairs.max()]
    ax.plot(ends, ends, color=plots.GREY, linewidth=1)
    plots.label(ax, f"original {unit}", f"reconstructed {unit}")
    words = "Reconstructed against original values"
    words += f"; explained variance {1 - float(error) / total:.3g}" if total > 0 else ""
    return tags.side_by_side(tags.figure(plots.svg(figure, words), words + "."))


def rows(x) -> np.ndarray | None:
    """An array as float rows [N, D]; None stays None."""
    if x is None:
        return None
    x = np.asarray(x)
    if x.size == 0:
        raise DataError(f"there are no rows to show (shape {x.shape})")
    return x.reshape(len(x), -1).astype(np.float64)


def summarise(sets: dict[str, np.ndarray]) -> str:
    """Means in words, for those who do not see the picture."""
    finite = {name: plots.finite(values) for name, values in sets.items()}
    means = [f"mean of {name} {tags.words(values.mean())}" for name, values in finite.items() if values.size]
    return "; ".join(means) or "no finite values"


def colour(name: str) -> str:
    """Data and model keep their colours in all pictures."""
    return plots.DATA if name == "data" else plots.MODEL


def _centred(data: np.ndarray, known: np.ndarray) -> np.ndarray:
    values = np.where(known, data, 0.0)
    return values - values.sum(0) / np.maximum(known.sum(0), 1)


def _line(row: np.ndarray | None) -> np.ndarray | None:
    if row is None:
        return None
    values = np.asarray(row, np.float64).ravel()
    return values[plots.spread(len(values), _WIDEST)]


def _listed(values: np.ndarray) -> str:
    return ", ".join(map(tags.words, values))


def _standard(data):
    """How columns of different units are drawn together: in standard deviations of the data."""
    if data is None:
        return lambda values: values
    data = rows(data)
    data = data[:, plots.spread(data.shape[1], _WIDEST)]
    deviation = _ignoring_gaps(np.nanstd, data)
    moving = deviation[np.isfinite(deviation) & (deviation > 0)]
    if len(data) < 3 or len(deviation) > _NAMED or not moving.size or moving.max() < 10 * moving.min():
        return lambda values: values
    centre = np.nan_to_num(_ignoring_gaps(np.nanmean, data))
    return lambda values: (values - centre) / np.where(deviation > 0, deviation, 1.0)


def _ignoring_gaps(statistic, values, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column of gaps has none
        return statistic(np.where(np.isfinite(values), values, np.nan), axis=0, **options)


def _scatter(ax, name, values, about: Contents, ends) -> None:
    values = values[plots.spread(len(values), _POINTS)]
    ax.plot(values[:, 0], values[:, 1], ".", markersize=4, alpha=0.5, color=colour(name))
    names = list(about.columns) if len(about.columns) == 2 else ["column 0", "column 1"]
    plots.label(ax, *(tags.short(one) for one in names))


def _histogram(ax, name, values, about: Contents, ends) -> None:
    ax.hist(plots.finite(values), bins=30, range=ends, density=True, alpha=0.5, color=colour(name))
    plots.label(ax, tags.short(about.columns[0]) if len(about.columns) == 1 else "value", "density")


def _ranges(sets: dict[str, np.ndarray], at: np.ndarray, about: Contents, legend: dict[str, str]) -> str:
    figure, ax = plots.axes(height=3.4)
    ax.locator_params(axis="x", integer=True)
    scale, unit = _standard(sets.get("data")), "value"
    scaled = {name: scale(values) for name, values in sets.items()}
    if any(scaled[name] is not sets[name] for name in sets):
        unit = "standard deviations from the data's mean"
    for shift, (name, values) in enumerate(scaled.items()):
        few = len(at) <= _NAMED
        draw_range(ax, name, values, at + 0.3 * (shift - 0.5) if few else at, banded=not few)
    plots.label(ax, "" if len(at) == len(about.columns) <= _NAMED else "column", unit)
    if len(at) == len(about.columns) <= _NAMED:
        ax.set_xticks(at, [tags.short(name, 16) for name in about.columns], rotation=30, ha="right")
        for words in ax.get_xticklabels():
            words.set_parse_math(False)
    words = f"Mean and 5 to 95 % range of each column: {' against '.join(sets)}"
    if len(at) == _WIDEST:
        words += f"; {_WIDEST} columns, evenly spaced"
    drawn = plots.svg(figure, f"{words}; {summarise(sets)}")
    return tags.side_by_side(tags.figure(drawn, words + ".", legend))


def draw_range(ax, name: str, values: np.ndarray, at: np.ndarray, banded: bool) -> None:
    """Mean and range of each column, as points and lines, or as a band."""
    mean = _ignoring_gaps(np.nanmean, values)
    low, high = _ignoring_gaps(np.nanquantile, values, q=[0.05, 0.95])
    if not banded:
        ax.vlines(at, low, high, color=colour(name), alpha=0.6, linewidth=2)
        ax.plot(at, mean, "o", markersize=4, color=colour(name))
    else:
        ax.fill_between(at, low, high, color=colour(name), alpha=0.2, linewidth=0)
        ax.plot(at, mean, color=colour(name), linewidth=1.2)
