"""How training went: the numbers of the history that move, as curves."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

import numpy as np

from ppl_vae.report import plots, tags

_COLOURS = {"train": plots.BLUE, "valid": plots.ORANGE}
_NAMED = (
    ("elbo_nats", "bound, nats per row"),
    ("rate_nats", "rate, nats per row"),
    ("distortion_nats", "distortion, nats per row"),
    ("beta", "beta"),
    ("lr", "learning rate"),
)
_AXES = ("step", "epoch", "seconds")
# What says again what another curve says.
_TWICE = frozenset({"elbo_stderr", "elbo_robust_nats", "bits_per_dim", "loss"})
_MOST = 12
FEW = 40
_POINTS = 1000
_ROUNDING = 1e-6

Curve = dict[str, tuple[np.ndarray, np.ndarray]]


def gather(history: Sequence[Mapping]) -> tuple[str, dict[str, Curve]]:
    """The history by quantity and split.

    Returns
    -------
    axis : "step", "epoch" or "row", whichever the rows have
    curves : quantity -> split -> (positions, values); infinite values are NaN
    """
    axis = next((name for name in ("step", "epoch") if any(_number(row.get(name)) for row in history)), "row")
    points: dict[str, dict[str, list]] = {}
    for index, row in enumerate(history):
        at = row.get(axis) if axis != "row" else index
        if not _number(at):
            continue
        for name, value in row.items():
            if name not in _AXES and _number(value):
                points.setdefault(name, {}).setdefault(str(row.get("split", "train")), []).append((at, value))
    return axis, {
        name: {split: _arrays(pairs) for split, pairs in splits.items()} for name, splits in points.items()
    }


def moving(curves: Mapping[str, Curve]) -> list[str]:
    """Names of the quantities that change, the bound first; the loss only where there is no bound."""
    named = dict(_NAMED)
    first = ["loss"] if "elbo_nats" not in curves else []
    order = [*first, *named, *(name for name in curves if name not in named and name not in _TWICE)]
    return [name for name in order if name in curves and _moves(curves[name])]


def figures(history: Sequence[Mapping]) -> str:
    """Figures of what moves."""
    axis, curves = gather(history)
    shown, named = moving(curves), dict(_NAMED)
    drawn = (_figure(name, named.get(name, name), curves[name], axis) for name in shown[:_MOST])
    return tags.side_by_side(*drawn) if shown else ""


def _figure(name: str, title: str, curve: Curve, axis: str) -> str:
    figure, ax = plots.axes(width=5, height=2.8)
    ax.locator_params(axis="x", integer=True)
    for split, (at, values) in curve.items():
        thinned = plots.spread(len(at), _POINTS)
        style = {"color": _colour(split), "marker": "o" if len(at) <= FEW else "", "markersize": 3}
        ax.plot(at[thinned], values[thinned], linewidth=1.4, **style)
    if name == "lr" and _wide(curve):
        ax.set_yscale("log")
    elif name == "elbo_nats":
        _leave_out_the_start(ax, curve)
    plots.label(ax, axis)
    ends = "; ".join(f"{split} {_last(values)}" for split, (_, values) in curve.items())
    alt = f"Curve of {title} against {axis}. Last values: {ends}"
    legend = {split: plots.OF_PAGE.get(_colour(split), _colour(split)) for split in curve}
    return tags.figure(plots.svg(figure, alt), f"{title} (last: {ends})", legend if len(curve) > 1 else None)


def _leave_out_the_start(ax, curve: Curve) -> None:
    """Let the axis show where a bound ends, not from where it fell: the first tenth may leave the picture."""
    late = [values[len(values) // 10 :] for _, values in curve.values()]
    low, high = plots.limits(*late)
    least, most = plots.limits(*(values for _, values in curve.values()))
    if high > low and most - least > 3 * (high - low):
        ax.set_ylim(low - 0.1 * (high - low), high + 0.1 * (high - low))


def _colour(split: str) -> str:
    return _COLOURS.get(split, plots.GREY)


def _last(values: np.ndarray) -> str:
    return tags.words(values[-1]) if np.isfinite(values[-1]) else "not finite"


def _moves(curve: Curve) -> bool:
    """Whether it changes by more than rounding."""
    held = [plots.finite(values) for _, values in curve.values()]
    return any(values.size and np.ptp(values) > _ROUNDING * np.abs(values).max() for values in held)


def _wide(curve: Curve) -> bool:
    values = plots.finite(np.concatenate([values for _, values in curve.values()]))
    return bool(values.size) and values.min() > 0 and values.max() > 100 * values.min()


def _arrays(pairs: list) -> tuple[np.ndarray, np.ndarray]:
    at, values = np.asarray(pairs, dtype=np.float64).T
    return at, np.where(np.isfinite(values), values, math.nan)


def _number(value) -> bool:
    return isinstance(value, Real | np.bool_) and not isinstance(value, bool | np.bool_)
