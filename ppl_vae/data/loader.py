"""A user's DataLoader: anything with a length that yields batches, each an array, a tuple or a dict."""

from collections.abc import Iterator, Mapping
from functools import cached_property
from itertools import islice
from numbers import Number
from typing import Any

import numpy as np

from ppl_vae.data.arrays import numeric
from ppl_vae.data.dataset import Data
from ppl_vae.data.kinds import guess_kind
from ppl_vae.errors import DataError

NAME, SOURCE = "loader", "a DataLoader"
NO_BATCHES = "the loader yields no batches: give it rows (with drop_last at least one whole batch)"


def is_batches(given: Any) -> bool:
    """Tell a loader of batches from arrays, dicts, tables, names and Data."""
    return (
        hasattr(given, "__iter__")
        and hasattr(given, "__len__")
        and not hasattr(given, "shape")
        and not isinstance(given, (str, Mapping, Data, list, tuple))
    )


def positional(item: Any) -> dict[str, Any]:
    """Return a batch of any form by the place of each of its parts: what two functions are called with."""
    parts = list(item.values()) if isinstance(item, Mapping) else item
    parts = parts if isinstance(parts, (tuple, list)) else [parts]
    return {f"argument {number:03}": part for number, part in enumerate(parts)}


def whole_batches(given: Any) -> list[Any] | None:
    """Return batches, of a loader or of a list of arrays, tuples or dicts; None for what is one batch."""
    if is_batches(given):
        return list(given)
    listed = isinstance(given, list) and given and not any(isinstance(one, Number) for one in given)
    return given if listed and all(map(_is_batch, given)) else None


def _is_batch(one: Any) -> bool:
    # Beside arrays there may be what has no rows: None, numbers, packed sequences.
    parts = list(one.values()) if isinstance(one, Mapping) else one
    parts = parts if isinstance(parts, (tuple, list)) else [parts]
    return bool(parts) and bool(getattr(parts[0], "shape", ()))


def rows_by_place(given: Any, kind: np.dtype) -> dict[str, np.ndarray]:
    """Return what two functions trained on a loader are given as rows, by place; numbers with a fraction in
    the precision `kind`.

    Raises
    ------
    DataError
        Where parts of a batch have different numbers of rows, or batches rows of different shapes.
    """
    batches = whole_batches(given)
    if batches is not None and not batches:
        raise DataError(NO_BATCHES)
    found = [
        {name: _rows_of(part, name) for name, part in positional(one).items()}
        for one in ([given if _is_batch(given) else np.asarray(given)] if batches is None else batches)
    ]
    for number, arrays in enumerate(found, 1):
        _check_lengths(f"batch {number}", arrays)
        shapes = {name: values.shape[1:] for name, values in arrays.items()}
        if shapes != {name: values.shape[1:] for name, values in found[0].items()}:
            raise DataError(
                f"batch {number} has rows of {_listed(shapes)}, unlike the first: give batches of one shape, "
                "or one batch at a time"
            )
    rows = {name: np.concatenate([arrays[name] for arrays in found]) for name in found[0]}
    return {n: v.astype(kind, copy=False) if v.dtype.kind == "f" else v for n, v in rows.items()}


def _rows_of(part: Any, name: str) -> np.ndarray:
    if part is None or isinstance(part, Number) or type(part).__name__ == "PackedSequence":
        raise DataError(
            f"{name} of the batch is {type(part).__name__}, which has no rows: evaluate, score and log_prob "
            "take it in a loader or a list of batches"
        )
    return numeric(part, name)


