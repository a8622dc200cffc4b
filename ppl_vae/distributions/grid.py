"""Grey levels: an even grid 0, 1/(levels-1), ..., 1."""

from typing import Any

Array = Any


def within(F: Any, value: Array) -> Array:
    """Tell which values lie in [0, 1]; off the grid they count as the nearest level."""
    return (value >= 0) & (value <= 1)


def rounded(F: Any, value: Array, levels: int) -> Array:
    """Return the nearest grid points."""
    return F.round(F.clip(value, 0, 1) * (levels - 1)) / (levels - 1)
