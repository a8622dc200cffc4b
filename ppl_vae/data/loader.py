"""A user's DataLoader: anything with a length that yields batches, each an array, a tuple or a dict."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ppl_vae.data.dataset import Data
from ppl_vae.errors import DataError

NAME, SOURCE = "loader", "a DataLoader"


def is_batches(given: Any) -> bool:
    """Tell a loader of batches from arrays, dicts, tables, names and Data."""
    return (
        hasattr(given, "__iter__")
        and hasattr(given, "__len__")
        and not hasattr(given, "shape")
        and not isinstance(given, (str, Mapping, Data, list, tuple))
    )


class Loader:
    """Batches of a loader, in the order in which it yields them; values are taken as they are."""

    name, levels, binarize, options = NAME, None, "none", None

    def __init__(self, batches: Any):
        self.batches = batches
        if not len(batches):
            raise DataError("the loader yields no batches")
        dataset = getattr(batches, "dataset", None)
        self.rows = (
            len(dataset)
            if hasattr(dataset, "__len__")
            else len(batches) * (getattr(batches, "batch_size", None) or 1)
        )
        self.coords: dict[str, list] = {}

    def __len__(self) -> int:
        return len(self.batches)

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """Yield the loader's batches. A resumed epoch leaves out as many as were used, which are the same
        only where the loader's order is.
        """
        for index, item in enumerate(self.batches):
            if index >= start:
                yield item

    def num_rows(self, split: str) -> int:
        """Return the number of rows of a split: all are for training."""
        return self.rows if split == "train" else 0

    def describe(self) -> dict[str, Any]:
        """Return what is known of the data as plain values: its number of rows."""
        rows = {"train": {"row": np.arange(self.rows)}}
        return Data(NAME, rows, "vector", None, "none", "the loader's own", SOURCE).describe()

    @property
    def sha256(self) -> str:
        """What a run goes on with: as many rows."""
        return self.describe()["sha256"]

    def first(self, fields: tuple[str, ...]) -> Data:
        """Return the first batch, from which a program takes its shapes."""
        return Data(NAME, {"train": arrays(next(iter(self.batches)), fields)}, "vector", binarize="none")

    def gathered(self, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return the rows of all batches by field."""
        parts = [arrays(item, fields) for item in self.batches]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def arrays(item: Any, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Return a batch by field: a dict goes by name, a tuple in the order of the fields."""
    if not isinstance(item, Mapping):
        parts = item if isinstance(item, (tuple, list)) else (item,)
        item = dict(zip(fields, parts, strict=False))
    return {name: np.asarray(item[name]) for name in fields if name in item}
