"""The log density that a model without latents gives rows: independent columns, fitted in closed form."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.special import gammaln, xlogy

from ppl_vae.data.batches import count_rows, slices
from ppl_vae.errors import DataError

CELLS = 2**22
MOST_CELLS = 2**28
MORE_ROWS = (1, 30, 1000)
FLOOR = 1e-8  # of a variance, as that of the likelihoods' scales

Columns = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Baseline:
    """What independent columns give.

    Attributes
    ----------
    family : str
        The distribution of a column, in words.
    log_prob : [N]
        Of every scored row, in nats: a mass, or a density, as that of the model.
    """

    family: str
    log_prob: np.ndarray


def independent(
    train: np.ndarray,
    rows: np.ndarray,
    discrete: bool,
    levels: int | None = None,
    *,
    train_mask: np.ndarray | None = None,
    mask: np.ndarray | None = None,
) -> Baseline:
    """Fit a distribution to each column of the training rows, and score rows under all of them.

    Parameters
    ----------
    train, rows : [M, *event], [N, *event]
        Rows as a program receives them.
    discrete : bool
        Masses, to compare with a likelihood that is a mass; else densities.
    levels : int, optional
        The values of a mass are 0, 1/(levels-1), ..., 1: each column has the frequencies of its levels, with
        1, 30 or 1000 more rows that have those of all columns, whichever gives the scored rows most. None:
        they are counts, and a column has a negative binomial of the mean and variance of its counts (half a
        count more), a Poisson where they vary less than that.
    train_mask, mask : [M, *event], [N, *event], optional
        Numbers where it is false are left out.

    Returns
    -------
    Baseline
        Of densities: normal columns, of a scale each (with one more row of the mean variance) or of one
        scale for all, whichever gives the scored rows more.

    Raises
    ------
    DataError
        Without rows, for values off the grid of levels, negative or broken counts, or too many columns times
        levels.
    """
    count_rows({"train": train, "rows": rows})
    kept = _flat(np.ones(train.shape, bool) if train_mask is None else train_mask)
    scored = _flat(np.ones(rows.shape, bool) if mask is None else mask)
    train, rows = _flat(train), _flat(rows)
    if not discrete:
        return _normal(train, kept, rows, scored)
    if levels is None:
        summed = _summed(_negative_binomial, train, kept, rows, scored)
        return Baseline("negative binomial", summed)
    if train.shape[1] * levels > MOST_CELLS:
        raise DataError(f"{train.shape[1]} columns of {levels} levels are too many to count")
    return _histogram(levels, train, kept, rows, scored)


def _flat(x: np.ndarray) -> np.ndarray:
    return x.reshape(len(x), math.prod(x.shape[1:]))


def _parts(train: np.ndarray, rows: np.ndarray, cells: int = 1) -> list[slice]:
    """Return the columns in parts that fit into memory."""
    return list(slices(rows.shape[1], max(1, CELLS // max(len(train), len(rows), cells))))


def _summed(columns: Columns, train, kept, rows, scored) -> np.ndarray:
    """Return the sum over the columns, [N]."""
    total = np.zeros(len(rows))
    for part in _parts(train, rows):
        value = columns(train[:, part], kept[:, part], rows[:, part], scored[:, part])
        total += np.where(scored[:, part], value, 0.0).sum(1)
    return total


def _histogram(levels: int, train, kept, rows, scored) -> Baseline:
    parts = _parts(train, rows, levels)
    every = np.ones(levels)
    for part in parts:
        every += np.bincount(
            _numbered(train[:, part], kept[:, part], levels)[kept[:, part]], minlength=levels
        )
    every /= every.sum()
    totals = {more: np.zeros(len(rows)) for more in MORE_ROWS}
    for part in parts:
        held, number = kept[:, part], _numbered(rows[:, part], scored[:, part], levels)
        place = np.arange(number.shape[1]) * levels
        seen = np.bincount(
            (place + _numbered(train[:, part], held, levels))[held], minlength=place.size * levels
        )
        for more, total in totals.items():
            chance = (seen[place + number] + more * every[number]) / (held.sum(0) + more)
            total += np.where(scored[:, part], np.log(chance), 0.0).sum(1)
    more = max(totals, key=lambda one: totals[one].mean())
    family = "Bernoulli" if levels == 2 else f"histogram of {levels} levels"
    shared = f" (with {more} more rows that have the frequencies of all columns)" if more > 1 else ""
    return Baseline(family + shared, totals[more])


def _numbered(values: np.ndarray, kept: np.ndarray, levels: int) -> np.ndarray:
    scaled = np.where(kept, values, 0) * (levels - 1.0)
    number = np.rint(scaled).astype(np.int64)
    if number.size and (np.abs(scaled - number).max() > 1e-3 or number.min() < 0 or number.max() >= levels):
        raise DataError(f"the values are not on the grid of {levels} levels")
    return number


def _negative_binomial(train, kept, rows, scored) -> np.ndarray:
    number, total, spread = _moments(train, kept)
    number = np.maximum(number, 1)
    mean, variance = (total + 0.5) / number, spread / number
    over = variance > mean
    size = np.where(over, mean**2 / np.where(over, variance - mean, 1), 1.0)
    count = np.where(scored, rows, 0).astype(np.float64)
    if (count < 0).any() or (count % 1 != 0).any():
        raise DataError("the values are no counts")
    wide = gammaln(count + size) - gammaln(size) + size * np.log(size / (size + mean))
    wide += xlogy(count, mean / (size + mean))
    return np.where(over, wide, xlogy(count, mean) - mean) - gammaln(count + 1)


def _moments(values: np.ndarray, kept: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return number, sum and sum of squared deviations of the kept values of each column."""
    values = np.where(kept, values, 0).astype(np.float64)
    number, total = kept.sum(0), values.sum(0)
    deviation = np.where(kept, values - total / np.maximum(number, 1), 0.0)
    return number, total, np.square(deviation).sum(0)


def _normal(train, kept, rows, scored) -> Baseline:
    parts = _parts(train, rows)
    found = [_moments(train[:, part], kept[:, part]) for part in parts]
    number, total, spread = (np.concatenate(one) for one in zip(*found, strict=True))
    common = max(float(spread.sum()) / max(int(number.sum()), 1), FLOOR)
    own = np.maximum((spread + common) / (number + 1), FLOOR)
    mean = total / np.maximum(number, 1)
    each, one = np.zeros(len(rows)), np.zeros(len(rows))
    for part in parts:
        square = np.square(rows[:, part] - mean[part])
        for sums, variance in ((each, own[part]), (one, common)):
            density = -0.5 * (square / variance + np.log(2 * math.pi * variance))
            sums += np.where(scored[:, part], density, 0.0).sum(1)
    if each.mean() >= one.mean():
        return Baseline("normal distribution", each)
    return Baseline("normal distribution (mean of its own, one scale for all)", one)
