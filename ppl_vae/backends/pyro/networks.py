"""Networks as torch modules."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro import layers
from ppl_vae.backends.pyro.functions import F
from ppl_vae.errors import ProgramError
from ppl_vae.networks import Network
from ppl_vae.networks.namespace import Namespace, no_buffer, no_layer, taken


class BoundNetwork(nn.Module):
    """A declared network with its layers; `frozen` where a call may not change buffers."""

    def __init__(self, network: Network):
        super().__init__()
        self.network, self.frozen = network, False
        for name, part in network.layers(NN).items():
            if hasattr(self, name):
                raise taken(network, name)
            kept = isinstance(part, (nn.Parameter, nn.Buffer))
            setattr(self, name, part if kept else module(part, name))

    def forward(self, *inputs: Any, **named: Any) -> Any:
        with _without_autocast(inputs) if self.network.single_precision else nullcontext():
            return self.network.apply(F, Net(self), *inputs, **named)


class Net:
    """What `Network.apply` gets as `net`."""

    def __init__(self, bound: BoundNetwork):
        self._bound = bound
        self.training, self.learns = bound.training, bound.training and not bound.frozen

    def __getattr__(self, name: str) -> Any:
        bound = self._bound
        if name in bound._buffers:
            # A copy, as a buffer may be written while its old values wait for their gradient.
            return bound._buffers[name].clone()
        if name in bound._parameters or name in bound._modules:
            return getattr(bound, name)
        raise no_layer(bound.network, name)

    def keep(self, **arrays: Tensor) -> None:
        """Change buffers."""
        # Computed out of place and written once: chained in-place updates are miscompiled on CPU.
        for name, array in arrays.items():
            if name not in self._bound._buffers:
                raise no_buffer(self._bound.network, name)
            self._bound._buffers[name].copy_(array.detach())


class Value(nn.Module):
    """A learned array that is called."""

    def __init__(self, value: nn.Parameter):
        super().__init__()
        self.value = value

    def forward(self) -> Tensor:
        return self.value


class Sequential(nn.Sequential):
    """Layers and networks one after the other."""

    def __init__(self, *parts: Any):
        super().__init__(*(module(part, "Sequential") for part in parts))


def module(part: Any, name: str = "network") -> nn.Module:
    """Return what a program or a network declares as a torch module; lists as `nn.ModuleList`.

    Raises
    ------
    ProgramError
        Where it is none.
    """
    if isinstance(part, Network):
        return BoundNetwork(part)
    if isinstance(part, (list, tuple)):
        return nn.ModuleList(module(item, f"{name}.{index}") for index, item in enumerate(part))
    if isinstance(part, nn.Parameter):
        return Value(part)
    if not isinstance(part, nn.Module):
        raise ProgramError(f"network {name!r} is a {type(part).__name__}, not a Network or a torch.nn.Module")
    return part


def _without_autocast(inputs: tuple) -> AbstractContextManager:
    device = next((value.device.type for value in inputs if isinstance(value, Tensor)), None)
    return torch.autocast(device, enabled=False) if device in ("cpu", "cuda") else nullcontext()


NN = Namespace({name: getattr(layers, name) for name in layers.__all__} | {"Sequential": Sequential}, module)
