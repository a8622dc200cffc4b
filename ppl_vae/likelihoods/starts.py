"""Arithmetic of first values: from the moments of data to what a decoder would have to give for them."""

import numpy as np
from numpy import concatenate, log, stack
from scipy.special import logit, ndtri

from ppl_vae.likelihoods.base import SCALE_FLOOR

__all__ = [
    "concatenate",
    "concentration",
    "continuous_logit",
    "frequencies",
    "log",
    "log_mean",
    "logistic",
    "logistic_parts",
    "logit",
    "mean",
    "probability",
    "raw",
    "rounded",
    "spread",
    "stack",
]

LEAST = 0.1  # of the typical spread: no dimension starts with less, constant ones neither
# No probability starts nearer to 0 or 1: constant pixels with logits far from 0 slow training down.
EDGE = 0.05


def mean(x: np.ndarray) -> np.ndarray:
    """Return the mean of each dimension, [*x_shape]; of one that is masked throughout, that of all."""
    found = np.ma.mean(np.ma.asarray(x, np.float64), 0)
    return np.asarray(np.ma.filled(found, np.ma.mean(x) if np.ma.count(x) else 0.0))


def spread(x: np.ndarray) -> np.ndarray:
    """Return the standard deviation of each dimension, [*x_shape], at least a tenth of the typical one."""
    found = np.asarray(np.ma.filled(np.ma.std(np.ma.asarray(x, np.float64), 0), 0.0))
    typical = np.sqrt(np.mean(found**2))
    return np.maximum(found, LEAST * typical if typical else 1.0)


def probability(x: np.ndarray) -> np.ndarray:
    """Return the mean of numbers in [0, 1], no nearer to 0 and 1 than EDGE."""
    return np.clip(mean(x), EDGE, 1 - EDGE)


def raw(scale: np.ndarray) -> np.ndarray:
    """Return what `base.positive` maps to a scale."""
    above = np.maximum(scale - SCALE_FLOOR, SCALE_FLOOR)
    return above + np.log(-np.expm1(-above))


def continuous_logit(x: np.ndarray) -> np.ndarray:
    """Return logits of continuous Bernoullis with the mean of each dimension (arXiv:1907.06845, eq. 8)."""
    wanted = probability(x)
    low, high = np.full_like(wanted, -1e3), np.full_like(wanted, 1e3)
    for _ in range(60):  # bisection: the mean rises with the logit
        middle = (low + high) / 2
        small = np.abs(middle) < 1e-3
        safe = np.where(small, 1.0, middle)
        found = np.where(small, 0.5 + middle / 12, -1 / np.expm1(-safe) - 1 / safe)
        low, high = np.where(found < wanted, middle, low), np.where(found < wanted, high, middle)
    return (low + high) / 2


def frequencies(x: np.ndarray, classes: int) -> np.ndarray:
    """Return the log frequency of every class in each dimension, [classes, *x_shape]; a share EDGE of it is
    the same for all classes.
    """
    codes = np.ma.asarray(x)
    counts = np.stack([np.ma.filled((codes == k).sum(0), 0) for k in range(classes)]).astype(np.float64)
    shares = counts / np.maximum(counts.sum(0), 1)
    return np.log((1 - EDGE) * shares + EDGE / classes)


def logistic(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return location, as a logit, and raw scale of the logistic variables of `discrete.logistic`."""
    return logit(probability(x)), raw(spread(x) * np.sqrt(3) / np.pi) + 2.0


def logistic_parts(x: np.ndarray, parts: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for mixtures, [parts, *x_shape] each: apart by quantiles of a normal, half as wide."""
    apart = ndtri((np.arange(parts) + 0.5) / parts).reshape(-1, *[1] * (x.ndim - 1))
    loc = logit(np.clip(probability(x) + apart * spread(x), EDGE, 1 - EDGE))
    scale = raw(spread(x) / 2 * np.sqrt(3) / np.pi) + 2.0
    return loc, np.broadcast_to(scale, loc.shape)


def log_mean(x: np.ndarray) -> np.ndarray:
    """Return the log mean of counts, with half a count more than there are."""
    return np.log((np.maximum(mean(x), 0) * len(x) + 0.5) / len(x))


def concentration(x: np.ndarray) -> np.ndarray:
    """Return concentrations of negative binomials with the moments of each dimension, in [0.1, 100]."""
    centre = mean(x)
    excess = np.asarray(np.ma.filled(np.ma.var(np.ma.asarray(x, np.float64), 0), 0.0)) - centre
    return np.clip(centre**2 / np.maximum(excess, 1e-12), 0.1, 100.0)


def rounded(x: np.ndarray, levels: int) -> np.ndarray:
    """Return grey levels in [0, 1] as whole numbers."""
    return np.ma.round(np.ma.asarray(x) * (levels - 1))
