"""Distributions that a library lacks, or has differently from the other: written once, over `F`.

Each backend offers them in `ppl.dist` as distributions of its own library.
"""

from ppl_vae.distributions.base import Distribution, closed_kl
from ppl_vae.distributions.codebook import Codebook, VectorQuantized
from ppl_vae.distributions.continuous_bernoulli import ContinuousBernoulli
from ppl_vae.distributions.discretized_logistic import DiscretizedLogistic, LogisticMixture
from ppl_vae.distributions.grey_levels import GreyLevels
from ppl_vae.distributions.logit_laplace import LogitLaplace
from ppl_vae.distributions.rgb_mixture import RGBLogisticMixture
from ppl_vae.distributions.zero_inflated import ZeroInflatedNegativeBinomial2

OWN: tuple[type[Distribution], ...] = (
    Codebook,
    ContinuousBernoulli,
    DiscretizedLogistic,
    GreyLevels,
    LogisticMixture,
    LogitLaplace,
    RGBLogisticMixture,
    VectorQuantized,
    ZeroInflatedNegativeBinomial2,
)

__all__ = ["OWN", "Distribution", "closed_kl"]
