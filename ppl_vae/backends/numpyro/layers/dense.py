"""Layers of the last axis."""

import numpy as np
from flax import nnx

from ppl_vae.backends.numpyro.layers.arrays import drawn, within


class Linear(nnx.Linear):
    """Affine map of the last axis."""

    def __init__(self, inputs: int, outputs: int, bias: bool = True, *, rngs: nnx.Rngs):
        init = within(inputs)
        super().__init__(inputs, outputs, use_bias=bias, kernel_init=init, bias_init=init, rngs=rngs)


class Embedding(nnx.Embed):
    """A learned vector for each of `count` whole numbers: [...] to [..., dim]."""

    def __init__(self, count: int, dim: int, *, rngs: nnx.Rngs):
        init = lambda key, shape, dtype: drawn(key, shape, np.random.Generator.standard_normal)  # noqa: E731
        super().__init__(count, dim, embedding_init=init, rngs=rngs)
