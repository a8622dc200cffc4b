"""How well rows are reconstructed, and how a codebook is used, on arrays."""

from collections.abc import Mapping

import numpy as np

from ppl_vae.data.masks import observed


def with_gaps(
    values: Mapping[str, np.ndarray], rows: Mapping[str, np.ndarray], masked: bool = False
) -> dict[str, np.ndarray]:
    """Return values by field with NaN where a number of `x` is missing in the rows, by `masks.observed`."""
    mask = observed(rows, masked) if "x" in values else None
    return dict(values) if mask is None else {**values, "x": np.where(mask, values["x"], np.float32("nan"))}


def squared_error(
    x: np.ndarray, reconstruction: np.ndarray, mask: np.ndarray | None = None
) -> dict[str, float]:
    """Return the mean squared error over all numbers, and over their variance (1: no better than the mean);
    nothing where there are none.

    Parameters
    ----------
    x, reconstruction : [N, *event]
    mask : [N, *event], optional
        Only numbers where it is true count.
    """
    if mask is not None:
        if not mask.any():
            return {}
        x, reconstruction = x[mask], reconstruction[mask]
    error = float(np.mean(np.square(x.astype(np.float64) - reconstruction)))
    variance = float(np.var(x.astype(np.float64)))
    return {"mse": error, "mse_over_variance": error / variance if variance > 0 else None}


def perplexity(codes: np.ndarray, size: int) -> float:
    """Return exp of the entropy of the codes: 1 for one code, `size` for a codebook used evenly."""
    share = np.bincount(codes.reshape(-1), minlength=size) / codes.size
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def codebook_use(codes: np.ndarray, size: int, batch: int = 32) -> dict[str, float]:
    """Return how a codebook is used by rows of codes [N, ...].

    Returns
    -------
    dict
        `perplexity` and `usage` (the share of codes that occur) over all rows, and `perplexity_per_batch`,
        its mean over batches of `batch` rows, as training reports it.
    """
    batches = [codes[start : start + batch] for start in range(0, len(codes) - batch + 1, batch)] or [codes]
    return {
        "perplexity": perplexity(codes, size),
        "usage": len(np.unique(codes)) / size,
        "perplexity_per_batch": float(np.mean([perplexity(part, size) for part in batches])),
        "perplexity_batch": min(batch, len(codes)),
    }
