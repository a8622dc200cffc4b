"""The unweighted bound of every row, and what is reported of it: nats, bits per dimension, standard
errors.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ppl_vae.diagnostics.measures import measures
from ppl_vae.summaries import Row, Summarised

DETERMINISTIC = "the guide is deterministic: the importance weighted bound is the ELBO"
TYPICAL = 10.0  # median absolute deviations that a row may be away from the median


@dataclass(repr=False)
class Scores(Summarised):
    """Terms of the unweighted bound (no weights, no penalties), one number per row, in nats.

    Attributes
    ----------
    log_likelihood : [N]
    kl : dict of str to [N]
        By local site.
    kl_global : dict of str to float
        By global site, for the whole training set of `num_data` rows.
    num_data : int
        Rows that share the global sites.
    iw : [N] or None
        Importance weighted bound. None where it does not apply; `iw_note` says why.
    k : int or None
        Its number of samples.
    dims : int or float
        Numbers in one observation, without those masked; their mean where observations differ.
    dense : int or float
        Those of `x` among them that have a density, not a mass.
    discrete : bool
        The likelihood is a probability mass function; else a density.
    codes : dict of str to int
        By site of codes the size of its codebook.
    masked : tuple of str
        The observed sites of which a mask leaves numbers out.
    """

    log_likelihood: np.ndarray
    kl: dict[str, np.ndarray]
    kl_global: dict[str, float] = field(default_factory=dict)
    num_data: int = 1
    iw: np.ndarray | None = None
    iw_note: str | None = None
    k: int | None = None
    dims: float = 1
    dense: float = 0
    discrete: bool = True
    codes: dict[str, int] = field(default_factory=dict)
    masked: tuple[str, ...] = ()

    @property
    def rate(self) -> np.ndarray:
        """KL of all sites, global ones shared out among the training rows, [N]."""
        local = sum(self.kl.values(), start=np.zeros_like(self.log_likelihood))
        return local + sum(self.kl_global.values()) / self.num_data

    @property
    def elbo(self) -> np.ndarray:
        """The evidence lower bound of every row, [N]."""
        return self.log_likelihood - self.rate

    def _summary(self) -> tuple[str, list[Row]]:
        return f"Scores of {len(self.elbo):,} rows", measures(summary(self))


def joined(parts: Sequence[Mapping[str, np.ndarray]], lengths: Sequence[int]) -> dict[str, np.ndarray]:
    """Return terms by site over all batches, [..., N]; a site that a batch does not have is 0 there, as the
    later ones of a batch of short sequences.
    """
    names = dict.fromkeys(name for part in parts for name in part)
    return {
        name: np.concatenate(
            [part.get(name, np.zeros(n)) for part, n in zip(parts, lengths, strict=True)], -1
        )
        for name in names
    }


def over_batches(facts: Sequence[Mapping[str, Any]], lengths: Sequence[int]) -> dict[str, Any]:
    """Return what holds of all batches: the mean numbers of a row, whether every likelihood is a mass and
    every guide certain, the sizes of codebooks, and the sites that are masked.
    """
    numbers = {name: mean_of([fact[name] for fact in facts], lengths) for name in ("dims", "dense")}
    codes = {name: size for fact in facts for name, size in fact["codes"].items()}
    known = {name: all(fact[name] for fact in facts) for name in ("discrete", "exact")}
    masked = tuple(dict.fromkeys(name for fact in facts for name in fact["masked"]))
    return numbers | {"codes": codes, "masked": masked} | known


def mean_of(numbers: Sequence[float], lengths: Sequence[int]) -> float:
    """Return the mean over all rows of a number that the rows of each part have; as it is where all agree."""
    return numbers[0] if len(set(numbers)) == 1 else float(np.average(numbers, weights=lengths))


def stderr(values: np.ndarray) -> float | None:
    """Return the standard error of a mean; None for a single row."""
    with np.errstate(invalid="ignore"):  # of a bound that is not finite
        return float(np.std(values, ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def outlier(values: np.ndarray) -> int | None:
    """Return the row that alone decides a mean; None where none does.

    Of five rows or more, it lies at least one nat and ten median absolute deviations from the median, and its
    squared deviation is more than half of that of all rows.
    """
    if len(values) < 5 or not np.isfinite(values).all():
        return None
    away = np.abs(values - np.median(values))
    row, squares = int(away.argmax()), away**2
    far = away[row] > max(1.0, TYPICAL * float(np.median(away)))
    return row if far and squares[row] > squares.sum() / 2 else None


def robust_mean(values: np.ndarray) -> tuple[float, str]:
    """Return the mean by which a run chooses weights, and what is to be said of it.

    A row that alone would decide the mean counts as ten median absolute deviations from the median.
    """
    row = outlier(values)
    if row is None:
        return float(values.mean()), ""
    low = values[row] < np.median(values)
    remedy = "look at it, or give more validation rows" if low else "give more validation rows"
    said = (
        f"validation row {row} has a bound of {values[row]:.4g} nats, the {len(values)} rows "
        f"{values.mean():.4g} +- {stderr(values):.2g} (standard error): "
        f"far {'below' if low else 'above'} the others, it counts less in the choice of weights; {remedy}"
    )
    middle, values = np.median(values), values.copy()
    most = TYPICAL * float(np.median(np.abs(values - middle)))
    values[row] = np.clip(values[row], middle - most, middle + most)
    return float(values.mean()), said


def bits_per_dim(nats: float, dims: float, dense: float, levels: int | None) -> float | None:
    """Return a negative log-likelihood in bits for each dimension; None where nothing was observed.

    A density of `dense` numbers in [0, 1] is compared with a mass over `levels` grey levels 0, 1/(levels-1),
    ..., 1 by adding the log of their density, levels - 1, for each: a density that is constant on the cells
    around the levels has the bits of their masses (after Theis et al., arXiv:1511.01844, section 3.1).
    """
    if not dims:
        return None
    shift = 0.0 if levels is None else dense * math.log(levels - 1)
    return (nats + shift) / dims / math.log(2)


def summary(scores: Scores, levels: int | None = None) -> dict[str, Any]:
    """Return the means over rows and their standard errors.

    `bits_per_dim` is that of the tightest bound there is (the importance weighted one, else the ELBO).
    """
    elbo, iw = scores.elbo, scores.iw
    best = elbo if iw is None else iw
    result: dict[str, Any] = {
        "elbo_nats": float(elbo.mean()),
        "elbo_stderr": stderr(elbo),
        "iw_nats": None if iw is None else float(iw.mean()),
        "iw_stderr": None if iw is None else stderr(iw),
        "k": scores.k,
        "rate_nats": float(scores.rate.mean()),
        "rate_stderr": stderr(scores.rate),
        "distortion_nats": float(-scores.log_likelihood.mean()),
        "distortion_stderr": stderr(scores.log_likelihood),
        "rate_nats_by_site": {name: float(kl.mean()) for name, kl in scores.kl.items()}
        | {name: kl / scores.num_data for name, kl in scores.kl_global.items()},
        "bits_per_dim": bits_per_dim(-float(best.mean()), scores.dims, scores.dense, levels),
        "n": len(elbo),
    }
    if scores.iw_note:
        result["iw_note"] = scores.iw_note
    return result
