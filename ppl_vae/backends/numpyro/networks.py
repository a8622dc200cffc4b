"""Networks as flax modules."""

import inspect
from functools import partial
from typing import Any

from flax import nnx
from jax import Array, lax

from ppl_vae.backends.numpyro import layers
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.layers.arrays import Kept
from ppl_vae.errors import ProgramError
from ppl_vae.networks import Network
from ppl_vae.networks.namespace import Namespace, no_buffer, no_layer, taken


class BoundNetwork(nnx.Module):
    """A declared network with its layers; `frozen` where a call may not change buffers."""

    def __init__(self, network: Network, nn: "Seeded"):
        self.network, self.training, self.frozen = network, True, False
        self.single_precision = network.single_precision
        for name, part in network.layers(nn).items():
            if hasattr(self, name):
                raise taken(network, name)
            setattr(self, name, part if isinstance(part, nnx.Variable) else module(nn, part, name))

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self.network.apply(F, Net(self), *inputs, **named)


class Net:
    """What `Network.apply` gets as `net`."""

    def __init__(self, bound: BoundNetwork):
        self._bound = bound
        self.training, self.learns = bound.training, bound.training and not bound.frozen

    def __getattr__(self, name: str) -> Any:
        value = vars(self._bound).get(name)
        if isinstance(value, nnx.Variable):
            return value[...]
        if not isinstance(value, nnx.Module):
            raise no_layer(self._bound.network, name)
        return value

    def keep(self, **arrays: Array) -> None:
        """Change buffers."""
        for name, array in arrays.items():
            buffer = vars(self._bound).get(name)
            if not isinstance(buffer, Kept):
                raise no_buffer(self._bound.network, name)
            buffer.set_value(lax.stop_gradient(array))


class Value(nnx.Module):
    """A learned array that is called."""

    def __init__(self, value: nnx.Param):
        self.value = value

    def __call__(self) -> Array:
        return self.value[...]


class Sequential(nnx.Module):
    """Layers and networks one after the other."""

    def __init__(self, nn: "Seeded", *parts: Any):
        self.layers = nnx.List(module(nn, part, "Sequential") for part in parts)

    def __call__(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        return x


def module(nn: "Seeded", part: Any, name: str = "network") -> nnx.Module:
    """Return what a program or a network declares as a flax module; lists as `nnx.List`.

    Raises
    ------
    ProgramError
        Where it is none.
    """
    if isinstance(part, Network):
        return BoundNetwork(part, nn)
    if isinstance(part, (list, tuple)):
        return nnx.List(module(nn, item, f"{name}.{index}") for index, item in enumerate(part))
    if isinstance(part, nnx.Param):
        return Value(part)
    if not isinstance(part, nnx.Module):
        raise ProgramError(f"network {name!r} is a {type(part).__name__}, not a Network or a flax.nnx.Module")
    return part


class Seeded(Namespace):
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

    def __init__(self, seed: int):
        self.rngs = nnx.Rngs(seed)
        made = {name: self._given(getattr(layers, name)) for name in layers.__all__}
        super().__init__(made | {"Sequential": partial(Sequential, self)}, partial(module, self))

    def _given(self, layer: Any) -> Any:
        # inspect.signature of an nnx class shows its metaclass, so ask the constructor.
        arguments = inspect.signature(layer.__init__ if inspect.isclass(layer) else layer).parameters
        return partial(layer, rngs=self.rngs) if "rngs" in arguments else layer
