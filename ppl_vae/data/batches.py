"""Order and batches of the rows: a function of (seed, epoch), so that a run can be resumed at any step; and
rows in chunks.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from ppl_vae import checks
from ppl_vae.errors import DataError, UsageError


def order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which an epoch visits the rows.

    Returns
    -------
    np.ndarray
        int64 `[n]`, a permutation of `0 .. n-1` by `np.random.default_rng([seed, epoch])`.

    Raises
    ------
    UsageError
        If there are no rows, or seed or epoch is negative.
    """
    if n < 1:
        raise UsageError(f"an order needs at least 1 row, got {n}")
    if seed < 0 or epoch < 0:
        raise UsageError(f"seed and epoch must not be negative, got seed={seed}, epoch={epoch}")
    return np.random.default_rng([seed, epoch]).permutation(n)


def num_batches(n: int, batch_size: int) -> int:
    """Batches per epoch, the odd last one counted; `UsageError` where `batch_size` does not fit `n` rows."""
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} is not positive: choose at least 1")
    if batch_size > n:
        raise UsageError(
            f"batch_size={batch_size} is larger than the data ({checks.counted(n, 'row')}): "
            f"choose a batch size (batch_size=...) of at most {n}"
        )
    return -(-n // batch_size)


def batches(order: np.ndarray, batch_size: int) -> Iterator[np.ndarray]:
    """Cut an order into index arrays of `batch_size`; the odd last one too.

    Raises
    ------
    UsageError
        At once (not at the first batch), if `batch_size` is below 1 or above the number of rows.
    """
    count = num_batches(len(order), batch_size)
    return (order[i * batch_size : (i + 1) * batch_size] for i in range(count))


def count_rows(rows: Mapping[str, np.ndarray]) -> int:
    """Return the number of rows of arrays by field; refuses an empty set."""
    count = min((len(array) for array in rows.values()), default=0)
    if not count:
        raise DataError("there are no rows: give at least one")
    return count


def chunk_rows(rows: Mapping[str, np.ndarray], most: int) -> Iterator[slice]:
    """Return slices over the rows, at most `most` at a time."""
    return slices(count_rows(rows), most)


def slices(count: int, most: int) -> Iterator[slice]:
    """Return slices over `count` entries, at most `most` at a time."""
    return (slice(start, min(start + most, count)) for start in range(0, count, most))


def dims_of(rows: Mapping[str, np.ndarray]) -> int:
    """Return the numbers that a row has in its largest field, at least 1."""
    return max((int(np.prod(array.shape[1:], dtype=np.int64)) for array in rows.values()), default=1) or 1
