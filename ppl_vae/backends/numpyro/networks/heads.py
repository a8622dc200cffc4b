"""Networks whose output is the parameters of a distribution."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jax import Array

from ppl_vae import likelihoods
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.networks.basic import MLP, Linear, constant
from ppl_vae.backends.numpyro.networks.convolutional import ConvDown, ConvUp
from ppl_vae.errors import UsageError
from ppl_vae.likelihoods.base import positive
from ppl_vae.shapes import as_shape

DOWN = {"mlp": MLP, "conv": ConvDown}
UP = {"mlp": MLP, "conv": ConvUp}


def body(kinds: dict[str, type], kind: str) -> type:
    """Return the network class of a name."""
    if kind not in kinds:
        raise UsageError(f"unknown network {kind!r}: choose one of {', '.join(kinds)}")
    return kinds[kind]


class NormalParameters(NamedTuple):
    """Location and scale, each [..., *shape]."""

    loc: Array
    scale: Array


class LikelihoodParameters(NamedTuple):
    """The parameters of a likelihood, each [..., *x_shape], and how many axes an observation has.

    Class logits have one axis more: [..., *x_shape, K].
    """

    values: tuple[Array, ...]
    event_dim: int


class NormalHead(nnx.Module):
    """[..., *in_shape] to the location and scale of a diagonal normal over [..., z_dim]."""

    def __init__(self, in_shape, hidden, z_dim: int, body_kind="mlp", activation="relu", *, rngs: nnx.Rngs):
        self.body = body(DOWN, body_kind)(in_shape, hidden, 2 * z_dim, activation, rngs=rngs)

    def __call__(self, x: Array) -> NormalParameters:
        loc, raw = jnp.split(self.body(x), 2, -1)
        return NormalParameters(loc, positive(F, raw))


class FreeNormal(nnx.Module):
    """Location and scale of a diagonal normal that depends on nothing: the guide of a global latent."""

    def __init__(self, shape, scale: float = 0.1):
        self.loc = nnx.Param(constant(shape))
        self.raw = nnx.Param(constant(shape, math.log(math.expm1(scale))))

    def __call__(self) -> NormalParameters:
        return NormalParameters(self.loc[...], positive(F, self.raw[...]))


class ScaleTril(nnx.Module):
    """A free lower triangular matrix [dim, dim] with a positive diagonal: the factor of a covariance."""

    def __init__(self, dim: int):
        self.raw = nnx.Param(constant((dim, dim)))

    def __call__(self) -> Array:
        raw = self.raw[...]
        return jnp.tril(raw, -1) + jnp.diag(positive(F, raw.diagonal()))


class MergedNormal(nnx.Module):
    """Precision-weighted product of a bottom-up normal, read off a deterministic path, and a top-down one.

    sigma^2 = 1 / (sigma_up^-2 + sigma_down^-2), mu = sigma^2 (mu_up sigma_up^-2 + mu_down sigma_down^-2).

    References
    ----------
    Sonderby et al., arXiv:1602.02282, eq. 18-19.
    """

    def __init__(self, in_dim: int, z_dim: int, *, rngs: nnx.Rngs):
        self.out = Linear(in_dim, 2 * z_dim, rngs=rngs)

    def __call__(self, up: Array, down: NormalParameters | None = None) -> NormalParameters:
        loc, raw = jnp.split(self.out(up), 2, -1)
        scale = positive(F, raw)
        if down is None:
            return NormalParameters(loc, scale)
        precision_up, precision_down = scale**-2, down.scale**-2
        precision = precision_up + precision_down
        return NormalParameters((loc * precision_up + down.loc * precision_down) / precision, precision**-0.5)


class Likelihood(nnx.Module):
    """[..., z_dim] to the parameters of a named likelihood over [..., *x_shape]; owns shared sigmas."""

    def __init__(
        self, likelihood: str, z_dim, hidden, x_shape, body_kind="mlp", activation="relu", *, rngs: nnx.Rngs
    ):
        self.kind, self.x_shape = likelihoods.parse(likelihood), as_shape(x_shape)
        out_shape = (self.kind.outputs * self.x_shape[0], *self.x_shape[1:])
        self.body = body(UP, body_kind)(z_dim, hidden, out_shape, activation, rngs=rngs)
        free = self.kind.free(self.x_shape)
        self.raw = None if free is None else nnx.Param(constant(free))

    def __call__(self, z: Array) -> LikelihoodParameters:
        flat = self.body(z)
        out = flat.reshape(*flat.shape[: flat.ndim - len(self.x_shape)], self.kind.outputs, *self.x_shape)
        out = F.to_single(jnp.moveaxis(out, -1 - len(self.x_shape), 0))
        raw = None if self.raw is None else self.raw[...]
        return LikelihoodParameters(self.kind.parameters(F, out, raw), len(self.x_shape))
