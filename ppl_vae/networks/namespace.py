"""What a program and a network get as `nn`: the layers of a backend and the networks of the library."""

from collections.abc import Callable, Mapping
from typing import Any

from ppl_vae import networks
from ppl_vae.errors import ProgramError


class UnknownName(ProgramError, AttributeError):
    """A name that is not there; `hasattr` gives False for it."""


class Namespace:
    """Layers and networks by name, each made at once with first weights of its own.

    Parameters
    ----------
    layers : dict of str to callable
        What the backend gives.
    module : callable
        Makes a module of the backend from a `Network`.
    """

    def __init__(self, layers: Mapping[str, Any], module: Callable[[networks.Network], Any]):
        self._layers, self._module = layers, module

    def __getattr__(self, name: str) -> Any:
        if name in self._layers:
            return self._layers[name]
        if name in networks.GALLERY:
            kind = getattr(networks, name)
            return lambda *sizes, **named: self._module(kind(*sizes, **named))
        known = ", ".join(sorted([*self._layers, *networks.GALLERY], key=str.lower))
        raise UnknownName(f"there is no layer or network {name!r}: choose one of {known}")


def no_layer(network: networks.Network, name: str) -> UnknownName:
    """Return the refusal of a layer that a network does not declare."""
    return UnknownName(f"{type(network).__name__} has no layer {name!r}: return it from layers()")


def no_buffer(network: networks.Network, name: str) -> ProgramError:
    """Return the refusal to change an array that is no buffer."""
    return ProgramError(
        f"{type(network).__name__} cannot keep {name!r}: return it from layers() as nn.Buffer"
    )


def taken(network: networks.Network, name: str) -> ProgramError:
    """Return the refusal of a layer's name that the modules of a backend have for something else."""
    return ProgramError(f"{type(network).__name__}: the name {name!r} is taken: give the layer another")
