"""What a run records of its data, and what other data means beside it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from os import PathLike
from typing import Any

import numpy as np

from ppl_vae.checks import counted
from ppl_vae.data.arrays import as_table, numeric, of, say_notes
from ppl_vae.data.columns import as_mask
from ppl_vae.data.dataset import Data, Rows, as_taken
from ppl_vae.data.kinds import laid_out, levels_of, stored
from ppl_vae.data.loader import SOURCE, Loader, is_batches, typed
from ppl_vae.data.loading import load
from ppl_vae.data.roles import NO_ROLES, ROW_LABELS, Roles
from ppl_vae.errors import DataError, RunError, UsageError


@dataclass(frozen=True)
class Description:
    """The data of a run.

    Attributes
    ----------
    name ... sha256
        As `Data.describe` tells them.
    options : dict or None
        How it was loaded.
    columns : list of str or None
        Names of the columns of x.
    classes : dict
        Names of classes by field.
    roles : dict
        What the columns of its table were for.
    types : dict
        "int", "float" or "bool" by field other than x.
    num_classes : dict
        Numbers of classes by field, of those that have names or roles or that the program counts.
    """

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
    classes: dict[str, list[str]] = field(default_factory=dict)
    roles: dict[str, Any] = field(default_factory=dict)
    types: dict[str, str] = field(default_factory=dict)
    num_classes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if "train" not in self.rows:
            raise UsageError("rows has no train")
        if self.options and not isinstance(self.options.get("name_or_path"), str):
            raise UsageError("options has no name_or_path")

    def record(self) -> dict[str, Any]:
        """Return the description as a run folder holds it, without what is empty."""
        return {name: value for name, value in asdict(self).items() if value != {}}

    @classmethod
    def of(cls, data: Data | Loader) -> "Description":
        """Describe data."""
        classes = {name: texts for name, texts in data.coords.items() if name != "x"}
        named = {"columns": data.coords.get("x"), "classes": classes}
        return cls(**data.describe(), options=data.options, **named, roles=data.roles, **_of_fields(data))

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
        if place is None and os.path.isabs(where) and not os.path.exists(where):
            raise DataError(f"the run's data is no longer at {where}: say where it lies now with data=...")
        if self.columns and not self.roles:
            options["index"] = "none"  # before columns had roles, all of them were x
        return self.same(load(place or where, offline=offline, quiet=True, **options))

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
                "give the right data as data=..."
            )
        return data if isinstance(data, Loader) else data.under(self.binarize)

    def as_given(self, given: Any) -> Data:
        """Return data that is given for the run's own, read as that was."""
        return self._under(given if isinstance(given, Data) else self._made(given, False))

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
            whole = make(valid=0, test=0)
            splits, labels = (
                {"test": rows["train"]} if rows else {} for rows in (whole.splits, whole.labels)
            )
            dataset = replace(whole, splits=splits, labels=labels, split_rule="all rows")
        say_notes(dataset)
        return self._under(dataset)

    def _under(self, data: Data) -> Data:
        data = self._recoded(self._in_order(data))
        for split, rows in data.splits.items():
            for name in rows.keys() - {"x"}:
                self._checked(name, rows[name], f" ({split})")
        try:
            return data.under(self.binarize)
        except UsageError:
            shape = self.shapes.get("x")
            if shape is not None and "x" in data.fields and data.shape("x") != tuple(shape):
                fault = f"x has shape {data.shape('x')} per row, the run was trained on {tuple(shape)}"
                raise DataError(f"{fault}: give rows of that shape") from None
            raise

    def _recoded(self, data: Data) -> Data:
        """Return data whose classes have the codes of training; refuses others."""
        splits = {split: dict(rows) for split, rows in data.splits.items()}
        for name, texts in data.coords.items():
            known = self.classes.get(name)
            if name not in data.fields or name == "x" or not known or list(known) == list(texts):
                continue
            new = sorted(set(texts) - set(known))
            if new:
                raise DataError(f"{name}: {', '.join(new)} are none of those trained on: {', '.join(known)}")
            places = np.array([known.index(text) for text in texts], np.int64)
            for rows in splits.values():
                rows[name] = places[rows[name]]
        return replace(data, splits=splits, coords=data.coords | self.classes) if self.classes else data

    def _made(self, given: Any, offline: bool, **held: int) -> Data:
        if not isinstance(given, (str, PathLike)):
            return self._in_order(of(given, like=self, **held))
        options = {name: value for name, value in (self.options or {}).items() if name != "name_or_path"}
        try:
            return self._in_order(load(given, offline=offline, like=self, **options | held))
        except (UsageError, DataError) as error:  # what the run's data was made with does not fit other data
            if not options:
                raise
            try:
                return self._in_order(load(given, offline=offline, like=self, **held))
            except (UsageError, DataError):
                raise error from None

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

    def roles_beside(self, given: Any = None, roles: Roles = NO_ROLES) -> Roles:
        """Return what the columns of other data are for: as said, the rest as in training where there.

        Runs from before columns had roles took none for names of rows.
        """
        recorded = self.roles if self.roles or not self.columns else {"index": "none"}
        roles = Roles(**(recorded | roles.record()), lenient=True)
        if isinstance(given, Mapping) and not set(roles.x or ()) <= set(map(str, given)):
            roles = replace(roles, x=None)  # rows by field
        return roles

    def labels(self, given: Any) -> np.ndarray | None:
        """Return the names of the rows of a DataFrame, or of those of a split, [N], where they have such."""
        if isinstance(given, Rows):
            return given.names
        if not hasattr(given, "columns"):
            return None
        return as_table(given, self.roles_beside(given), self.classes).fields.get(ROW_LABELS)

    def named(self, given: Any, fields: tuple[str, ...]) -> Rows:
        """Return rows that a verb is given as numbers by field, in the order of the run's columns."""
        given = _gathered(given, fields)
        names = given.names if isinstance(given, Rows) else None
        table = as_table(given, self.roles_beside(given), self.classes)
        arrays = {name: numeric(values, name) for name, values in table.fields.items() if name != ROW_LABELS}
        if place := self._places(table.coords.get("x")):
            arrays["x"] = arrays["x"][:, place]
        if "x" in arrays and "x" in self.shapes and not self.is_loader:
            arrays["x"] = laid_out(arrays["x"], self.kind, tuple(self.shapes["x"]))
        return Rows(arrays, table.fields.get(ROW_LABELS, names), self.columns)

    def scaled(self, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Return rows by field in the scale that the program was trained on.

        Numbers with a fraction are in that scale already. Whole numbers of `x` are the levels of the run's
        data (bytes of images, counts); true and false are 1 and 0. After training on a loader, values are
        what they are.
        """
        about = rows if isinstance(rows, Rows) else Rows(rows)
        return {name: self._scaled(name, values, about) for name, values in rows.items()}

    def _scaled(self, name: str, values: np.ndarray, about: Rows) -> np.ndarray:
        if self.is_loader:
            return typed(name, values, self.kind, "the rows given")
        if name != "x":
            return as_taken(self._checked(name, values))
        if values.dtype.kind == "f" or not values.size:
            return as_taken(values)
        if values.dtype.kind == "b":
            return values.astype(np.float32)
        levels = levels_of([values], "the rows given", self.kind, self.levels)
        return as_taken(stored(values, "x", self.kind, levels, partial(about.called, "x")), levels)

    def _checked(self, name: str, values: np.ndarray, where: str = "") -> np.ndarray:
        """Return a field other than x in the type of training; refuses numbers that are no classes of it."""
        wanted = self.types.get(name)
        if wanted is None or not values.size:
            return values
        if wanted == "float":
            return values.astype(np.float32)
        if wanted == "bool":
            return as_mask(values, name, [f"row {i}{where}" for i in range(len(values))])
        whole = values.astype(np.int64)
        odd = (whole != values).reshape(len(values), -1).any(1)
        if odd.any():
            row = int(np.argmax(odd))
            raise DataError(f"{name}{where} is no whole number in row {row}: the run was trained on such")
        known = self.num_classes.get(name)
        beyond = ((whole < 0) | (whole >= (known or np.inf))).reshape(len(values), -1).any(1)
        if known and beyond.any():
            row = int(np.argmax(beyond))
            raise DataError(
                f"{name}{where} is {whole[row]} in row {row}: the run was trained on classes 0 to {known - 1}"
            )
        return whole


def _of_fields(data: Data | Loader) -> dict[str, dict[str, Any]]:
    """Return the types and the numbers of classes of the fields beside x."""
    types: dict[str, str] = {}
    num_classes: dict[str, int] = {}
    if isinstance(data, Data):
        for name, values in data.splits["train"].items():
            if name == "x":
                continue
            kind = values.dtype.kind
            types[name] = {"f": "float", "b": "bool"}.get(kind, "int")
            if name in data.coords:
                num_classes[name] = len(data.coords[name])
            elif kind in "ui" and (name in data.counted or {"y": "label"}.get(name, name) in data.roles):
                num_classes[name] = int(values.max()) + 1
    return {"types": types, "num_classes": num_classes}


def _gathered(given: Any, fields: tuple[str, ...]) -> Any:
    """Return what is given, of a loader all rows; their whole numbers are left to whoever takes them."""
    return Loader(given, fields, "counts").gathered() if is_batches(given) else given
