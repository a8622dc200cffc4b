"""The composite networks of the library, each written once over the layers of a backend (`nn`) and its array
functions (`F`).
"""

from ppl_vae.networks.attention import Attention, Memory
from ppl_vae.networks.base import Network
from ppl_vae.networks.codebook import CodebookState, Codes
from ppl_vae.networks.convolutional import Bottleneck, ConvDown, ConvGrid, ConvUp, GridConv, ResidualBlock
from ppl_vae.networks.counts import CountEncoder, CountMean
from ppl_vae.networks.dense import MLP, activation
from ppl_vae.networks.heads import FreeNormal, MergedNormal, NormalHead, NormalParameters, ScaleTril, normal
from ppl_vae.networks.likelihood import Likelihood, LikelihoodParameters
from ppl_vae.networks.normalization import BatchNorm

GALLERY = frozenset(
    name for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, Network)
) - {"Network"}

__all__ = [
    "MLP",
    "Attention",
    "BatchNorm",
    "Bottleneck",
    "CodebookState",
    "Codes",
    "ConvDown",
    "ConvGrid",
    "ConvUp",
    "CountEncoder",
    "CountMean",
    "FreeNormal",
    "GridConv",
    "Likelihood",
    "LikelihoodParameters",
    "Memory",
    "MergedNormal",
    "Network",
    "NormalHead",
    "NormalParameters",
    "ResidualBlock",
    "ScaleTril",
    "activation",
    "normal",
]
