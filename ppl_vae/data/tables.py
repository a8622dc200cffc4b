"""Tables: text as pandas, R and spreadsheets write it, and DataFrames."""

from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.columns import called_id, fits, of_columns
from ppl_vae.data.delimited import AS_IT_LOOKS, Layout, Text, is_missing, number, read_text, repeated
from ppl_vae.data.roles import NO_CLASSES, NO_ROLES, Classes, Roles, Table
from ppl_vae.errors import DataError

NUMERIC = {"integer", "floating", "mixed-integer-float", "boolean", "decimal"}  # kinds of objects


def read_csv(
    path: Path, roles: Roles = NO_ROLES, layout: Layout = AS_IT_LOOKS, classes: Classes = NO_CLASSES
) -> Table:
    """Read a table that is text; see `read_text` and `of_columns`."""
    text = read_text(path, layout)
    columns = _columns(text, {roles.label, roles.batch, roles.index})
    where = [f"{path}, line {line}" for line in text.lines]
    table = of_columns(columns, text.labels, roles, where, classes)
    if not text.named:
        table.coords.pop("x", None)
    table.notes[:0] = text.notes
    return table


def _columns(text: Text, texts: set[str | None]) -> dict[str, np.ndarray]:
    columns = {}
    for i, name in enumerate(text.names):
        cells = ["" if is_missing(row[i]) else row[i] for row in text.rows]
        columns[name] = _typed(cells, text.decimal, name in texts or called_id(name))
    return columns


def columns(path: Path) -> dict[str, np.ndarray]:
    """Return the columns of a table that is text, each of numbers or of text."""
    return _columns(read_text(path), set())


def told(path: Path, layout: Layout = AS_IT_LOOKS) -> list[str]:
    """Return what each column of a table that is text holds, in a line each."""
    lines = []
    for name, values in _columns(read_text(path, layout), set()).items():
        if values.dtype.kind == "O":
            different = sorted({str(value) for value in values} - {""})
            shown = ", ".join(different[:4]) + (" ..." if len(different) > 4 else "")
            lines.append(f"{name}: text, {len(different)} different ({shown})")
            continue
        kind = {"b": "true and false", "i": "whole numbers"}.get(values.dtype.kind, "numbers")
        missing = int(np.isnan(values).sum()) if values.dtype.kind == "f" else 0
        lines.append(f"{name}: {kind}" + (f", {missing} missing" if missing else ""))
    return lines


def _typed(cells: list[str], decimal: str, names: bool) -> np.ndarray:
    """Return a column as whole numbers, as truth values, as floats with NaN where there is none, or as text:
    as that too where numbers are beyond 64 bits, or `names` that a number would change, such as 007.
    """
    as_text = np.array(cells, dtype=object)
    if set(cells) <= {"True", "False", "TRUE", "FALSE", "true", "false"}:
        return np.array([cell.lower() == "true" for cell in cells])
    values = [number(cell, decimal) if cell else float("nan") for cell in cells]
    if any(value is None for value in values):
        return as_text
    whole = all(isinstance(value, int) for value in values)
    if names and not (whole and all(str(v) == cell for v, cell in zip(values, cells, strict=True))):
        return as_text
    if not whole:
        return np.array(values, np.float64)
    return np.array(values, np.int64) if all(map(fits, values)) else as_text


def of_frame(frame: Any, roles: Roles = NO_ROLES, classes: Classes = NO_CLASSES) -> Table:
    """Return the fields of a DataFrame; an index that has names is the names of its rows."""
    if not len(frame.columns):
        raise DataError("the DataFrame has no columns")
    names = [str(column) for column in frame.columns]
    twice = repeated(names)
    if twice is not None:
        raise DataError(f"two columns are called {twice!r}: rename one")
    columns = {name: of_series(frame.iloc[:, i]) for i, name in enumerate(names)}
    counts_rows = type(frame.index).__name__ == "RangeIndex" or frame.index.dtype.kind in "iu"
    labels = None if counts_rows else [str(label) for label in frame.index]
    return of_columns(columns, labels, roles, [f"row {i}" for i in range(len(frame))], classes)


def of_series(values: Any) -> np.ndarray:
    """Return a column of pandas as numbers, NaN where one is missing, or as text, empty where one is."""
    import pandas as pd

    if values.dtype.name == "category":
        values = pd.Series(values).astype(values.dtype.categories.dtype)
    if values.dtype.kind == "O" and pd.api.types.infer_dtype(values, skipna=True) in NUMERIC:
        values = pd.to_numeric(values)
    if hasattr(values, "sparse"):
        values = values.sparse.to_dense()
    if values.dtype.kind not in "biuf":
        return values.astype(object).where(values.notna(), "").to_numpy()
    if values.isna().any():
        return values.to_numpy(np.float64, na_value=np.nan)
    return values.to_numpy(values.dtype.kind + str(values.dtype.itemsize))
