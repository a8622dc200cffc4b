"""NumPyro's distributions and the project's own, as a program's `ppl.dist`. The Pyro backend has the same."""

import sys
from typing import Any

from jax import Array
from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import Distribution, GammaPoisson, LogNormal
from numpyro.distributions.kl import kl_divergence

from ppl_vae import likelihoods
from ppl_vae.backends.numpyro.distributions.adapter import adapted
from ppl_vae.distributions import OWN

globals().update({declared.__name__: adapted(declared) for declared in OWN})
__all__ = ["NegativeBinomial2", "adapted", "likelihood", *(declared.__name__ for declared in OWN)]


def NegativeBinomial2(mean: Array, concentration: Array, *, validate_args=None) -> GammaPoisson:
    """Negative binomial by mean and concentration r: its variance is mean + mean^2 / r."""
    return GammaPoisson(concentration, concentration / mean, validate_args=validate_args)


def likelihood(named: str | likelihoods.Likelihood, parameters: Any) -> Distribution:
    """Return a likelihood with the parameters of a network `nn.Likelihood` of the same name."""
    return likelihoods.parse(named).over(sys.modules[__name__], parameters)


@kl_divergence.register(LogNormal, LogNormal)
def _kl_lognormal_lognormal(q: LogNormal, p: LogNormal) -> Array:
    # The divergence does not change under the common exponential; torch has this one, NumPyro lacks it.
    return kl_divergence(q.base_dist, p.base_dist)
