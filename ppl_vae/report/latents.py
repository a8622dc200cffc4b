"""Where the guide puts the rows: two latents, or the two main directions of more, by label."""

from collections.abc import Mapping

import numpy as np

from ppl_vae.checks import counted
from ppl_vae.report import plots, tags
from ppl_vae.report.contents import Contents, Labels

_SITES = 4
_POINTS = 1000
_NAMED = 12
_CLOUD = 5
_COLOURS = (
    *("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b"),
    *("#e377c2", "#17becf", "#bcbd22", "#5b8cff", "#b07d00", "#00a878"),
)


def maps(about: Contents) -> str:
    """A map of each latent site, the use of the codes of each site of codes."""
    sites = {name: np.asarray(values) for name, values in about.latents.items()}
    places = {n: v for n, v in sites.items() if not n.endswith("_codes") and v.size}
    codes = [_use(name, values) for name, values in sites.items() if name.endswith("_codes") and values.size]
    drawn = [_map(name, values, about.labels) for name, values in list(places.items())[:_SITES]]
    rest = len(places) - _SITES
    more = tags.note(f"{rest} more latent sites are not shown.") if rest > 0 else ""
    return tags.side_by_side(*drawn, *codes) + more if drawn or codes else ""


def flat_map(values: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Two numbers (or the only one) for each row, and what they are.

    Parameters
    ----------
    values : [N, *event]

    Returns
    -------
    [N, 1 or 2]
        As they are, or the first two principal components.
    """
    values = np.asarray(values, np.float64).reshape(len(values), -1)
    if values.shape[1] <= 2 or len(values) < 3:
        return values[:, :2], [f"latent {i}" for i in range(min(2, values.shape[1]))]
    centred = values - values.mean(0)
    directions, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    share = sizes[:2] ** 2 / max(float((sizes**2).sum()), 1e-300)
    names = [f"component {i + 1} ({part:.0%} of the variance)" for i, part in enumerate(share)]
    return directions[:, :2] * sizes[:2], names


def _map(name: str, values: np.ndarray, labels: Labels | None) -> str:
    values = values[:_POINTS]
    if not np.isfinite(values).all():
        return tags.note(f"The latents {name} are not finite.")
    at, names = flat_map(values)
    groups = grouped(labels, len(at))
    figure, ax = plots.axes(width=5.2, height=4.2)
    draw = _histograms if at.shape[1] == 1 else _points
    draw(ax, at, groups)
    plots.label(ax, names[0], names[1] if at.shape[1] == 2 else "rows")
    wide = int(np.prod(values.shape[1:], dtype=np.int64))
    if wide > 2 and len(values) > 2:
        how = f"the first two principal components of its {wide} numbers"
    else:
        how = "its posterior means" if wide == 1 else "its two posterior means"
    words = f"{name}: {how}, {counted(len(at), 'row')}"
    by = f", by {labels.field}" if labels is not None else ""
    legend = {group: colour for group, (colour, _) in groups.items()} if labels is not None else {}
    return tags.figure(plots.svg(figure, f"Map of the latent {words}{by}"), f"{words}{by}.", legend)


def grouped(labels: Labels | None, number: int) -> Mapping[str, tuple[str, np.ndarray]]:
    """Colour and rows of each class by its name, the largest classes first; those without a colour of their
    own are one group.
    """
    if labels is None:
        return {"rows": (plots.BLUE, np.arange(number))}
    values = np.asarray(labels.values)[:number].astype(np.int64)
    found, sizes = np.unique(values, return_counts=True)
    chosen = sorted(found[np.argsort(-sizes, kind="stable")][:_NAMED])
    groups = {}
    for colour, value in zip(_COLOURS, chosen, strict=False):
        name = labels.name(int(value))
        groups[f"{name} ({value})" if name in groups else name] = (colour, np.flatnonzero(values == value))
    rest = np.flatnonzero(~np.isin(values, chosen))
    if len(rest):
        groups[f"{len(found) - len(chosen):,} other classes"] = (plots.GREY, rest)
    return groups


def _points(ax, at: np.ndarray, groups) -> None:
    for colour, rows in groups.values():
        behind = {"alpha": 0.35, "zorder": 1} if colour == plots.GREY else {"alpha": 0.75}
        ax.plot(*at[rows].T, ".", markersize=5, color=colour, **behind)
    for name, (colour, rows) in groups.items():
        if len(groups) > 1 and colour != plots.GREY and len(rows) >= _CLOUD:
            plots.name(ax, tags.short(name, 14), *np.median(at[rows], 0))


def _histograms(ax, at: np.ndarray, groups) -> None:
    bins = np.histogram_bin_edges(at, bins=30)
    shown = [at[rows, 0] for _, rows in groups.values()]
    ax.hist(shown, bins=bins, stacked=True, color=[colour for colour, _ in groups.values()])


def _use(name: str, codes: np.ndarray) -> str:
    """How often each code is used, the most frequent first."""
    _, sizes = np.unique(codes, return_counts=True)
    share = np.sort(sizes / codes.size)[::-1]
    figure, ax = plots.axes(width=5.2, height=4.2)
    ax.plot(np.arange(1, len(share) + 1), share, color=plots.BLUE, drawstyle="steps-mid")
    ax.set_ylim(0)
    plots.label(ax, "codes, the most frequent first", "share of all positions")
    words = f"{name}: {len(share):,} codes occur in {counted(len(codes), 'row')}"
    return tags.figure(plots.svg(figure, f"Share of each code. {words}"), f"{words}.")
