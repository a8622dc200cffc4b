"""Data from arrays: what kind of data an array is, and the checks that every array passes."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from os import PathLike

import numpy as np

from ppl_vae import checks
from ppl_vae.data import splits as rules
from ppl_vae.data.dataset import SPLITS, Data, as_taken
from ppl_vae.data.fields import dense, of_arrays
from ppl_vae.data.kinds import normalise_x
from ppl_vae.data.masks import observed
from ppl_vae.data.roles import NO_CLASSES, NO_ROLES, ROW_LABELS, Classes, Roles, Table
from ppl_vae.data.tables import of_frame
from ppl_vae.errors import DataError, UsageError

LOG = logging.getLogger(__name__)
LARGEST = np.iinfo(np.int64).max


def of(
    data,
    *,
    name="array",
    binarize=None,
    valid=None,
    test=None,
    split_seed=0,
    kind=None,
    levels=None,
    x=None,
    label=None,
    batch=None,
    index=None,
    ignore=None,
    mask=None,
    like=None,
    **unknown,
) -> Data:
    """Data from an array (field x), a dict of arrays, a dict of splits of them, a DataFrame, or Data.

    Parameters
    ----------
    data
        Arrays have the rows first. Images are `[N, H, W]`, `[N, H, W, C]` or `[N, C, H, W]`. In a dict, names
        such as `x_train, x_valid, x_test` give the splits; so does `{"train": {"x": ...}, "test": ...}`.
    binarize : str, optional
        "none", "dynamic" or "static"; for Data that is passed on, None keeps its own.
    valid, test : int or float, optional
        Rows to hold out where no such split is given, as a number or as a fraction (by default 0.1).
    kind : str, optional
        "image", "vector", "counts" or "sound"; else inferred from type and shape of x.
    levels : int, optional
        Number of levels of a quantised x; else 2 for bits, 256 for images of bytes.
    x, label, batch, index, ignore, mask : str or list of str, optional
        What the columns of a DataFrame (or the arrays of a dict) are for: see `Roles`.
    like : Description, optional
        Of other data, whose kind and levels an x of whole numbers has where none are given, and whose columns
        and classes these are.

    Raises
    ------
    DataError
        Rows that differ in number, an empty set, NaN or infinity, a type that is not numeric.
    UsageError
        An impossible option, or an object that is no data.
    """
    checks.options("data.of", unknown, of.__kwdefaults__)
    if isinstance(data, Data):
        _refuse_options(valid=valid, test=test, kind=kind, levels=levels, split_seed=split_seed or None)
        _refuse_options(x=x, label=label, batch=batch, index=index, ignore=ignore, mask=mask)
        return data if binarize is None else data.under(binarize)
    roles = Roles(x, label, batch, index, ignore, mask)
    if like is not None:
        roles = like.roles_beside(data, roles)
    table = as_table(data, roles, like.classes if like else NO_CLASSES)
    made = of_table(table, name, roles, like, binarize, valid, test, split_seed, kind, levels)
    if like is None:
        say_notes(made)
    return made


def say_notes(data: Data) -> None:
    """Log what was taken for what."""
    for note in data.notes:
        LOG.info("%s: %s", data.name, note)


def of_table(
    table: Table,
    name,
    roles,
    like=None,
    binarize=None,
    valid=None,
    test=None,
    split_seed=0,
    kind=None,
    levels=None,
) -> Data:
    """Return data from the fields of a table; see `of`."""
    by_split, rule = _splits(table.fields, name, valid, test, split_seed)
    by_split = {split: _checked(rows, name, split) for split, rows in by_split.items()}
    labels = {split: rows.pop(ROW_LABELS) for split, rows in by_split.items() if ROW_LABELS in rows}
    _refuse_unequal(by_split, name)
    if like is not None and all("x" in rows and rows["x"].dtype.kind in "ui" for rows in by_split.values()):
        kind, levels = kind or like.kind, levels or like.levels
    kind, levels = normalise_x(by_split, name, kind, levels)
    for rows in by_split.values():
        for field in rows.keys() - {"x"}:
            rows[field] = as_taken(rows[field])
    return Data(
        name,
        by_split,
        kind,
        levels,
        binarize or "auto",
        rule,
        "memory",
        "",
        table.coords,
        labels=labels,
        notes=tuple(table.notes),
        roles={"index": table.index} | roles.record() if "x" in table.coords else roles.record(),
    )


def _refuse_options(**options):
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(f"{', '.join(given)} cannot be changed on Data that is made: load it with them")


def as_table(data, roles: Roles = NO_ROLES, classes: Classes = NO_CLASSES) -> Table:
    """Return what a user gives as named arrays, rows first, with the names of columns where there are any.

    Raises
    ------
    UsageError
        An object that is no data.
    """
    if isinstance(data, Mapping):
        return of_arrays(data, roles, classes)
    if hasattr(data, "columns") and hasattr(data, "iloc"):
        return of_frame(data, roles, classes)
    if hasattr(data, "__array__") or hasattr(data, "toarray") or isinstance(data, (list, tuple)):
        return of_arrays({"x": data}, replace(roles, x=None), classes)
    if isinstance(data, Data):
        raise UsageError("Data has splits: give the rows of one, such as data.rows('test')")
    if isinstance(data, (str, PathLike)):
        raise UsageError(f"{str(data)!r} is a name or a path: load it with data.load({str(data)!r})")
    kinds = "a name, a path, an array, a dict of arrays, a DataFrame or a loader with a length"
    raise UsageError(f"{type(data).__name__} is no data: give {kinds}")


def _splits(fields, name, valid, test, seed):
    """Splits of named arrays, and the rule in words."""
    if not fields:
        raise DataError(f"{name} is empty: it has no fields")
    if all(isinstance(rows, dict) for rows in fields.values()):
        given = {_split_name(split, name): dict(rows) for split, rows in fields.items()}
    else:
        given = _by_suffix(fields, name)
    if given is None:
        rows = _checked(fields, name, None)
        return rules.at_random(rows, valid, test, seed)
    given = {split: _checked(rows, name, split) for split, rows in given.items()}
    return _complete(given, name, valid, test, seed)


def _split_name(split, name):
    if split not in (*SPLITS, "val"):
        raise DataError(f"{name}: {split!r} is no split: name them {', '.join(SPLITS)}")
    return "valid" if split == "val" else split


def _by_suffix(fields, name):
    """`{"x_train": a, "x_test": b}` as splits; None where no name has such an ending, or others do not and no
    split of x is among those that do: `split7_train` beside x is a field.
    """
    given, unsplit = {}, []
    for key, values in fields.items():
        stem, _, ending = str(key).rpartition("_")
        if stem and ending in (*SPLITS, "val"):
            given.setdefault(_split_name(ending, name), {})[stem] = values
        else:
            unsplit.append(str(key))
    if unsplit and not any("x" in rows for rows in given.values()):
        return None
    if given and unsplit:
        raise DataError(
            f"{name}: {', '.join(unsplit)} name no split, others do: end all names in _train, _valid, _test"
        )
    return given or None


def _complete(given, name, valid, test, seed):
    """Splits as given, with a validation set taken from the training rows where there is none."""
    if "train" not in given:
        raise DataError(f"{name} has {', '.join(given)} but no training rows: add a split train")
    if test is not None or ("valid" in given and valid is not None):
        raise UsageError(f"{name} comes with its splits: leave out {'test' if test is not None else 'valid'}")
    for split, rows in given.items():
        if rows.keys() != given["train"].keys():
            odd = sorted(rows.keys() ^ given["train"].keys())
            raise DataError(f"{name}: {', '.join(odd)} must be in train and in {split}")
    rule = "as given"
    if "valid" not in given and valid != 0 and rules.count(given["train"]) > 1:
        parts, rule = rules.at_random(given["train"], valid, 0, seed)
        given, rule = {**given, **parts}, f"as given, with training rows {rule}"
    return {split: given[split] for split in SPLITS if split in given}, rule


def _checked(rows, name, split) -> dict:
    """Fields as finite numeric arrays with equally many rows, at least one."""
    rows = {
        field: values if field == ROW_LABELS else numeric(values, _at(name, str(field), split))
        for field, values in rows.items()
    }
    counts = {field: len(values) for field, values in rows.items()}
    if len(set(counts.values())) != 1:
        counted = ", ".join(f"{field} {n}" for field, n in counts.items())
        raise DataError(
            f"{_at(name, None, split)}: fields differ in their number of rows: {counted}: set aside what "
            "is not one per row with ignore=..."
        )
    if not next(iter(counts.values())):
        raise DataError(f"{_at(name, None, split)} is empty: it has no rows")
    for field, values in rows.items():
        if not values.size:
            raise DataError(
                f"{_at(name, str(field), split)} has rows without numbers, of shape {values.shape[1:]}"
            )
    seen = observed(rows) if split == "train" else None
    if seen is not None and not seen.any():
        raise DataError(
            f"{_at(name, 'x', split)} has no number that is observed: correct the mask, or give rows with "
            "numbers"
        )
    return rows


def _at(name, field, split):
    return f"{name}{f': {field}' if field else ''}{f' ({split})' if split else ''}"


def numeric(values, where: str) -> np.ndarray:
    """An array, tensor, list or column as an array of finite numbers; floats become float32.

    Raises
    ------
    DataError
        Naming the place.
    """
    try:
        values = dense(values)
    except DataError as error:
        raise DataError(f"{where}: {error}") from None
    except (ValueError, TypeError) as error:
        raise DataError(f"{where} is no array of numbers ({error})") from error
    if values.dtype.kind not in "buif":
        raise DataError(f"{where} is not numeric (type {values.dtype}): convert it")
    if values.ndim == 0:
        raise DataError(f"{where} is a single number: give rows")
    if values.dtype.kind == "u" and values.size and values.max() > LARGEST:
        row = int(np.argwhere(values > LARGEST)[0][0])
        raise DataError(f"{where} has a whole number beyond 64 bits with a sign in row {row}: scale it down")
    if values.dtype.kind == "f":
        with np.errstate(over="ignore"):
            values = values.astype(np.float32, copy=False)
        _refuse_not_finite(values, where)
    return values


def _refuse_not_finite(values, where):
    bad = ~np.isfinite(values)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{where} has {int(bad.sum())} values that are NaN, infinite or beyond float32, the first "
            f"({values[at]}) in row {at[0]}{f' at {at[1:]}' if at[1:] else ''}: remove or replace them"
        )


def _refuse_unequal(by_split, name):
    """Splits must agree in the shape and in the kind of type of each field."""
    first, *others = by_split
    for split in others:
        for field, values in by_split[split].items():
            wanted, at = by_split[first][field], f"{name}: {field}"
            if values.shape[1:] != wanted.shape[1:]:
                raise DataError(
                    f"{at} has rows of shape {values.shape[1:]} in {split}, but {wanted.shape[1:]} in {first}"
                )
            if (values.dtype.kind == "f") != (wanted.dtype.kind == "f"):
                raise DataError(f"{at} is {values.dtype} in {split}, but {wanted.dtype} in {first}")
