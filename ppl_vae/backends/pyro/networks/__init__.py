"""The networks that a program gets as `nn`. The NumPyro backend has the same names."""

from torch.nn import Module

from ppl_vae.backends.pyro.networks.basic import (
    MLP,
    BatchNorm,
    Conv1d,
    Conv2d,
    ConvTranspose2d,
    Embedding,
    Linear,
    Parameter,
    Sequential,
    activation,
)
from ppl_vae.backends.pyro.networks.codebook import CodebookState
from ppl_vae.backends.pyro.networks.convolutional import ConvDown, ConvGrid, ConvUp, GridConv, ResidualBlock
from ppl_vae.backends.pyro.networks.counts import CountEncoder, CountMean
from ppl_vae.backends.pyro.networks.heads import FreeNormal, Likelihood, MergedNormal, NormalHead, ScaleTril

__all__ = [
    "MLP",
    "BatchNorm",
    "CodebookState",
    "Conv1d",
    "Conv2d",
    "ConvDown",
    "ConvGrid",
    "ConvTranspose2d",
    "ConvUp",
    "CountEncoder",
    "CountMean",
    "Embedding",
    "FreeNormal",
    "GridConv",
    "Likelihood",
    "Linear",
    "MergedNormal",
    "Module",
    "NormalHead",
    "Parameter",
    "ResidualBlock",
    "ScaleTril",
    "Sequential",
    "activation",
]
