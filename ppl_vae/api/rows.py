"""Whether rows that a run's verbs are given are what its program takes."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.data.description import Description
from ppl_vae.data.roles import Roles
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.errors import DataError, RunError, UsageError

_REQUIRED = inspect.Parameter.empty


def needs(function: Callable[..., Any], name: str) -> bool:
    """Tell whether a function has a parameter of that name without a default."""
    taken = inspect.signature(function).parameters
    return name in taken and taken[name].default is _REQUIRED


def check_rows(
    bound: Any, rows: Mapping[str, np.ndarray], trained: Description | None = None
) -> Mapping[str, np.ndarray]:
    """Return rows by field as they are, once they fit the program, and what it was trained on.

    Raises
    ------
    DataError
        For a field that the guide needs and that is missing, fields of different lengths, and a shape that is
        not the program's.
    """
    shapes, roles = (trained.shapes, trained.roles) if trained else ({}, {})
    beside = {name: shape for name, shape in shapes.items() if name != "x"}
    check_shapes(bound, rows, beside)
    _check_fields(bound, rows, Roles(**roles))
    lengths = {name: len(array) for name, array in rows.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"the fields have different numbers of rows: {listed}")
    return rows


def check_shapes(
    bound: Any, rows: Mapping[str, np.ndarray], trained: Mapping[str, Any] | None = None
) -> Mapping[str, np.ndarray]:
    """Return rows by field as they are, once each has the program's shape, or else that of training."""
    for name, array in rows.items():
        expected = getattr(bound.program, f"{name}_shape", None) or (trained or {}).get(name)
        if expected is not None and array.shape[1:] != tuple(expected):
            raise DataError(
                f"{name} has shape {array.shape[1:]} per row, the program was trained on {tuple(expected)}"
            )
    return rows


def between(binarize: str, scored: bool) -> Callable[[str], bool]:
    """Return which fields may hold numbers between those of a likelihood's support: all where nothing is
    scored, and `x` where bits are drawn of it.
    """
    drawn = binarize in ("dynamic", "static")
    return lambda field: not scored or (drawn and field == "x")


def as_rows(value: Any) -> Any:
    """Return a single number or text as one row."""
    single = isinstance(value, (int, float, str, np.generic)) or getattr(value, "shape", None) == ()
    return np.reshape(value, (1,)) if single else value


def repeated(rows: Mapping[str, np.ndarray], n: int) -> dict[str, np.ndarray]:
    """Return n rows of each field: those given, or the only one n times.

    Raises
    ------
    DataError
        For another number of rows.
    """
    for name, values in rows.items():
        if len(values) not in (1, n) or not n:
            raise DataError(f"{name} has {len(values)} rows: give {n} rows, or one for all")
        checks.within_memory("n", n, n * values[:1].nbytes)
    return {name: np.repeat(values, n // len(values), 0) for name, values in rows.items()}


def _check_fields(bound: Any, rows: Mapping[str, np.ndarray], roles: Roles) -> None:
    """Refuse rows that lack a field for which the guide has no default."""
    taken, last = inspect.signature(bound.program.guide).parameters, 0
    if not bound.declared:
        # A plain function takes fields by position, so that none of these may be missing before another.
        by_position = bound.arguments.positional
        taken = dict(taken) | dict(zip(by_position, taken.values(), strict=False))
        last = max((place for place, name in enumerate(by_position) if name in rows), default=0)
    for place, name in enumerate(bound.fields):
        needed = name in taken and taken[name].default is _REQUIRED
        if name not in rows and (needed or place < last):
            raise DataError(
                f"the field {roles.called(name)} is missing: the guide needs it; "
                f"give a dict of arrays by name, with {', '.join(bound.fields)}"
            )


def by_name(covariates: Any) -> Mapping[str, Any]:
    """Return covariates by name, of a DataFrame by column; refuse what is no dict of arrays."""
    if hasattr(covariates, "columns"):
        return {str(name): covariates[name] for name in covariates.columns}
    if covariates is not None and not isinstance(covariates, Mapping):
        raise UsageError(f"covariates is {type(covariates).__name__}: give a dict of arrays by name")
    return covariates or {}


def count(latent: Any) -> int:
    """Return the number of rows of latents."""
    if not np.ndim(latent):
        raise DataError("a latent is a single number: give rows")
    return len(latent)


def refuse_nan(scores: Scores) -> None:
    """Raise RunError for bounds that are no numbers."""
    for name, values in (("ELBO", scores.elbo), ("importance weighted bound", scores.iw)):
        bad = np.isnan(values) if values is not None else np.zeros(0, bool)
        if bad.any():
            raise RunError(
                f"the {name} is NaN in {bad.sum()} of {len(bad)} rows, first in row {int(bad.argmax())}: "
                "the run diverged, or the model has no density there"
            )


def zeros_of(data: Description, fields: Iterable[str]) -> dict[str, np.ndarray]:
    """Return one row of zeros of each of the fields whose shape is known, as a program takes it."""
    kinds = {"int": np.int64, "bool": bool}
    types = {"x": "int" if data.kind == "counts" else "float"} | data.types
    return {
        name: np.zeros((1, *data.shapes[name]), kinds.get(types.get(name, ""), np.float32))
        for name in fields
        if name in data.shapes
    }
