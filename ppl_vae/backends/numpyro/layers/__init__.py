"""The layers that networks are built from. The Pyro backend has the same names."""

from flax.nnx import Module

from ppl_vae.backends.numpyro.layers.arrays import Buffer, Parameter, normal
from ppl_vae.backends.numpyro.layers.convolutions import (
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    WeightNormConv1d,
    WeightNormConv2d,
)
from ppl_vae.backends.numpyro.layers.dense import Embedding, Linear
from ppl_vae.backends.numpyro.layers.normalization import GroupNorm, LayerNorm
from ppl_vae.backends.numpyro.layers.recurrent import GRU, LSTM

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
