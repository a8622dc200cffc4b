"""Pyro's distributions and the project's own, as a program's `ppl.dist`. The NumPyro backend has the same
names.
"""

import sys
from typing import Any

from pyro.distributions import *  # noqa: F403
from pyro.distributions import GammaPoisson, TorchDistribution
from torch import Tensor

from ppl_vae import likelihoods
from ppl_vae.backends.pyro.distributions.adapter import adapted
from ppl_vae.distributions import OWN

globals().update({declared.__name__: adapted(declared) for declared in OWN})
__all__ = ["NegativeBinomial2", "adapted", "likelihood", *(declared.__name__ for declared in OWN)]


def NegativeBinomial2(mean: Tensor, concentration: Tensor, validate_args=None) -> GammaPoisson:
    """Negative binomial by mean and concentration r: its variance is mean + mean^2 / r."""
    return GammaPoisson(concentration, concentration / mean, validate_args=validate_args)


def likelihood(named: str | likelihoods.Likelihood, parameters: Any) -> TorchDistribution:
    """Return a likelihood with the parameters of a network `nn.Likelihood` of the same name."""
    return likelihoods.parse(named).over(sys.modules[__name__], parameters)
