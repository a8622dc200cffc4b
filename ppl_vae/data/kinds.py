"""What kind of data x is: its layout, its levels, and how it is stored."""

from collections.abc import Callable, Sequence

import numpy as np

from ppl_vae import checks
from ppl_vae.data.dataset import KINDS
from ppl_vae.errors import DataError, UsageError

CHANNELS = (1, 3, 4)


def normalise_x(by_split: dict, name: str, kind: str | None, levels: int | None) -> tuple[str, int | None]:
    """Bring x of all splits into one layout and type, in place; returns kind and levels.

    Images become `[N, C, H, W]`; quantised x the smallest unsigned integers; counts int64; all else float32.
    """
    if kind is not None:
        checks.one_of("kind of data", kind, KINDS)
    if "x" not in next(iter(by_split.values())):
        if levels is not None or kind not in (None, "vector"):
            raise UsageError(f"{name} has no field x, so kind and levels mean nothing here: leave them out")
        return "vector", None
    xs = {split: rows["x"] if rows["x"].ndim > 1 else rows["x"][:, None] for split, rows in by_split.items()}
    kind = kind or guess_kind(xs.values())
    if kind == "image":
        xs = {split: _channels_first(x, name) for split, x in xs.items()}
    levels = levels_of(xs.values(), name, kind, levels)
    for split, x in xs.items():
        by_split[split]["x"] = stored(x, f"{name}: x ({split})", kind, levels)
    return kind, levels


def _limits(xs):
    return min(x.min() for x in xs), max(x.max() for x in xs)


def guess_kind(xs) -> str:
    """Return what kind of data arrays look like, by type, shape and range."""
    first, *_ = xs
    low, high = _limits(xs)
    if first.ndim == 2:
        return "counts" if first.dtype.kind in "ui" and low >= 0 and high > 1 else "vector"
    if first.ndim == 3 and (min(first.shape[1:]) == 1 or first.dtype.kind == "f"):
        return "image" if min(first.shape[1:]) > 1 and low >= 0 and high <= 1 else "vector"
    return "image" if first.ndim == 4 or (first.ndim == 3 and low >= 0) else "vector"


def _channels_first(x, name):
    if x.ndim == 3:
        return x[:, None]
    if x.ndim != 4:
        raise UsageError(
            f"{name}: rows of shape {x.shape[1:]} are no images; give [N, H, W], [N, H, W, C] or [N, C, H, W]"
        )
    if x.shape[1] not in CHANNELS and x.shape[-1] in CHANNELS:
        return np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return x


def laid_out(x: np.ndarray, kind: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return rows of x in the layout of data whose rows have a shape, as `normalise_x` would."""
    if x.shape[1:] == shape:
        return x
    if x.ndim == 1:
        return x[:, None]
    if kind == "image" and x.ndim in (3, 4):
        moved = x[:, None] if x.ndim == 3 else np.moveaxis(x, -1, 1)
        return np.ascontiguousarray(moved) if moved.shape[1:] == shape else x
    return x


def levels_of(xs, name: str, kind: str, levels: int | None) -> int | None:
    """Levels as given, else 2, 256 or 65536 for images of integers and 2 for vectors of bits."""
    first, *_ = xs
    low, high = _limits(xs)
    if levels is not None:
        checks.levels(levels)
        if kind == "counts":
            raise UsageError("counts have no levels: leave levels out, or choose another kind")
        if low < 0 or high > levels - 1 or any((x % 1 != 0).any() for x in xs if x.dtype.kind == "f"):
            raise DataError(f"{name}: x lies in [{low}, {high}] and is no whole number in [0, {levels - 1}]")
        return int(levels)
    if first.dtype.kind == "f" or kind in ("counts", "sound"):
        return None
    if low >= 0 and high <= 1:
        return 2
    if kind != "image":
        return None
    if low < 0 or high > 65535:
        raise DataError(f"{name}: [{low}, {high}] is no range of images: give 0 to 255, or floats in [0, 1]")
    return 256 if high <= 255 else 65536


def stored(
    x: np.ndarray,
    where: str,
    kind: str,
    levels: int | None,
    called: Callable[[Sequence[int]], str] = lambda place: "",
) -> np.ndarray:
    """Return x in the type in which data of its kind is held; `called` names a number by its place."""
    if levels is not None:
        return x.astype(np.min_scalar_type(levels - 1), copy=False)
    if kind != "counts":
        return x.astype(np.float32, copy=False)
    bad = (x < 0) | (x % 1 != 0)
    if bad.any():
        place = tuple(np.argwhere(bad)[0].tolist())
        at = f"row {place[0]}{called(place)}"
        raise DataError(f"{where} has values in {at} that are no counts (whole and not negative)")
    return x.astype(np.int64)
