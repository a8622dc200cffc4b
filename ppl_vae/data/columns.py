"""Fields of named columns, each of numbers or of text."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ppl_vae.data.delimited import number
from ppl_vae.data.roles import NO_CLASSES, ROW_LABELS, Classes, Roles, Table
from ppl_vae.errors import DataError

UNNAMED = re.compile(r"(unnamed: \d+(\.\d+)?)?", re.IGNORECASE)  # as pandas calls such columns
_AMOUNT = re.compile(r"[$€£+-]?\s*\d[\d.,'\s]*[%$€£]?")  # as people write numbers
IDS = {"id", "index", "row", "rowname", "rownames", "name", "names", "barcode", "sample"}


def of_columns(
    columns: Mapping[str, np.ndarray],
    labels: Sequence[str] | None,
    roles: Roles,
    where: Sequence[str],
    classes: Classes = NO_CLASSES,
) -> Table:
    """Return the fields of columns.

    Parameters
    ----------
    columns : dict
        Arrays of numbers, or of text (dtype object), each `[N]`.
    labels : sequence of str or None
        Names of the rows that are no column.
    roles : Roles
    where : sequence of str
        What to call a row in a message, by row.
    classes : dict
        Texts by field (or by column of x) in the order of their codes, where these are settled already.

    Raises
    ------
    DataError
        Text that has no role, and a missing number where no mask is asked for.
    UsageError
        A role of no column, or two roles of one.
    """
    roles = roles.among(columns)
    table, rest, classes = Table({}), dict(columns), dict(classes)
    for name in roles.ignore or ():
        rest.pop(name)
    for role, target in (("label", "y"), ("batch", "batch")):
        name = getattr(roles, role)
        if name is not None:
            table.fields[target] = codes_of(rest.pop(name), name, target, where, table, classes)
    if roles.mask not in (None, "nan"):
        table.fields["mask"] = as_mask(rest.pop(roles.mask), roles.mask, where)
    labels = _row_names(rest, labels, roles, table)
    names = roles.x or list(rest)
    if not roles.x:
        _refuse_text(rest, where, other=roles.lenient)
    if names:
        table.fields = {"x": _matrix(rest, names, roles.mask, where, table, classes), **table.fields}
        table.coords["x"] = list(names)
    if labels is not None:
        table.fields[ROW_LABELS] = np.array(as_texts(labels, "names of rows"), dtype=str)
    taken = set(names)
    left = [name for name in rest if name not in taken]
    if left:
        table.notes.append(f"{_shown(left)} left out, as x is given")
    return table


def _row_names(
    rest: dict[str, np.ndarray], labels: Sequence[str] | None, roles: Roles, table: Table
) -> Sequence[str] | None:
    """Return the names of the rows; a column that holds them is taken out, as is one without a name."""
    if roles.index == "none":
        return None
    for name in [name for name in rest if UNNAMED.fullmatch(name) and name not in (roles.x or ())]:
        values = rest.pop(name)
        table.notes.append(f"the column {name!r}, which has no name of its own, left out of x (index='none')")
        labels = values if labels is None else labels
    if roles.index:
        table.index = roles.index
        table.notes += [f"names of rows from {roles.index!r} instead"] if labels is not None else []
        return rest.pop(roles.index)
    if roles.index == "" or (labels is not None and not _count_rows(labels)):
        return labels
    name = next((name for name in rest if name not in (roles.x or ()) and _names_rows(name, rest)), None)
    if name is None:
        return labels
    table.index = name
    instead = "" if labels is None else " instead"
    table.notes.append(
        f"the column {name!r}, which differs in every row, as names of rows{instead} (index='none')"
    )
    return rest.pop(name)


def _count_rows(labels: Sequence[str]) -> bool:
    """Tell names of rows that are their numbers, as pandas and R write them where there are no names."""
    return [str(label) for label in labels] in (
        [str(i + first) for i in range(len(labels))] for first in (0, 1)
    )


def called_id(name: str) -> bool:
    """Tell the name of a column that names rows."""
    return name.lower() in IDS or name.lower().endswith(("_id", " id"))


def _names_rows(name: str, rest: Mapping[str, np.ndarray]) -> bool:
    values = rest[name]
    if len(values) < 2 or len(rest) < 2 or values.dtype.kind == "f":
        return False
    first_text = name == next(iter(rest)) and not any(_is_amount(str(cell)) for cell in values)
    return (called_id(name) or first_text) and len(set(values.tolist())) == len(values)


def _is_amount(cell: str) -> bool:
    return number(cell) is not None or _AMOUNT.fullmatch(cell) is not None


def _refuse_text(columns: Mapping[str, np.ndarray], where: Sequence[str], other: bool) -> None:
    """Refuse the first column of text, of data that is trained on or of other data for a run."""
    for name, values in columns.items():
        if values.dtype.kind != "O" or not len(values):
            continue
        numbers = [number(str(cell)) for cell in values]
        row = next((i for i, value in enumerate(numbers) if value is None), None)
        if row is None and all(isinstance(cell, str) for cell in values):
            row = next((i for i, v in enumerate(numbers) if isinstance(v, int) and not fits(v)), None)
            if row is not None:
                raise DataError(
                    f"{where[row]}, column {name!r}: {values[row]} is beyond the whole numbers of 64 bits: "
                    "scale it down, or write it with a fraction"
                )
        row = row or 0
        if _AMOUNT.fullmatch(str(values[row])):
            raise DataError(
                f"{where[row]}, column {name!r}: {str(values[row])!r} is no number as it is written: "
                "leave out separators of thousands, units and signs, or say what the column is for "
                "(label=..., ignore=...)"
            )
        if other:
            raise DataError(
                f"{where[row]}, column {name!r}: {str(values[row])!r} is no number, and the run was trained "
                f"without such columns of text: leave out {_shown(_texts(columns))}"
            )
        raise DataError(
            f"{where[row]}, column {name!r}: {str(values[row])!r} is no number: say what columns of text "
            f"are for ({_shown(_texts(columns))}) with label=..., batch=..., index=..., ignore=... or x=..."
        )


def _texts(columns: Mapping[str, np.ndarray]) -> list[str]:
    return [name for name, values in columns.items() if values.dtype.kind == "O"]


def fits(value: int) -> bool:
    """Tell a whole number that 64 bits hold."""
    return -(2**63) <= value < 2**63


def codes_of(
    values: np.ndarray, name: str, target: str, where: Sequence[str], table: Table, known: Classes
) -> np.ndarray:
    """Return a column as it is where it holds numbers, text as codes: as settled, or by the alphabet."""
    empty = values == "" if values.dtype.kind == "O" else np.isnan(values.astype(np.float64))
    if np.any(empty):
        raise DataError(
            f"{where[int(np.argmax(empty))]}, column {name!r} has no value: fill it in, or drop the row"
        )
    if values.dtype.kind != "O":
        return values
    texts = as_texts(values, name)
    classes = known.get(target) or sorted(set(texts))
    places = {text: i for i, text in enumerate(classes)}
    new = next((i for i, text in enumerate(texts) if text not in places), None)
    if new is not None:
        raise DataError(
            f"{where[new]}, column {name!r}: {texts[new]!r} is none of those trained on: {_shown(classes)}"
        )
    table.coords[target] = list(classes)
    shown = ", ".join(f"{text} {i}" for i, text in enumerate(classes[:6])) + (
        " ..." if len(classes) > 6 else ""
    )
    table.notes.append(f"the texts of {name!r} as codes: {shown}")
    return np.array([places[text] for text in texts], np.int64)


def as_texts(values: Iterable[Any], name: str) -> list[str]:
    """Return values as text; refuses what no file of text can hold with a DataError."""
    try:
        texts = [str(value) for value in values]
        "".join(texts).encode()
    except ValueError as error:
        raise DataError(f"{name!r} holds text that is no Unicode ({error}): write it again") from None
    return texts


def as_mask(values: np.ndarray, name: str, where: Sequence[str]) -> np.ndarray:
    """Return 0 and 1 as False and True; refuses other numbers with a DataError."""
    odd = np.reshape((values != 0) & (values != 1), (len(values), -1)).any(1)
    if odd.any():
        raise DataError(f"{where[int(odd.argmax())]}, column {name!r}: a mask is 0 or 1 (false or true)")
    return values.astype(bool)


def _matrix(
    columns: Mapping[str, np.ndarray],
    names: Sequence[str],
    mask: str | None,
    where: Sequence[str],
    table: Table,
    classes: Classes,
) -> np.ndarray:
    """Return columns side by side, `[N, D]`, whole numbers where all are whole."""
    parts = []
    for name in names:
        values = columns[name]
        if values.dtype.kind == "O":
            values = codes_of(values, name, f"x/{name}", where, table, classes)
        parts.append(values)
    x = np.stack(parts, axis=1)
    missing = np.isnan(x) if x.dtype.kind == "f" else np.zeros(x.shape, bool)
    if mask == "nan":
        table.fields["mask"] = ~missing
        table.notes.append(f"{int(missing.sum())} missing numbers, masked")
        return np.where(missing, 0, x)
    if missing.any():
        row, column = (int(i) for i in np.argwhere(missing)[0])
        raise DataError(
            f"{where[row]}, column {names[column]!r} has no value: fill it in, or mask what is missing "
            "(mask='nan')"
        )
    return x


def _shown(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
