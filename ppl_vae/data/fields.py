"""Fields of named arrays, tensors, lists and sparse matrices."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.columns import as_mask, as_texts, codes_of
from ppl_vae.data.roles import NO_CLASSES, NO_ROLES, ROW_LABELS, Classes, Roles, Table
from ppl_vae.data.tables import of_series
from ppl_vae.errors import DataError, UsageError
from ppl_vae.reading import memory

_OBJECTS = "holds Python objects, which are not read: write it as text (.astype(str)) or numbers"


@dataclass(frozen=True)
class Objects:
    """Stands for an array of Python objects, which only running what a file holds would read."""

    path: Path


def of_arrays(
    arrays: Mapping[str, Any],
    roles: Roles = NO_ROLES,
    classes: Classes = NO_CLASSES,
    text_left_out: bool = False,
) -> Table:
    """Return the fields of named arrays: what they are called, or what their roles say. Text that has no role
    is left as it is, to be refused where numbers are wanted, or left out.
    """
    arrays, table = {str(name): values for name, values in arrays.items()}, Table({})
    if roles.record() and not roles.lenient and all(isinstance(rows, Mapping) for rows in arrays.values()):
        raise UsageError(
            f"{', '.join(roles.record())}: columns have roles in a table without splits of its own"
        )
    roles = roles.among(arrays)
    if roles.x and len(roles.x) > 1:
        raise UsageError(f"x={','.join(roles.x)}: only columns of a table can be several; name one array")
    targets = {name: target for target, names in roles.given.items() for name in names}
    targets = {
        name: {"label": "y", "index": ROW_LABELS}.get(target, target) for name, target in targets.items()
    }
    for name, values in arrays.items():
        target = targets.get(name, name)
        if target == "ignore":
            continue
        if isinstance(values, Objects):
            if name in targets or target == "x":
                raise DataError(f"{values.path}: {name!r} {_OBJECTS}")
            table.notes.append(f"{name!r} left out: it {_OBJECTS}")
            continue
        if target in table.fields:
            raise UsageError(f"two arrays would be {target}: leave one out with ignore=...")
        taken = _array(table, target, name, values, name in targets, classes)
        if taken is None and text_left_out and target != "x":
            table.notes.append(f"{name!r} left out, as it is text (label=..., batch=..., index=... take it)")
        else:
            table.fields[target] = values if taken is None else taken
    if hasattr(arrays.get("x"), "columns") and "x" in table.fields:
        table.coords["x"] = [str(column) for column in arrays["x"].columns]
    if roles.mask == "nan" and "x" in table.fields and "mask" not in table.fields:
        x = np.ma.filled(np.ma.asarray(dense(table.fields["x"], masked=True)).astype(np.float64), np.nan)
        missing = np.isnan(x)
        table.fields |= {"x": np.where(missing, 0, x), "mask": ~missing}
        table.notes.append(f"{int(missing.sum())} missing numbers, masked")
    return table


def _array(table: Table, target: str, name: str, values: Any, asked: bool, classes: Classes) -> Any:
    """Return an array with its text as codes or names; None for text without a meaning."""
    if target == ROW_LABELS:
        return np.array(as_texts(np.asarray(values), name), dtype=str)
    if target == "mask" and asked:
        return as_mask(np.asarray(dense(values)), name, [f"row {i}" for i in range(len(values))])
    if hasattr(values, "isna") and not hasattr(values, "columns"):
        values = of_series(values)
    if not _is_text(values):
        return values
    if target in classes or (asked and target in ("y", "batch")):
        texts, where = np.asarray(values).astype(object), [f"row {i}" for i in range(len(values))]
        return codes_of(texts, name, target, where, table, classes)
    return None


def dense(values: Any, masked: bool = False) -> Any:
    """Return a tensor, a list, a sparse matrix or a column of a table as an array in memory; `masked` arrays
    stay so, or are refused with a DataError where they hide something.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        return np.asarray(values.float() if str(values.dtype) == "torch.bfloat16" else values)
    if isinstance(values, np.ma.MaskedArray):
        if masked:
            return values
        if np.ma.is_masked(values):
            raise DataError("it has masked values: fill them in, or give it with mask='nan'")
        return values.data
    if hasattr(values, "toarray"):
        size = math.prod(values.shape) * values.dtype.itemsize
        if size > memory():
            raise DataError(
                f"a sparse matrix of shape {values.shape} takes {size / 2**30:.1f} GiB as an array, which is "
                "more than the memory here: take fewer columns"
            )
        return values.toarray()
    if hasattr(values, "iloc") and hasattr(values, "columns"):
        return np.stack([of_series(values.iloc[:, i]) for i in range(values.shape[1])], axis=1)
    if hasattr(values, "isna") and getattr(values.dtype, "kind", "O") in "biuf":
        return of_series(values)
    return np.asarray(values)


def _is_text(values: Any) -> bool:
    if isinstance(values, (list, tuple)) or getattr(getattr(values, "dtype", None), "kind", "") == "O":
        return len(values) > 0 and all(isinstance(value, str) for value in values)
    return getattr(getattr(values, "dtype", None), "kind", "") == "U"
