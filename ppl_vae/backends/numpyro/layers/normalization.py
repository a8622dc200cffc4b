"""Normalization of each row by its own statistics."""

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from ppl_vae.backends.numpyro.layers.arrays import filled


class LayerNorm(nnx.Module):
    """Normalize the last axis, [..., features] (Ba et al., arXiv:1607.06450)."""

    def __init__(self, features: int, epsilon: float = 1e-5):
        self.weight, self.bias = nnx.Param(filled(features, 1.0)), nnx.Param(filled(features))
        self.epsilon = epsilon

    def __call__(self, x: Array) -> Array:
        return normalized(x, (-1,), self.epsilon) * self.weight[...] + self.bias[...]


class GroupNorm(nnx.Module):
    """Normalize `groups` of channels over them and `spatial` axes behind (Wu & He, arXiv:1803.08494).

    [..., features, H, W] with `spatial=2`; without spatial axes [..., features].
    """

    def __init__(self, groups: int, features: int, spatial: int = 2, epsilon: float = 1e-5):
        self.weight, self.bias = nnx.Param(filled(features, 1.0)), nnx.Param(filled(features))
        self.groups, self.spatial, self.epsilon = groups, spatial, epsilon

    def __call__(self, x: Array) -> Array:
        lead, tail = x.shape[: x.ndim - 1 - self.spatial], (1,) * self.spatial
        y = normalized(x.reshape(*lead, self.groups, -1), (-1,), self.epsilon).reshape(x.shape)
        return y * self.weight[...].reshape(-1, *tail) + self.bias[...].reshape(-1, *tail)


def normalized(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    """Return (x - mean) / sqrt(variance + epsilon), in single precision or better on the way."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
    return ((wide - mean) * lax.rsqrt(var + epsilon)).astype(x.dtype)
