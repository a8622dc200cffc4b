"""The likelihoods that a program may name, the same on every backend.

A likelihood is a name with optional numbers, each behind a colon: `bernoulli`, `normal_fixed:0.1`,
`logistic_mixture:256:10`.
"""

from dataclasses import Field, fields
from functools import cache

from ppl_vae.errors import UsageError
from ppl_vae.likelihoods.base import Likelihood, above_zero, positive, whole
from ppl_vae.likelihoods.bits import Bernoulli
from ppl_vae.likelihoods.counts import NegativeBinomial, Poisson, ZeroInflatedNegativeBinomial
from ppl_vae.likelihoods.grey import DiscretizedLogistic, GreyLevels, LogisticMixture, RGBLogisticMixture
from ppl_vae.likelihoods.labels import Categorical
from ppl_vae.likelihoods.reals import Normal, NormalFixed, NormalPerDim, NormalPredicted, StudentT
from ppl_vae.likelihoods.unit import ContinuousBernoulli, LogitLaplace

__all__ = [
    "KNOWN", "Likelihood", "above_zero", "is_discrete", "of_distribution", "parse", "positive", "remedy",
    "takes", "whole",
]  # fmt: skip

KNOWN: dict[str, type[Likelihood]] = {
    one.name: one
    for one in (
        Bernoulli,
        Normal,
        NormalFixed,
        NormalPerDim,
        NormalPredicted,
        StudentT,
        DiscretizedLogistic,
        LogisticMixture,
        RGBLogisticMixture,
        GreyLevels,
        ContinuousBernoulli,
        LogitLaplace,
        Poisson,
        NegativeBinomial,
        ZeroInflatedNegativeBinomial,
        Categorical,
    )
}


def parse(named: str | Likelihood) -> Likelihood:
    """Return the likelihood that a text names; one that is given already, as it is.

    Raises
    ------
    UsageError
        For an unknown name, a number that makes no sense, or one where none is taken.
    """
    return named if isinstance(named, Likelihood) else _parsed(named)


@cache  # a program names its likelihood at every step
def _parsed(named: str) -> Likelihood:
    name, *numbers = named.split(":")
    if name not in KNOWN:
        raise UsageError(f"unknown likelihood {named!r}: choose one of {', '.join(KNOWN)}")
    declared = fields(KNOWN[name])
    if len(numbers) > len(declared):
        taken = " and ".join(field.name for field in declared) or "no number"
        raise UsageError(f"the likelihood {name!r} takes {taken} behind its name, got {named!r}")
    pairs = zip(declared, numbers, strict=False)
    return KNOWN[name](**{field.name: _number(named, field, text) for field, text in pairs})


def _number(named: str, field: Field, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise UsageError(
            f"likelihood {named!r}: {field.name} must be {field.metadata['wanted']}, got {text!r}"
        ) from None
    return int(value) if "least" in field.metadata and value.is_integer() else value


def is_discrete(named: str | Likelihood) -> bool:
    """Tell whether the likelihood is a probability mass (else a density on [0, 1] or the reals)."""
    return parse(named).discrete


def takes(named: object) -> str | None:
    """Return what data a likelihood takes; None for anything that names none."""
    try:
        return parse(named).takes if isinstance(named, (str, Likelihood)) else None
    except UsageError:
        return None


def of_distribution(name: str) -> type[Likelihood]:
    """Return the likelihood whose distribution has a name, in Pyro's form or NumPyro's."""
    name = name.removesuffix("Logits").removesuffix("Probs")
    return next((one for one in KNOWN.values() if name in one.distributions), Likelihood)


def remedy(distribution: str, low: float, high: float, levels: int | None = None) -> str:
    """Say what to do with data from `low` to `high` outside the support of a distribution.

    `levels` is the data's number of grey levels, where it has such.
    """
    return of_distribution(distribution).remedy(low, high, levels)
