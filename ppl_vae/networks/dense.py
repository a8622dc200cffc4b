"""Fully connected networks."""

import math
from dataclasses import dataclass
from itertools import pairwise

from ppl_vae.functions import ActivationName
from ppl_vae.networks.base import Network
from ppl_vae.shapes import Shape, as_shape


@dataclass(frozen=True)
class Activation(Network):
    """An activation by name, as a layer: relu, tanh, gelu, silu, elu or identity."""

    name: ActivationName

    def apply(self, F, net, x):
        return F.activation(self.name)(x)


activation = Activation  # its name as a layer


@dataclass(frozen=True)
class MLP(Network):
    """Fully connected network from `in_shape` to `out_shape` through hidden layers.

    Parameters
    ----------
    in_shape, out_shape : int or tuple of int
        Event shapes; every axis before them stays.
    hidden : int or tuple of int
        Widths of the hidden layers (an empty tuple: one linear map).
    """

    in_shape: Shape
    hidden: Shape
    out_shape: Shape
    activation: ActivationName = "relu"

    def layers(self, nn):
        ends = (math.prod(as_shape(shape)) for shape in (self.in_shape, self.out_shape))
        widths = (next(ends), *as_shape(self.hidden), next(ends))
        return {"layers": [nn.Linear(a, b) for a, b in pairwise(widths)]}

    def biases(self, outputs):
        """Return the weights, by name, with which the outputs lie about given ones, [*out_shape]."""
        return {f"layers.{len(as_shape(self.hidden))}.bias": outputs.reshape(-1)}

    def apply(self, F, net, x):
        act, axes = F.activation(self.activation), len(as_shape(self.in_shape))
        lead = x.shape[: x.ndim - axes]
        h = x.reshape(*lead, -1) if axes != 1 else x
        *hidden, last = net.layers
        for layer in hidden:
            h = act(layer(h))
        return last(h).reshape(*lead, *as_shape(self.out_shape))
