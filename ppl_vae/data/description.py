"""What a run records of its data, and what other data means beside it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from ppl_vae.checks import counted
from ppl_vae.data.arrays import as_fields, numeric, of
from ppl_vae.data.dataset import Data, as_taken
from ppl_vae.data.kinds import levels_of, stored
from ppl_vae.data.loader import SOURCE, Loader, is_batches, typed
from ppl_vae.data.loading import load
from ppl_vae.errors import DataError, RunError, UsageError


@dataclass(frozen=True)
class Description:
    """The data of a run: `Data.describe`, how it was loaded, and the names of its columns."""

    name: str
    kind: str
    levels: int | None
    binarize: str
    rows: dict[str, int]
    shapes: dict[str, list[int]]
    split_rule: str
    source: str
    licence: str
    sha256: str
    options: dict[str, Any] | None = None
    columns: list[str] | None = None

    @classmethod
    def of(cls, data: Data | Loader) -> "Description":
        """Describe data."""
        return cls(**data.describe(), options=data.options, columns=data.coords.get("x"))

    @property
    def is_loader(self) -> bool:
        """The run was trained on the batches of a loader, whose values have no known meaning."""
        return self.source == SOURCE

    def again(self, place: str | None = None, offline: bool = False) -> Data:
        """Load the data again, from another place where one is given; refuses other data."""
        if not self.options:
            raise RunError(f"the run's data {self.name!r} was made in memory: give it as data=...")
        options = dict(self.options)
        where = options.pop("name_or_path")
        return self.same(load(place or where, offline=offline, **options))

    def same(self, data: Data | Loader) -> Data | Loader:
        """Return the data as the run was trained on it; refuses other data."""
        if isinstance(data, Loader) and self.is_loader and data.rows != self.rows["train"]:
            raise RunError(
                f"the loader has {counted(data.rows, 'row')}, the run was trained on "
                f"{self.rows['train']}: give the same loader as data=..."
            )
        if data.sha256 != self.sha256:
            raise RunError(
                f"{data.name!r} is not what the run was trained on (its sha256 differs): "
                "name the right data with --data"
            )
        return data if isinstance(data, Loader) else data.under(self.binarize)

    def beside(self, given: Any, fields: tuple[str, ...] = (), offline: bool = False) -> Data:
        """Return data beside the run's own, as that was binarized.

        The run's own data keeps its splits. Other data without splits becomes one test split of all of its
        rows, in order. Whole numbers of `x` mean what they meant in training. Of what a loader yields, the
        program's fields are taken.
        """
        if isinstance(given, Data):
            return self._under(given)
        make = partial(self._made, _gathered(given, fields), offline)
        dataset = make()
        if dataset.sha256 != self.sha256 and dataset.split_rule.startswith("random"):
            whole = make(valid=0, test=0).splits["train"]
            dataset = replace(dataset, splits={"test": whole}, split_rule="all rows")
        return self._under(dataset)

    def _under(self, data: Data) -> Data:
        try:
            return data.under(self.binarize)
        except UsageError:
            shape = self.shapes.get("x")
            if shape is not None and "x" in data.fields and data.shape("x") != tuple(shape):
                fault = f"x has shape {data.shape('x')} per row, the run was trained on {tuple(shape)}"
                raise DataError(f"{fault}: give rows of that shape") from None
            raise

    def _made(self, given: Any, offline: bool, **held: int) -> Data:
        if not isinstance(given, (str, PathLike)):
            return self._in_order(of(given, like=self, **held))
        options = {name: value for name, value in (self.options or {}).items() if name != "name_or_path"}
        try:
            return self._in_order(load(given, offline=offline, like=self, **options | held))
        except UsageError:  # what the run's data was made with does not fit other data
            return self._in_order(load(given, offline=offline, like=self, **held))

    def _in_order(self, data: Data) -> Data:
        place = self._places(data.coords.get("x"))
        if not place:
            return data
        splits = {split: rows | {"x": rows["x"][:, place]} for split, rows in data.splits.items()}
        return replace(data, splits=splits, coords=data.coords | {"x": self.columns})

    def _places(self, names: Sequence[str] | None) -> list[int]:
        """Return where a table has the columns that the run was trained on, none where they are in order;
        refuses other columns.
        """
        if not self.columns or not names or list(names) == list(self.columns):
            return []
        missing = [name for name in self.columns if name not in names]
        unknown = [name for name in names if name not in self.columns]
        if missing or unknown:
            parts = (("lacks", missing), ("has", unknown))
            listed = " and ".join(f"{verb} {', '.join(columns)}" for verb, columns in parts if columns)
            raise DataError(f"the table {listed}: the run was trained on {', '.join(self.columns)}")
        return [names.index(name) for name in self.columns]

    def named(self, given: Any, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return rows that a verb is given as numbers by field, in the order of the run's columns."""
        arrays, coords = as_fields(_gathered(given, fields))
        arrays = {str(name): numeric(values, str(name)) for name, values in arrays.items()}
        if place := self._places(coords.get("x")):
            arrays["x"] = arrays["x"][:, place]
        return arrays

    def scaled(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return rows by field in the scale that the program was trained on.

        Numbers with a fraction are in that scale already. Whole numbers of `x` are the levels of the run's
        data (bytes of images, counts); true and false are 1 and 0. After training on a loader, values are
        what they are.
        """
        return {name: self._scaled(name, values) for name, values in rows.items()}

    def _scaled(self, name: str, values: np.ndarray) -> np.ndarray:
        if self.is_loader:
            return typed(name, values, self.kind, "the rows given")
        if name != "x" or values.dtype.kind == "f" or not values.size:
            return as_taken(values)
        if values.dtype.kind == "b":
            return values.astype(np.float32)
        levels = levels_of([values], "the rows given", self.kind, self.levels)
        return as_taken(stored(values, "x", self.kind, levels), levels)


def _gathered(given: Any, fields: tuple[str, ...]) -> Any:
    """Return what is given, of a loader all rows; their whole numbers are left to whoever takes them."""
    return Loader(given, fields, "counts").gathered() if is_batches(given) else given
