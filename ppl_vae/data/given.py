"""What a user gives as data: decided here, once, for training and for every verb of a run."""

from os import PathLike
from typing import Any

from ppl_vae.data.arrays import of
from ppl_vae.data.dataset import Data
from ppl_vae.data.loader import Loader, is_batches
from ppl_vae.data.loading import load


def in_memory(given: Any) -> Data:
    """Return rows in memory: Data itself, arrays, a table, a name or a path."""
    return load(given) if isinstance(given, (str, PathLike)) else of(given)


def opened(given: Any) -> Data | Loader:
    """Return what to train on: a loader as a Loader, anything else in memory."""
    return Loader(given) if is_batches(given) else in_memory(given)
