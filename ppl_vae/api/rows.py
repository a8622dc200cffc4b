"""The rows that a run's verbs are given, as the fields that its program takes."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae.errors import DataError
from ppl_vae.program import Program


def checked_rows(bound: Any, x: Any) -> dict[str, np.ndarray]:
    """Return arrays as the program's fields: an array is `x`, a dict goes by name.

    Raises
    ------
    DataError
        For a field that the guide needs and that is missing, fields of different lengths, a shape that is
        not the program's, and what is not finite or no number.
    """
    rows = dict(x) if isinstance(x, Mapping) else {"x": x}
    ready = {name: _checked(bound, name, value) for name, value in rows.items()}
    _check_fields(bound, ready)
    lengths = {name: len(array) for name, array in ready.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"the fields have different numbers of rows: {listed}")
    return ready


def _checked(bound: Any, name: str, value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"{name} is an array of {array.dtype}: give numbers")
    if not array.ndim:
        raise DataError(f"{name} is a single number: give rows")
    array = array.astype(np.float32) if array.dtype == np.float64 else array
    expected = getattr(bound.program, f"{name}_shape", None)
    if expected is not None and array.shape[1:] != tuple(expected):
        raise DataError(
            f"{name} has shape {array.shape[1:]} a row, the program was trained on {tuple(expected)}"
        )
    wrong = np.argwhere(~np.isfinite(array)) if array.dtype.kind == "f" else ()
    if len(wrong):
        raise DataError(f"{name} holds NaN or infinity in row {int(wrong[0][0])}: remove or mask it")
    return array


def _check_fields(bound: Any, rows: Mapping[str, np.ndarray]) -> None:
    """Refuse rows that lack a field for which the guide has no default."""
    taken, last = inspect.signature(bound.program.guide).parameters, 0
    if not isinstance(bound.program, Program):
        # A plain function takes fields by position, so that none of these may be missing before another.
        by_position = bound.arguments.positional
        taken = dict(taken) | dict(zip(by_position, taken.values(), strict=False))
        last = max((place for place, name in enumerate(by_position) if name in rows), default=0)
    for place, name in enumerate(bound.fields):
        needed = name in taken and taken[name].default is inspect.Parameter.empty
        if name not in rows and (needed or place < last):
            raise DataError(
                f"the field {name!r} is missing: the guide needs it; "
                f"give a dict of arrays by name, with {', '.join(bound.fields)}"
            )
