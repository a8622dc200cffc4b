"""Networks whose output is the parameters of a distribution."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ppl_vae import likelihoods
from ppl_vae.backends.numpyro.networks.basic import MLP, Linear, constant
from ppl_vae.backends.numpyro.networks.convolutional import ConvDown, ConvUp
from ppl_vae.errors import UsageError
from ppl_vae.shapes import as_shape

SCALE_FLOOR = 1e-4
DOWN = {"mlp": MLP, "conv": ConvDown}
UP = {"mlp": MLP, "conv": ConvUp}


def body(kinds: dict[str, type], kind: str) -> type:
    """Return the network class of a name."""
    if kind not in kinds:
        raise UsageError(f"unknown network {kind!r}: choose one of {', '.join(kinds)}")
    return kinds[kind]


def positive(raw: Array) -> Array:
    """Map the reals to scales: softplus with a floor, in single precision or better."""
    return jax.nn.softplus(raw.astype(jnp.promote_types(raw.dtype, jnp.float32))) + SCALE_FLOOR


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
        return NormalParameters(loc, positive(raw))


class FreeNormal(nnx.Module):
    """Location and scale of a diagonal normal that depends on nothing: the guide of a global latent."""

    def __init__(self, shape, scale: float = 0.1):
        self.loc = nnx.Param(constant(shape))
        self.raw = nnx.Param(constant(shape, math.log(math.expm1(scale))))

    def __call__(self) -> NormalParameters:
        return NormalParameters(self.loc[...], positive(self.raw[...]))


class ScaleTril(nnx.Module):
    """A free lower triangular matrix [dim, dim] with a positive diagonal: the factor of a covariance."""

    def __init__(self, dim: int):
        self.raw = nnx.Param(constant((dim, dim)))

    def __call__(self) -> Array:
        raw = self.raw[...]
        return jnp.tril(raw, -1) + jnp.diag(positive(raw.diagonal()))


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
        scale = positive(raw)
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
        self.outputs = {"normal_predicted": 2, "discretized_logistic": 2}.get(self.kind.name, 1)
        if self.kind.name == "categorical":
            self.outputs = self.kind.count
        out_shape = (self.outputs * self.x_shape[0], *self.x_shape[1:])
        self.body = body(UP, body_kind)(z_dim, hidden, out_shape, activation, rngs=rngs)
        free = {"normal": (), "normal_per_dim": self.x_shape, "negative_binomial": self.x_shape}
        if self.kind.name in free:
            self.raw = nnx.Param(constant(free[self.kind.name]))

    def __call__(self, z: Array) -> LikelihoodParameters:
        flat = self.body(z)
        out = flat.reshape(*flat.shape[: flat.ndim - len(self.x_shape)], self.outputs, *self.x_shape)
        values = self._values(jnp.moveaxis(out, -1 - len(self.x_shape), 0))
        return LikelihoodParameters(values, len(self.x_shape))

    def _values(self, out: Array) -> tuple[Array, ...]:
        name = self.kind.name
        if name in ("normal", "normal_per_dim"):
            return out[0], jnp.broadcast_to(positive(self.raw[...]), out[0].shape)
        if name == "normal_fixed":
            return out[0], jnp.full_like(out[0], self.kind.number)
        if name == "normal_predicted":
            return out[0], positive(out[1])
        if name == "discretized_logistic":
            # The logistic scale starts near 0.1, a tenth of the range of grey levels.
            return jax.nn.sigmoid(out[0]), positive(out[1] - 2.0)
        if name == "negative_binomial":
            return jnp.exp(out[0]), jnp.broadcast_to(positive(self.raw[...]), out[0].shape)
        if name == "poisson":
            return (jnp.exp(out[0]),)
        if name == "categorical":
            return (jnp.moveaxis(out, 0, -1),)
        return (out[0],)
