"""The layers that networks are built from. The NumPyro backend has the same names."""

from torch.nn import Embedding, Linear, Module

from ppl_vae.backends.pyro.layers.arrays import Buffer, Parameter, normal
from ppl_vae.backends.pyro.layers.convolutions import (
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    WeightNormConv1d,
    WeightNormConv2d,
)
from ppl_vae.backends.pyro.layers.normalization import GroupNorm, LayerNorm
from ppl_vae.backends.pyro.layers.recurrent import GRU, LSTM

__all__ = [
    "GRU",
    "LSTM",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Embedding",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "WeightNormConv1d",
    "WeightNormConv2d",
    "normal",
]
