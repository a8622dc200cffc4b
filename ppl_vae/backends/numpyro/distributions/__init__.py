"""NumPyro's distributions and the project's own, as a program's `ppl.dist`. Pyro's has the same names."""

import sys

from jax import Array
from numpyro.distributions import *  # noqa: F403
from numpyro.distributions import LogNormal
from numpyro.distributions.kl import kl_divergence

from ppl_vae.backends.common.distributions import beside
from ppl_vae.backends.numpyro.distributions.adapter import adapted

_OURS = beside(sys.modules[__name__], adapted)
globals().update(_OURS)
__all__ = ["adapted", *_OURS]


@kl_divergence.register(LogNormal, LogNormal)
def _kl_lognormal_lognormal(q: LogNormal, p: LogNormal) -> Array:
    # The divergence does not change under the common exponential; torch has this one, NumPyro lacks it.
    return kl_divergence(q.base_dist, p.base_dist)
