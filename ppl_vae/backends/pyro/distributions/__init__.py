"""Pyro's distributions and the project's own, as a program's `ppl.dist`. The NumPyro backend has the same
names.
"""

from pyro.distributions import *  # noqa: F403
from pyro.distributions import GammaPoisson
from torch import Tensor

from ppl_vae.backends.pyro.distributions.codebook import Codebook, VectorQuantized
from ppl_vae.backends.pyro.distributions.discretized_logistic import DiscretizedLogistic
from ppl_vae.backends.pyro.distributions.named import likelihood

__all__ = ["Codebook", "DiscretizedLogistic", "NegativeBinomial2", "VectorQuantized", "likelihood"]


def NegativeBinomial2(mean: Tensor, concentration: Tensor, validate_args=None) -> GammaPoisson:
    """Negative binomial by mean and concentration r: its variance is mean + mean^2 / r."""
    return GammaPoisson(concentration, concentration / mean, validate_args=validate_args)
