"""The likelihoods that a program may name, the same on every backend.

A likelihood is a name with optional numbers, each behind a colon: `bernoulli`, `normal_fixed:0.1`,
`logistic_mixture:256:10`.
"""

from dataclasses import Field, fields
from functools import cache

from ppl_vae import checks
from ppl_vae.errors import UsageError
from ppl_vae.likelihoods import continuous, discrete
from ppl_vae.likelihoods.base import Likelihood, Values, above_zero, positive, whole

__all__ = [
    "KNOWN",
    "Likelihood",
    "Values",
    "above_zero",
    "of_distribution",
    "parse",
    "positive",
    "remedy",
    "takes",
    "whole",
]

_KINDS = (
    discrete.Bernoulli,
    continuous.Normal,
    continuous.NormalFixed,
    continuous.NormalPerDim,
    continuous.NormalPredicted,
    continuous.StudentT,
    discrete.DiscretizedLogistic,
    discrete.LogisticMixture,
    discrete.RGBLogisticMixture,
    discrete.GreyLevels,
    continuous.ContinuousBernoulli,
    continuous.LogitLaplace,
    discrete.Poisson,
    discrete.NegativeBinomial,
    discrete.ZeroInflatedNegativeBinomial,
    discrete.Categorical,
)
KNOWN: dict[str, type[Likelihood]] = {kind.name: kind for kind in _KINDS}


def parse(named: str | Likelihood) -> Likelihood:
    """Return the likelihood that a text names; one that is given already, as it is.

    Raises
    ------
    UsageError
        For an unknown name, a number that makes no sense, or one where none is taken.
    """
    if isinstance(named, str):
        return _parsed(named)
    if not isinstance(named, Likelihood):
        raise UsageError(f"{named!r} is no likelihood: give a text such as 'normal', or an object of a class")
    return named


@cache  # a program names its likelihood at every step
def _parsed(named: str) -> Likelihood:
    name, *numbers = named.split(":")
    checks.one_of("likelihood", name, KNOWN)
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


def takes(named: object) -> str | None:
    """Return what data a likelihood takes; None for anything that names none."""
    try:
        return parse(named).takes
    except UsageError:
        return None


def of_distribution(name: str) -> type[Likelihood]:
    """Return the likelihood whose distribution has a name, in Pyro's form or NumPyro's."""
    name = name.removesuffix("Logits").removesuffix("Probs")
    return next((one for one in KNOWN.values() if name in one.distributions), Likelihood)


def remedy(distribution: str, data: Values) -> str:
    """Say what to do with data outside the support of a distribution."""
    return of_distribution(distribution).remedy(data)
