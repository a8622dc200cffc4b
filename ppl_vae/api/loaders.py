"""A user's DataLoader as a source of batches: anything with a length that yields batches."""

from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from ppl_vae.data import Data
from ppl_vae.errors import DataError
from ppl_vae.program import Program, data_fields

LOADER = "loader"


def is_loader(data: Any) -> bool:
    """Tell a loader of batches from arrays, dicts, tables, names and Data."""
    return (
        hasattr(data, "__iter__")
        and hasattr(data, "__len__")
        and not hasattr(data, "shape")
        and not isinstance(data, (str, Mapping, Data, list, tuple))
    )


class Loader:
    """Batches of a loader, in the order in which it yields them."""

    def __init__(self, loader: Any):
        self.loader = loader
        if not len(loader):
            raise DataError("the loader yields no batches")
        dataset = getattr(loader, "dataset", None)
        self.rows = (
            len(dataset)
            if hasattr(dataset, "__len__")
            else len(loader) * (getattr(loader, "batch_size", None) or 1)
        )

    def __len__(self) -> int:
        return len(self.loader)

    def epoch(self, number: int, start: int = 0) -> Iterator[Any]:
        """Yield the loader's batches. A resumed epoch leaves out as many as were used, which are the same
        only where the loader's order is.
        """
        for index, item in enumerate(self.loader):
            if index >= start:
                yield item

    def shapes(self, program: Program) -> Any:
        """Return fields and shapes of the first batch, as a declared program adapts to them."""
        arrays = _arrays(next(iter(self.loader)), data_fields(program))
        return SimpleNamespace(
            fields=tuple(arrays), shape=lambda name: arrays[name].shape[1:], raw=lambda split: arrays
        )

    def gathered(self, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
        """Return the rows of all batches by field."""
        parts = [_arrays(item, fields) for item in self.loader]
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _arrays(item: Any, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    if not isinstance(item, Mapping):
        parts = item if isinstance(item, (tuple, list)) else (item,)
        item = dict(zip(fields, parts, strict=False))
    return {name: np.asarray(item[name]) for name in fields if name in item}


def described(loader: Loader) -> Data:
    """Return a description of a loader's data: its number of rows and nothing else."""
    return Data(
        LOADER,
        {"train": {"row": np.arange(loader.rows)}},
        "vector",
        None,
        "none",
        "the loader's own",
        "a DataLoader",
    )
