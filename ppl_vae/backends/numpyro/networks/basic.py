"""The layers that programs build networks from.

Every layer keeps leading axes as they are; initial weights follow torch's distributions.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax, random

from ppl_vae.errors import UsageError
from ppl_vae.shapes import as_shape

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": partial(jax.nn.gelu, approximate=False),
    "silu": jax.nn.silu,
    "elu": jax.nn.elu,
    "identity": lambda x: x,
}


class Buffer(nnx.Variable):
    """An array that a network keeps and no gradient reaches: statistics, moving averages."""


class Activation(nnx.Module):
    """An activation by name, as a layer."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, x: Array) -> Array:
        return ACTIVATIONS[self.name](x)


def activation(name: str) -> Activation:
    """Return the activation of a name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return Activation(name)


named_activation = activation  # layers have a parameter called `activation`


def drawn(key: Array, shape: Sequence[int], draw: Callable[[Any, Sequence[int]], np.ndarray]) -> Array:
    """Return draws of NumPy's, in float32: JAX would compile a program for every shape of weights."""
    rng = np.random.default_rng(np.asarray(random.key_data(key)))
    return jnp.asarray(draw(rng, shape).astype(np.float32))


def within(fan_in: int) -> Callable[..., Array]:
    """Return torch's initialiser of weights and biases: uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype: drawn(key, shape, lambda rng, shape: rng.uniform(-bound, bound, shape))


def constant(shape: int | Sequence[int], value: float = 0.0) -> Array:
    """Return a single-precision array of one value."""
    return jnp.asarray(np.full(shape, value, np.float32))


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


class Sequential(nnx.Module):
    """Layers one after the other."""

    def __init__(self, *layers: Callable[[Array], Array]):
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


class _LeadingAxes(nnx.Module):
    """A convolution with channels first that takes any number of axes before them."""

    spatial: int

    def __call__(self, x: Array) -> Array:
        axes = self.spatial + 1
        flat = x.reshape(-1, *x.shape[-axes:])
        y = jnp.moveaxis(self.layer(jnp.moveaxis(flat, 1, -1)), -1, 1)
        return y.reshape(*x.shape[:-axes], *y.shape[1:])

    def _convolution(self, inputs, outputs, kernel, stride, padding, bias, rngs):
        init, n = within(inputs * kernel**self.spatial), self.spatial
        self.layer = nnx.Conv(
            inputs,
            outputs,
            (kernel,) * n,
            (stride,) * n,
            padding=((padding, padding),) * n,
            use_bias=bias,
            kernel_init=init,
            bias_init=init,
            rngs=rngs,
        )


class Conv1d(_LeadingAxes):
    """Convolution over [..., C, T]."""

    spatial = 1

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride=1, padding=0, bias=True, *, rngs: nnx.Rngs
    ):
        self._convolution(inputs, outputs, kernel, stride, padding, bias, rngs)


class Conv2d(_LeadingAxes):
    """Convolution over [..., C, H, W]."""

    spatial = 2

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride=1, padding=0, bias=True, *, rngs: nnx.Rngs
    ):
        self._convolution(inputs, outputs, kernel, stride, padding, bias, rngs)


class ConvTranspose2d(_LeadingAxes):
    """Transposed convolution over [..., C, H, W], of output size (H - 1) stride - 2 padding + kernel."""

    spatial = 2

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride=1, padding=0, bias=True, *, rngs: nnx.Rngs
    ):
        # torch counts the outputs as fan-in here.
        init, edge = within(outputs * kernel**2), kernel - 1 - padding
        self.layer = nnx.ConvTranspose(
            inputs,
            outputs,
            (kernel, kernel),
            (stride, stride),
            padding=((edge, edge),) * 2,
            use_bias=bias,
            kernel_init=init,
            bias_init=init,
            rngs=rngs,
        )


class BatchNorm(nnx.Module):
    """Batch normalization of the last axis (`spatial=0`) or of channels in [..., C, H, W] (`spatial=2`).

    The running variance is the biased one. Statistics are written in train mode only, and only by the guide:
    a network that the model calls too normalizes there without writing.
    """

    def __init__(self, features: int, spatial: int = 0, momentum: float = 0.1, epsilon: float = 1e-5):
        self.spatial, self.momentum, self.epsilon = spatial, momentum, epsilon
        self.training, self.frozen = True, False
        self.weight, self.bias = nnx.Param(constant(features, 1.0)), nnx.Param(constant(features))
        self.mean, self.var = Buffer(constant(features)), Buffer(constant(features, 1.0))

    def __call__(self, x: Array) -> Array:
        tail = (-1,) + (1,) * self.spatial
        if self.training:
            axes = tuple(axis for axis in range(x.ndim) if axis != x.ndim - 1 - self.spatial)
            mean, var = x.mean(axes), x.var(axes)
            if not self.frozen:
                self.mean.set_value(self._moved(self.mean[...], mean))
                self.var.set_value(self._moved(self.var[...], var))
        else:
            mean, var = self.mean[...], self.var[...]
        gain = self.weight[...] * lax.rsqrt(var + self.epsilon)
        return x * gain.reshape(tail) + (self.bias[...] - mean * gain).reshape(tail)

    def _moved(self, old: Array, new: Array) -> Array:
        return old + self.momentum * (lax.stop_gradient(new).astype(old.dtype) - old)


class Parameter(nnx.Module):
    """A learned array; calling it returns the array of shape `shape`."""

    def __init__(self, shape: int | Sequence[int], init: float = 0.0):
        self.value = nnx.Param(constant(shape, init))

    def __call__(self) -> Array:
        return self.value[...]


class MLP(nnx.Module):
    """Fully connected network from `in_shape` to `out_shape` through hidden layers.

    Parameters
    ----------
    in_shape, out_shape : int or tuple of int
        Event shapes; every axis before them is kept.
    hidden : int or tuple of int
        Widths of the hidden layers (an empty tuple: one linear map).
    activation : str
        One of relu, tanh, gelu, silu, elu, identity.
    """

    def __init__(self, in_shape, hidden, out_shape, activation: str = "relu", *, rngs: nnx.Rngs):
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        widths = (math.prod(self.in_shape), *as_shape(hidden), math.prod(self.out_shape))
        self.layers = nnx.List(Linear(a, b, rngs=rngs) for a, b in pairwise(widths))
        self.act = named_activation(activation)

    def __call__(self, x: Array) -> Array:
        lead = x.shape[: x.ndim - len(self.in_shape)]
        h = x.reshape(*lead, -1)
        for layer in self.layers[:-1]:
            h = self.act(layer(h))
        return self.layers[-1](h).reshape(*lead, *self.out_shape)
