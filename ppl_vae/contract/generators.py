"""The random generators that belong to no backend."""

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

_SEEDS = itertools.count()


@contextmanager
def foreign_generators() -> Iterator[None]:
    """Leave the generators of NumPy and Python as they were.

    Within, they differ from call to call: a program that draws from them shows it.
    """
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    seed = next(_SEEDS)
    try:
        random.seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
