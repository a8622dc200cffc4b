"""The networks that a program gets as `nn` in its method `networks`. The Pyro backend has the same names."""

import inspect
from functools import partial
from typing import Any

from flax.nnx import Module, Rngs

from ppl_vae.backends.numpyro.networks.basic import (
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
from ppl_vae.backends.numpyro.networks.codebook import CodebookState
from ppl_vae.backends.numpyro.networks.convolutional import (
    ConvDown,
    ConvGrid,
    ConvUp,
    GridConv,
    ResidualBlock,
)
from ppl_vae.backends.numpyro.networks.counts import CountEncoder, CountMean
from ppl_vae.backends.numpyro.networks.heads import (
    FreeNormal,
    Likelihood,
    MergedNormal,
    NormalHead,
    ScaleTril,
)
from ppl_vae.errors import ProgramError

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


class Seeded:
    """What a program gets as `nn`: the names of this package, each network with weights from one seed.

    Parameters
    ----------
    seed : int
        Alone decides the weights of networks made in one order.

    Attributes
    ----------
    rngs : flax.nnx.Rngs
        For networks of a program's own.
    """

    def __init__(self, seed: int):
        self.rngs = Rngs(seed)

    def __getattr__(self, name: str) -> Any:
        if name not in __all__:
            raise ProgramError(f"there is no network {name!r}: choose one of {', '.join(__all__)}")
        made = globals()[name]
        # inspect.signature of an nnx class shows its metaclass, so ask the constructor.
        draws = inspect.isclass(made) and "rngs" in inspect.signature(made.__init__).parameters
        return partial(made, rngs=self.rngs) if draws else made
