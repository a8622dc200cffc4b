"""Networks for tables of counts with a batch covariate and a size factor."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ppl_vae.backends.numpyro.networks.basic import MLP
from ppl_vae.backends.numpyro.networks.heads import NormalHead, NormalParameters
from ppl_vae.shapes import vector_shape


class CountEncoder(nnx.Module):
    """log(1 + counts) [..., x_dim] and the batch [...] to a diagonal normal over [..., z_dim]."""

    def __init__(self, x_shape, num_batches: int, hidden, z_dim: int, *, rngs: nnx.Rngs):
        (x_dim,), self.num_batches = vector_shape(x_shape), num_batches
        self.head = NormalHead(x_dim + num_batches, hidden, z_dim, rngs=rngs)

    def __call__(self, x: Array, batch: Array) -> NormalParameters:
        one_hot = jax.nn.one_hot(batch, self.num_batches, dtype=x.dtype)
        return self.head(jnp.concatenate([jnp.log1p(x), one_hot], -1))


class CountMean(nnx.Module):
    """Mean counts size * exp(f(z) + effect[batch]), [..., x_dim].

    The effect has shape [..., num_batches, x_dim]. Without a batch the first is meant, without a size 1.
    """

    def __init__(self, z_dim: int, hidden, x_shape, *, rngs: nnx.Rngs):
        self.body = MLP(z_dim, hidden, x_shape, rngs=rngs)

    def __call__(self, z: Array, effect: Array, batch: Array | None = None, size: Array | None = None):
        if batch is None:
            shift = effect[..., 0, :]
        else:
            # A matrix product, so that leading axes of the effect (particles) broadcast against rows.
            one_hot = jax.nn.one_hot(batch, effect.shape[-2], dtype=effect.dtype)
            shift = (one_hot[..., None, :] @ effect).squeeze(-2)
        mean = jnp.exp(self.body(z) + shift)
        return mean if size is None else mean * size[..., None]