class Loader:
    """Batches of a loader, in the order in which it yields them.

    Parameters
    ----------
    batches : DataLoader, or anything with a length that yields batches
    fields : tuple of str, optional
        Of a declared program: a batch is then a dict of those that it holds, like the first batch, with
        numbers as `typed` gives them. None: batches are what the loader yields.
    kind : str, optional
        As in `Data`; by default counts where the first `x` looks like them, else vector.
    """

    name, levels, binarize, options = NAME, None, "none", None

    def __init__(self, batches: Any, fields: tuple[str, ...] | None = None, kind: str | None = None):
        self.batches, self.fields, self._kind = batches, fields, kind
        self.coords: dict[str, list] = {}
        self.roles: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] | None = None  # of a row of the first batch seen
        if not len(self):
            raise DataError(NO_BATCHES)

    def __repr__(self) -> str:
        return f"Loader of {len(self)} batches" + (f" with {', '.join(self.fields)}" if self.fields else "")

    def __len__(self) -> int:
        try:
            return len(self.batches)
        except TypeError:
            raise DataError(
                "the loader has no length: give its data set (an IterableDataset) a __len__, "
                "which is its number of rows"
            ) from None

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """Yield the loader's batches. A resumed epoch leaves out as many as were used, which are the same
        only where the loader's order is.
        """
        for index, item in enumerate(self.batches):
            if index >= start:
                yield item if self.fields is None else self._named(item, index)

    def _named(self, item: Any, index: int) -> dict[str, Any]:
        """Return a batch by field, once it is like the first that was seen."""
        place = f"batch {index + 1} of the loader"
        arrays = {
            name: typed(name, values, self.kind, place)
            for name, values in _by_field(item, self.fields).items()
        }
        shapes = {name: tuple(values.shape[1:]) for name, values in arrays.items()}
        self._shapes = self._shapes or shapes
        if shapes != self._shapes:
            raise DataError(
                f"{place} has rows of {_listed(shapes)}, the first one has {_listed(self._shapes)}: "
                "give every batch the same fields and shapes"
            )
        _check_lengths(place, arrays)
        return arrays

    @cached_property
    def first(self) -> Data:
        """The first batch, from which a program takes its shapes."""
        item = next(iter(self.batches), None)
        if item is None:
            raise DataError(NO_BATCHES)
        arrays = _by_field(item, self.fields)
        if not arrays:
            raise DataError(
                f"the first batch of the loader holds no {' or '.join(self.fields)}: yield dicts with it, "
                "or tuples in the order of the program's fields"
            )
        rows = {name: numeric(values, f"the first batch: {name}") for name, values in arrays.items()}
        _check_lengths("the first batch of the loader", rows)
        self._shapes = {name: values.shape[1:] for name, values in rows.items()}
        return Data(NAME, {"train": rows}, "vector", binarize="none")

    @cached_property
    def kind(self) -> str:
        """Whether whole numbers of `x` stay whole, as those of data in memory: counts, else vector."""
        if self._kind is None and self.fields and "x" in self.first.fields:
            counts = guess_kind([self.first.splits["train"]["x"]]) == "counts"
            return "counts" if counts else "vector"
        return self._kind or "vector"

    @cached_property
    def rows(self) -> int:
        """The number of rows of an epoch, as a DataLoader tells it; else all batches are counted once."""
        counted = _sampled_rows(self.batches)
        return sum(map(_count, islice(self.batches, len(self)))) if counted is None else counted

    def num_rows(self, split: str) -> int:
        """Return the number of rows of a split: all are for training."""
        return self.rows if split == "train" else 0

    def describe(self) -> dict[str, Any]:
        """Return what is known of the data as values for JSON: its number of rows."""
        rows = {"train": {"row": np.arange(self.rows)}}
        return Data(NAME, rows, self.kind, None, "none", "the loader's own", SOURCE).describe()

    @property
    def sha256(self) -> str:
        """What a run goes on with: as many rows."""
        return self.describe()["sha256"]

    def gathered(self) -> dict[str, np.ndarray]:
        """Return the rows of all batches by field."""
        parts = [{name: numeric(value, name) for name, value in one.items()} for one in self.epoch(0)]
        if not parts:
            raise DataError(NO_BATCHES)
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def typed(name: str, values: Any, kind: str, place: str) -> Any:
    """Return the array of a field, or a tensor on its device, in the types of data in memory, never scaled.

    Numbers with a fraction have single precision, as has every `x` that is no count; other whole numbers are
    int64, masks stay bool.
    """
    tensor = hasattr(values, "detach")
    values = values if tensor else numeric(values, f"{place}: {name}")
    whole = not values.is_floating_point() if tensor else values.dtype.kind in "biu"
    if not whole or (name == "x" and kind != "counts"):
        return values.float() if tensor else values.astype(np.float32, copy=False)
    if str(values.dtype).endswith("bool"):
        return values
    return values.long() if tensor else values.astype(np.int64, copy=False)


def _by_field(item: Any, fields: tuple[str, ...]) -> dict[str, Any]:
    """Return a batch by field: a dict goes by name, a tuple in the order of the fields."""
    if not isinstance(item, Mapping):
        parts = item if isinstance(item, (tuple, list)) else (item,)
        item = dict(zip(fields, parts, strict=False))
    return {name: item[name] for name in fields if name in item}


def _check_lengths(place: str, arrays: Mapping[str, Any]) -> None:
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1 or not all(lengths.values()):
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{place} has no rows, or fields with different numbers of them: {listed}")


def _listed(shapes: Mapping[str, tuple[int, ...]]) -> str:
    return ", ".join(f"{name} {shape}" for name, shape in shapes.items()) or "no field"


def _sampled_rows(batches: Any) -> int | None:
    """Return how many rows a DataLoader says that it goes through; None where it does not say."""
    if not hasattr(batches, "batch_sampler"):  # no DataLoader of torch
        return _length(getattr(batches, "dataset", None))
    if batches.batch_sampler is None:  # its data set yields whole batches
        return None
    if not hasattr(batches.batch_sampler, "sampler"):
        return sum(map(len, batches.batch_sampler))
    counted = _length(batches.batch_sampler.sampler)
    return _length(batches.dataset) if counted is None else counted  # an IterableDataset has no sampler


def _length(thing: Any) -> int | None:
    try:
        return len(thing)
    except TypeError:
        return None


def _count(item: Any) -> int:
    """Return the number of rows of a batch: of its first array, or 1."""
    parts = list(item.values()) if isinstance(item, Mapping) else item
    counted = _length(parts[0] if isinstance(parts, (tuple, list)) and parts else parts)
    return 1 if counted is None else counted
