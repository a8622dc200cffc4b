"""How training went: the rows of the history as curves."""

import math
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
_MOST = 16
FEW = 40

Curve = dict[str, tuple[np.ndarray, np.ndarray]]


def gather(history: list[dict]) -> tuple[str, dict[str, Curve]]:
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


def figures(history: list[dict]) -> str:
    """Figures of bound, rate, distortion, beta and learning rate, then of whatever else was logged."""
    axis, curves = gather(history)
    named = dict(_NAMED)
    if "elbo_nats" not in curves and "loss" in curves:
        named = {"loss": "loss", **named}
    order = [name for name in named if name in curves]
    others = [name for name in curves if name not in named and name != "loss"]
    shown = (order + others)[:_MOST]
    if not shown:
        return ""
    return tags.side_by_side(*(_figure(name, named.get(name, name), curves[name], axis) for name in shown))


def _figure(name: str, title: str, curve: Curve, axis: str) -> str:
    figure, (ax,) = plots.axes()
    for split, (at, values) in curve.items():
        style = {"color": _COLOURS.get(split), "marker": "o" if len(at) <= FEW else "", "markersize": 3}
        ax.plot(at, values, label=split, linewidth=1.4, **style)
    if name == "lr" and _wide(curve):
        ax.set_yscale("log")
    plots.label(ax, title, x=axis)
    plots.legend(ax)
    ends = "; ".join(f"{split} {_last(values)}" for split, (_, values) in curve.items())
    return tags.picture(
        plots.png(figure), f"Curve of {title} against {axis}. Last values: {ends}", f"{name} (last: {ends})"
    )


def _last(values: np.ndarray) -> str:
    return tags.words(values[-1]) if np.isfinite(values[-1]) else "not finite"


def _wide(curve: Curve) -> bool:
    values = plots.finite(np.concatenate([values for _, values in curve.values()]))
    return bool(values.size) and values.min() > 0 and values.max() > 100 * values.min()


def _arrays(pairs: list) -> tuple[np.ndarray, np.ndarray]:
    at, values = np.asarray(pairs, dtype=np.float64).T
    return at, np.where(np.isfinite(values), values, math.nan)


def _number(value) -> bool:
    return isinstance(value, Real | np.bool_) and not isinstance(value, bool | np.bool_)
