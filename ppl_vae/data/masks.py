"""Which numbers of data were observed: the rules of the field `mask`."""

from collections.abc import Mapping, Sequence

import numpy as np


def spread(mask: np.ndarray | None, shape: Sequence[int]) -> np.ndarray | None:
    """Return a mask over the leading axes of an array, some of them of size 1, as one of each of its numbers,
    [*shape] of bool; None where there is no such mask.
    """
    if mask is None or not 0 < mask.ndim <= len(shape) or len(mask) != shape[0]:
        return None
    if any(own not in (1, size) for own, size in zip(mask.shape, shape, strict=False)):
        return None
    wide = mask.astype(bool).reshape(mask.shape + (1,) * (len(shape) - mask.ndim))
    return np.broadcast_to(wide, tuple(shape))


def observed(rows: Mapping[str, np.ndarray], masked: bool = False, field: str = "x") -> np.ndarray | None:
    """Return which numbers of a field were observed, of its shape; None where nothing says so.

    The field `mask` says so where it is of the field's own shape. One over leading axes alone, of rows or
    steps, may as well be a condition: it counts where the field's likelihood is `masked`.
    """
    values, mask = rows.get(field), rows.get("mask")
    if values is None or mask is None or not (masked or mask.shape == values.shape):
        return None
    return spread(mask, values.shape)
