"""What the importance weights of a guide's draws tell, and resampling by them."""

import numpy as np

from ppl_vae.errors import ProgramError

# Below this number of draws the tail that the Pareto fit sees has fewer than five of them.
FEWEST = 21
# Log weights that differ by less are equal up to the rounding of single precision.
EQUAL = 1e-3


def pareto_k(log_weights: np.ndarray) -> np.ndarray:
    """Return the Pareto shape k-hat of every row's weights (Vehtari et al., arXiv:1507.02646).

    Below 0.7 an importance weighted estimate can be trusted; above 1 the mean of the weights does not exist.

    Parameters
    ----------
    log_weights : [S, N]
        log p(x, z) - log q(z | x) at S draws, in nats, not normalised.

    Returns
    -------
    [N]
        NaN with fewer than 21 draws; 0 where all weights are equal, as those of an exact guide are.
    """
    shapes = np.full(log_weights.shape[1], np.nan)
    if len(log_weights) < FEWEST:
        return shapes
    spread = np.ptp(log_weights, axis=0)
    shapes[spread < EQUAL] = 0.0
    rest = ~(spread < EQUAL)
    if rest.any():
        shapes[rest] = _psis_shape(log_weights[:, rest].T)
    return shapes


def _psis_shape(log_weights: np.ndarray) -> np.ndarray:
    import arviz

    # ArviZ 0.x takes log weights; the psislw of 1.x takes log-likelihoods, whose negatives are the weights.
    sign = 1.0 if int(arviz.__version__.split(".")[0]) == 0 else -1.0
    return np.asarray(arviz.psislw(sign * log_weights.astype(np.float64))[1])


def effective_sample_size(log_weights: np.ndarray) -> np.ndarray:
    """Return (sum w)^2 / sum w^2 of every row, [N]: how many equally weighted draws they are worth.

    Parameters
    ----------
    log_weights : [S, N]
    """
    weights = np.exp(log_weights - log_weights.max(0))
    return weights.sum(0) ** 2 / (weights**2).sum(0)


def log_evidence(log_weights: np.ndarray) -> np.ndarray:
    """Return the log of every row's mean weight in nats, [N].

    In expectation a lower bound of log p(x) (Burda et al., arXiv:1509.00519, eq. 8).

    Parameters
    ----------
    log_weights : [S, N]
    """
    top = log_weights.max(0)
    return top + np.log(np.exp(log_weights - top).mean(0))


def statistics(log_weights: np.ndarray) -> dict[str, np.ndarray]:
    """Return `pareto_k`, `ess` and `log_evidence`, [N] each."""
    check(log_weights)
    return {
        "pareto_k": pareto_k(log_weights),
        "ess": effective_sample_size(log_weights),
        "log_evidence": log_evidence(log_weights),
    }


def resample(log_weights: np.ndarray, num: int, rng: np.random.Generator) -> np.ndarray:
    """Pick draws with replacement, each with the probability of its weight.

    This is sampling-importance-resampling (Rubin 1988).

    Parameters
    ----------
    log_weights : [K, N]
        Of K proposals per row.
    num : int
        How many to pick per row.
    rng : numpy.random.Generator

    Returns
    -------
    [num, N] of int
        Numbers of the proposals, in no order.
    """
    check(log_weights)
    total = np.cumsum(np.exp(log_weights - log_weights.max(0)), axis=0)
    chosen = rng.random((num, log_weights.shape[1])) * total[-1]
    columns = [np.searchsorted(total[:, n], chosen[:, n], side="right") for n in range(chosen.shape[1])]
    return np.minimum(np.stack(columns, axis=1), len(total) - 1)


def check(log_weights: np.ndarray) -> None:
    """Refuse weights that are no weights.

    Raises
    ------
    ProgramError
        Naming the first row with a weight that is not a number, or without a single positive one.
    """
    bad = np.isnan(log_weights).any(0) | ~np.isfinite(log_weights.max(0))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        raise ProgramError(
            f"row {row}: its importance weights are not finite: look for numbers outside the likelihood's "
            "support, and for weights of the program that are not finite"
        )
