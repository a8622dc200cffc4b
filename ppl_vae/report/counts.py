"""Counts [N, D]: how often each count occurs, and how the variance grows with the mean."""

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.report import plots, tags
from ppl_vae.report.vector import colour, parity, rows, summarise


def samples(x, data, summary) -> str:
    """Histogram on a log(1 + count) axis and mean against variance a column, data against samples."""
    sets = {"data": rows(data), "samples": rows(x)}
    sets = {name: values for name, values in sets.items() if values is not None}
    if not all(np.isfinite(values).all() and (values >= 0).all() for values in sets.values()):
        raise DataError("counts are negative or not finite: look for the step where training diverged")
    return tags.side_by_side(_histogram(sets), _mean_variance(sets))


def reconstructions(x, data, summary) -> str:
    """Reconstructed rates against original counts, both on log(1 + count) axes."""
    return parity(rows(x), rows(data), scale=_log1p, unit="log(1 + count)")


def _log1p(values: np.ndarray) -> np.ndarray:
    return np.log1p(np.maximum(values, 0))


def _histogram(sets: dict[str, np.ndarray]) -> str:
    figure, (ax,) = plots.axes()
    top = np.log1p(max(values.max() for values in sets.values()))
    bins = np.linspace(0, max(top, 0.1), 40)
    for name, values in sets.items():
        ax.hist(np.log1p(values.ravel()), bins=bins, density=True, alpha=0.5, color=colour(name), label=name)
    ax.set_yscale("log")
    plots.label(ax, "how often each count occurs", "log(1 + count)", "density")
    plots.legend(ax)
    shares = {name: float((values == 0).mean()) for name, values in sets.items()}
    zeros = "; ".join(f"zeros in {name} {tags.words(share)}" for name, share in shares.items())
    alt = f"Histogram of counts; {summarise(sets)}; {zeros}"
    return tags.picture(plots.png(figure), alt, f"counts; {zeros}")


def _mean_variance(sets: dict[str, np.ndarray]) -> str:
    figure, (ax,) = plots.axes()
    for name, values in sets.items():
        mean, variance = values.mean(0), values.var(0)
        seen = (mean > 0) & (variance > 0)
        ax.plot(mean[seen], variance[seen], "o", markersize=4, alpha=0.6, color=colour(name), label=name)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ends = np.asarray(ax.get_xlim())
    ax.plot(ends, ends, color=plots.GREY, linewidth=1, label="Poisson")
    plots.label(ax, "mean and variance of each column", "mean", "variance")
    plots.legend(ax)
    ratios = "; ".join(f"{name} {tags.words(_ratio(values))}" for name, values in sets.items())
    return tags.picture(
        plots.png(figure),
        f"Variance against mean, a point a column. Mean ratio: {ratios}",
        f"variance over mean (1 for Poisson): {ratios}",
    )


def _ratio(values: np.ndarray) -> float:
    mean = values.mean(0)
    return float((values.var(0)[mean > 0] / mean[mean > 0]).mean()) if (mean > 0).any() else float("nan")
