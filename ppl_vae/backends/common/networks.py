"""Declared networks as modules of a backend."""

from collections.abc import Mapping
from typing import Any

from ppl_vae import checks, networks
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.networks import Network


class UnknownName(ProgramError, AttributeError):
    """A name that is not there; `hasattr` gives False for it."""


class Modules:
    """What a program and a network get as `nn`: layers of the backend and networks of the library by name,
    each made at once with first weights of its own.

    Parameters
    ----------
    layers : dict of str to callable
        What the backend gives.
    """

    library: str  # where the backend's class Module is
    kind: type  # that class
    parameter: type
    arrays: Any  # the types of parameters and buffers
    network: type  # of a declared network, made of that and `nn`
    value: type  # of a parameter, called for its array
    several: type  # of a list of modules

    def __init__(self, layers: Mapping[str, Any]):
        self._layers = layers

    def __getattr__(self, name: str) -> Any:
        if name in self._layers:
            return self._layers[name]
        if name in networks.GALLERY:
            kind = getattr(networks, name)
            return lambda *sizes, **named: self.module(kind(*sizes, **named))
        known = ", ".join(sorted([*self._layers, *networks.GALLERY], key=str.lower))
        close = checks.near(name, [*self._layers, *networks.GALLERY])
        ask = f"did you mean {close}? Choose" if close else "choose"
        raise UnknownName(f"there is no layer or network {name!r}: {ask} one of {known}")

    def module(self, part: Any, name: str = "network") -> Any:
        """Return what a program or a network declares as a module of the backend; lists too.

        Raises
        ------
        ProgramError
            Where it is none.
        """
        if isinstance(part, Network):
            return self.network(part, self)
        if isinstance(part, (list, tuple)):
            return self.several(self.module(item, f"{name}.{index}") for index, item in enumerate(part))
        if isinstance(part, self.parameter):
            return self.value(part)
        if not isinstance(part, self.kind):
            kind = type(part).__name__
            raise ProgramError(f"network {name!r} is a {kind}, not a Network or a {self.library}.Module")
        return part


def networks_of(program: Any, nn: Any) -> Mapping[str, Any]:
    """Return the networks of a program by name; refuses what is no dict with a ProgramError."""
    made = program.networks(nn)
    if not isinstance(made, Mapping):
        raise ProgramError(f"it returns {made!r:.50}: return a dict of networks by name")
    return made


def deviation(init: str) -> float:
    """Return the standard deviation of first values by name: `normal`, or `normal:0.02`.

    Raises
    ------
    UsageError
        For another text.
    """
    name, _, number = init.partition(":")
    try:
        found = float(number or 1.0)
    except ValueError:
        found = -1.0
    if name != "normal" or not 0 < found < float("inf"):
        raise UsageError(f"init={init!r}: give a number, an array, normal, or normal:0.02")
    return found


def declare(bound: Any, network: Network, nn: Modules) -> None:
    """Give a module the layers of its network, as attributes."""
    bound.network, bound.frozen = network, False
    for name, part in network.layers(nn).items():
        if hasattr(bound, name):
            raise ProgramError(
                f"{type(network).__name__}: the name {name!r} is taken: give the layer another"
            )
        setattr(bound, name, part if isinstance(part, nn.arrays) else nn.module(part, name))


class Net:
    """What `Network.apply` gets as `net`.

    Parameters
    ----------
    bound : module
        As `declare` made it: with a `network`, and `frozen` where a call may not change buffers.
    """

    def __init__(self, bound: Any):
        self._bound = bound
        self.training, self.learns = bound.training, bound.training and not bound.frozen

    def _layer(self, name: str) -> Any:
        """Return a layer, or the array of a parameter or a buffer; None where there is none."""
        raise NotImplementedError

    def _write(self, name: str, array: Any) -> bool:
        """Change a buffer, to a constant; False where there is none."""
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        layer = self._layer(name)
        if layer is None:
            raise UnknownName(
                f"{type(self._bound.network).__name__} has no layer {name!r}: return it from layers()"
            )
        return layer

    def keep(self, **arrays: Any) -> None:
        """Change buffers."""
        for name, array in arrays.items():
            if not self._write(name, array):
                owner = type(self._bound.network).__name__
                raise ProgramError(f"{owner} cannot keep {name!r}: return it from layers() as nn.Buffer")
