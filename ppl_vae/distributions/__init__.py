"""Distributions that a library lacks, or has differently from the other: written once, over `F`.

Each backend offers them in `ppl.dist` as distributions of its own library.
"""

from ppl_vae.distributions.base import Distribution, closed_kl
from ppl_vae.distributions.codebook import Codebook, VectorQuantized
from ppl_vae.distributions.grey import DiscretizedLogistic, GreyLevels, LogisticMixture
from ppl_vae.distributions.rgb_mixture import RGBLogisticMixture
from ppl_vae.distributions.unit import ContinuousBernoulli, LogitLaplace
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
