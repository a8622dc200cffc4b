"""Rules that divide rows into train, valid and test, each with the sentence that states it."""

import numpy as np

from ppl_vae import checks
from ppl_vae.errors import UsageError


def amount(size: int | float | None, n: int, default: int | float, name: str) -> int:
    """Rows to hold out: a number of rows, or a fraction below 1 of all `n` (at least 1)."""
    size = default if size is None else size
    if isinstance(size, bool) or not isinstance(size, (int, float, np.integer, np.floating)) or not size >= 0:
        raise UsageError(f"{name}={size!r}: give a number of rows or a fraction below 1 (0 for none)")
    if not float(size).is_integer():
        if size >= 1:
            raise UsageError(f"{name}={size!r}: give a whole number of rows or a fraction below 1")
        size = min(max(1, round(size * n)), max(0, n - 1))
    if size and size >= n:
        raise UsageError(f"{name}={size} leaves nothing to train on: there are {n} rows")
    return int(size)


def take(rows: dict, index) -> dict:
    """The rows of every field at an index array or slice."""
    return {name: values[index] for name, values in rows.items()}


def count(rows: dict) -> int:
    """Number of rows."""
    return len(next(iter(rows.values())))


def hold_out_last(train: dict, valid: int) -> dict:
    """Splits with the last `valid` training rows as validation set (none for 0)."""
    n = count(train)
    if valid == 0:
        return {"train": train}
    return {"train": take(train, slice(0, n - valid)), "valid": take(train, slice(n - valid, n))}


def at_random(rows: dict, valid=None, test=None, seed: int = 0) -> tuple[dict, str]:
    """Seeded random splits, by default 80/10/10; rows keep their order within a split.

    Returns
    -------
    (dict, str)
        The splits that are not empty, and the rule in words.
    """
    checks.whole_number("split_seed", seed, least=0)
    n = count(rows)
    sizes = {"valid": amount(valid, n, 0.1, "valid"), "test": amount(test, n, 0.1, "test")}
    sizes = {"train": n - sum(sizes.values()), **sizes}
    if sizes["train"] < 1:
        if valid is not None or test is not None or n > 2:
            held = f"valid={sizes['valid']} and test={sizes['test']}"
            raise UsageError(f"{held} leave nothing to train on: there are {n} rows")
        sizes = {"train": n, "valid": 0, "test": 0}
    permutation, splits, start = np.random.default_rng(seed).permutation(n), {}, 0
    for split, size in sizes.items():
        if size:
            splits[split] = take(rows, np.sort(permutation[start : start + size]))
        start += size
    parts = ", ".join(f"{size} {split}" for split, size in sizes.items())
    return splits, f"random: {parts}, in this order along numpy default_rng({seed}).permutation({n})"
