"""The codebook of a VQ-VAE, learned by moving averages or by gradients."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.networks.basic import Buffer, constant, drawn
from ppl_vae.distributions.codebook import nearest
from ppl_vae.errors import UsageError


class Codes(NamedTuple):
    """What a codebook answers.

    Attributes
    ----------
    vectors : [K, D]
        The codebook that the codes refer to.
    logits : [K]
        Unnormalised log prior of the codes.
    index : [...] or None
        The nearest code of every vector that was asked for.
    """

    vectors: Array
    logits: Array
    index: Array | None


class CodebookState(nnx.Module):
    """K vectors of D dimensions and a factorised prior over them.

    With `learning="ema"` the vectors are buffers, moved in train mode by the points that chose them; the
    first batch places them on points of its own. With `learning="gradient"` they are parameters. Distances
    and vectors are always single precision or better.

    Parameters
    ----------
    size, dim : int
        K and D.
    learning : {"ema", "gradient"}
    decay : float
        Of the moving averages.
    learned_prior : bool
        Learn one categorical prior for all positions; else it is uniform.

    References
    ----------
    van den Oord et al., arXiv:1711.00937 (moving averages: appendix A.1).
    """

    single_precision = True

    def __init__(
        self, size: int, dim: int, learning="ema", decay=0.99, learned_prior=False, *, rngs: nnx.Rngs
    ):
        if learning not in ("ema", "gradient"):
            raise UsageError(f"unknown codebook learning {learning!r}: choose ema or gradient")
        self.ema, self.decay, self.training, self.frozen = learning == "ema", decay, True, False
        self.placed = Buffer(constant(()))
        vectors = drawn(rngs.params(), (size, dim), np.random.Generator.standard_normal)
        if self.ema:
            self.vectors, self.sums, self.counts = (
                Buffer(vectors),
                Buffer(vectors),
                Buffer(constant(size, 1.0)),
            )
        else:
            self.vectors = nnx.Param(vectors / size)
        self.logits = (nnx.Param if learned_prior else Buffer)(constant(size))

    def __call__(self, points: Array | None = None) -> Codes:
        vectors, logits = self.vectors[...], self.logits[...]
        if points is None:
            return Codes(vectors, logits, None)
        flat = lax.stop_gradient(points).reshape(-1, points.shape[-1]).astype(vectors.dtype)
        learns = self.ema and self.training and not self.frozen
        if learns:
            vectors = self._placed_on(flat, vectors)
        index = nearest(F, lax.stop_gradient(vectors), flat)
        if learns:
            self._learn(flat, index, vectors)
        return Codes(vectors, logits, index.reshape(points.shape[:-1]))

    def _placed_on(self, flat: Array, vectors: Array) -> Array:
        rows = jnp.arange(vectors.shape[0]) * flat.shape[0] // vectors.shape[0]
        return jnp.where(self.placed[...] > 0, vectors, flat[rows])

    def _learn(self, flat: Array, index: Array, vectors: Array) -> None:
        chosen = jax.nn.one_hot(index, vectors.shape[0], dtype=flat.dtype)
        before = jnp.where(self.placed[...] > 0, self.sums[...], vectors)
        counts, sums = chosen.sum(0), chosen.mT @ flat
        counts = counts + self.decay * (self.counts[...] - counts)
        sums = sums + self.decay * (before - sums)
        self.counts.set_value(counts)
        self.sums.set_value(sums)
        self.vectors.set_value(sums / jnp.maximum(counts, 1e-5)[:, None])
        self.placed.set_value(jnp.ones_like(self.placed[...]))
