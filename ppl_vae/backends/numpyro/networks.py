"""Networks as flax modules."""

import inspect
from functools import partial
from typing import Any

from flax import nnx
from jax import Array, lax

from ppl_vae.backends.common import networks
from ppl_vae.backends.common.networks import Modules, declare
from ppl_vae.backends.numpyro import layers
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.layers.arrays import Kept
from ppl_vae.networks import Network


class BoundNetwork(nnx.Module):
    """A declared network with its layers; `frozen` where a call may not change buffers."""

    def __init__(self, network: Network, nn: Modules):
        self.training, self.single_precision = True, network.single_precision
        declare(self, network, nn)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.network.apply(F, Net(self), *inputs, **named)


class Net(networks.Net):
    """See `ppl_vae.backends.common.networks.Net`."""

    def _layer(self, name: str) -> Any:
        value = vars(self._bound).get(name)
        if isinstance(value, nnx.Variable):
            return value[...]
        return value if isinstance(value, nnx.Module) else None

    def _write(self, name: str, array: Array) -> bool:
        buffer = vars(self._bound).get(name)
        if isinstance(buffer, Kept):
            buffer.set_value(lax.stop_gradient(array))
        return isinstance(buffer, Kept)


class Value(nnx.Module):
    """A learned array that is called."""

    def __init__(self, value: nnx.Param):
        self.value = value

    def __call__(self) -> Array:
        return self.value[...]


class Sequential(nnx.Module):
    """Layers and networks one after the other."""

    def __init__(self, nn: Modules, *parts: Any):
        self.layers = nnx.List(nn.module(part, "Sequential") for part in parts)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


class Seeded(Modules):
    """What a program gets as `nn`, with first weights from one seed.

    Parameters
    ----------
    seed : int
        Alone decides the weights of networks made in one order.

    Attributes
    ----------
    rngs : flax.nnx.Rngs
        For modules of a program's own.
    """

    library, kind, parameter, arrays = "flax.nnx", nnx.Module, nnx.Param, nnx.Variable
    network, value, several = BoundNetwork, Value, nnx.List

    def __init__(self, seed: int):
        self.rngs = nnx.Rngs(seed)
        made = {name: self._given(getattr(layers, name)) for name in layers.__all__}
        super().__init__(made | {"Sequential": partial(Sequential, self)})

    def _given(self, layer: Any) -> Any:
        # inspect.signature of an nnx class shows its metaclass, so ask the constructor.
        arguments = inspect.signature(layer.__init__ if inspect.isclass(layer) else layer).parameters
        return partial(layer, rngs=self.rngs) if "rngs" in arguments else layer
