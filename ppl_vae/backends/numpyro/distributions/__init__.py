"""NumPyro's distributions and the project's own, as a program's `ppl.dist`. The Pyro backend has the same."""

from jax import Array
from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import GammaPoisson, LogNormal
from numpyro.distributions.kl import kl_divergence

from ppl_vae.backends.numpyro.distributions.codebook import Codebook, VectorQuantized
from ppl_vae.backends.numpyro.distributions.discretized_logistic import DiscretizedLogistic
from ppl_vae.backends.numpyro.distributions.named import likelihood

__all__ = ["Codebook", "DiscretizedLogistic", "NegativeBinomial2", "VectorQuantized", "likelihood"]


def NegativeBinomial2(mean: Array, concentration: Array, *, validate_args=None) -> GammaPoisson:
    """Negative binomial by mean and concentration r: its variance is mean + mean^2 / r."""
    return GammaPoisson(concentration, concentration / mean, validate_args=validate_args)


@kl_divergence.register(LogNormal, LogNormal)
def _kl_lognormal_lognormal(q: LogNormal, p: LogNormal) -> Array:
    # The divergence does not change under the common exponential; torch has this one, NumPyro lacks it.
    return kl_divergence(q.base_dist, p.base_dist)
