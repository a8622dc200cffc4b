"""Whether rows that a run's verbs are given are what its program takes."""

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae.errors import DataError


def check_rows(bound: Any, rows: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    """Return rows by field as they are, once they fit the program.

    Raises
    ------
    DataError
        For a field that the guide needs and that is missing, fields of different lengths, and a shape that is
        not the program's.
    """
    for name, array in rows.items():
        expected = getattr(bound.program, f"{name}_shape", None)
        if expected is not None and array.shape[1:] != tuple(expected):
            raise DataError(
                f"{name} has shape {array.shape[1:]} per row, the program was trained on {tuple(expected)}"
            )
    _check_fields(bound, rows)
    lengths = {name: len(array) for name, array in rows.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"the fields have different numbers of rows: {listed}")
    return rows


def _check_fields(bound: Any, rows: Mapping[str, np.ndarray]) -> None:
    """Refuse rows that lack a field for which the guide has no default."""
    taken, last = inspect.signature(bound.program.guide).parameters, 0
    if not bound.declared:
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
