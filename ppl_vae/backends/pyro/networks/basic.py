"""The layers that programs build networks from. Every layer keeps leading axes as they are."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro import across
from ppl_vae.errors import UsageError
from ppl_vae.shapes import as_shape

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "identity": nn.Identity,
}

Linear = nn.Linear
Sequential = nn.Sequential
Embedding = nn.Embedding


def activation(name: str) -> nn.Module:
    """Return the activation of a name."""
    if name not in ACTIVATIONS:
        raise UsageError(f"unknown activation {name!r}: choose one of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


named_activation = activation  # layers have a parameter called `activation`


class _LeadingAxes(nn.Module):
    """A convolution that takes any number of axes before the channels."""

    layer: nn.Module
    spatial: int

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: -self.spatial - 1]
        y = self.layer(x.reshape(-1, *x.shape[-self.spatial - 1 :]))
        return y.reshape(*lead, *y.shape[1:])


class Conv1d(_LeadingAxes):
    """Convolution over [..., C, T]."""

    spatial = 1

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ):
        super().__init__()
        self.layer = nn.Conv1d(inputs, outputs, kernel, stride, padding, bias=bias)


class Conv2d(_LeadingAxes):
    """Convolution over [..., C, H, W]."""

    spatial = 2

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ):
        super().__init__()
        self.layer = nn.Conv2d(inputs, outputs, kernel, stride, padding, bias=bias)


class ConvTranspose2d(_LeadingAxes):
    """Transposed convolution over [..., C, H, W]."""

    spatial = 2

    def __init__(
        self, inputs: int, outputs: int, kernel: int, stride: int = 1, padding: int = 0, bias: bool = True
    ):
        super().__init__()
        self.layer = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, bias=bias)


class BatchNorm(nn.Module):
    """Batch normalization of the last axis (`channels_first=False`) or of channels in [..., C, H, W].

    The running variance is the biased one, as in flax, so that weights carry over. Statistics are written in
    train mode only, and only by the guide: a network that the model calls too normalizes there without
    writing. On several devices they are those of the batch that the devices share.
    """

    def __init__(self, features: int, spatial: int = 0, momentum: float = 0.1, epsilon: float = 1e-5):
        super().__init__()
        self.spatial, self.momentum, self.epsilon = spatial, momentum, epsilon
        self.frozen = False
        self.weight, self.bias = nn.Parameter(torch.ones(features)), nn.Parameter(torch.zeros(features))
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("var", torch.ones(features))

    def forward(self, x: Tensor) -> Tensor:
        tail = (-1,) + (1,) * self.spatial
        if self.training:
            axes = tuple(axis for axis in range(x.ndim) if axis != x.ndim - 1 - self.spatial)
            mean, var = across.moments(x, axes)
            if not self.frozen:
                self._write(mean.detach(), var.detach())
        else:
            mean, var = self.mean, self.var
        gain = self.weight * torch.rsqrt(var + self.epsilon)
        return x * gain.reshape(tail) + (self.bias - mean * gain).reshape(tail)

    def _write(self, mean: Tensor, var: Tensor) -> None:
        # Each buffer is computed out of place and written once: chained in-place updates are miscompiled on
        # CPU.
        self.mean.copy_(torch.lerp(self.mean, mean.to(self.mean.dtype), self.momentum))
        self.var.copy_(torch.lerp(self.var, var.to(self.var.dtype), self.momentum))


class Parameter(nn.Module):
    """A learned array; calling it returns the array of shape `shape`."""

    def __init__(self, shape: int | Sequence[int], init: float = 0.0):
        super().__init__()
        self.value = nn.Parameter(torch.full(as_shape(shape), float(init)))

    def forward(self) -> Tensor:
        return self.value


class MLP(nn.Module):
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

    def __init__(self, in_shape, hidden, out_shape, activation: str = "relu"):
        super().__init__()
        self.in_shape, self.out_shape = as_shape(in_shape), as_shape(out_shape)
        widths = (math.prod(self.in_shape), *as_shape(hidden), math.prod(self.out_shape))
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = named_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: x.ndim - len(self.in_shape)]
        h = x.reshape(*lead, -1) if len(self.in_shape) != 1 else x
        for layer in self.layers[:-1]:
            h = self.act(layer(h))
        return self.layers[-1](h).reshape(*lead, *self.out_shape)
