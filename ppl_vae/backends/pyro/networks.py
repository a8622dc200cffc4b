"""Networks as torch modules."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.backends.common import networks
from ppl_vae.backends.common.networks import Modules, declare
from ppl_vae.backends.pyro import layers
from ppl_vae.backends.pyro.functions import F
from ppl_vae.networks import Network


class BoundNetwork(nn.Module):
    """A declared network with its layers; `frozen` where a call may not change buffers."""

    def __init__(self, network: Network, nn: Modules):
        super().__init__()
        declare(self, network, nn)

    def forward(self, *inputs: Any, **named: Any) -> Any:
        with _without_autocast(inputs) if self.network.single_precision else nullcontext():
            return self.network.apply(F, Net(self), *inputs, **named)


class Net(networks.Net):
    """See `ppl_vae.backends.common.networks.Net`."""

    def _layer(self, name: str) -> Any:
        bound = self._bound
        if name in bound._buffers:
            # A copy, as a buffer may be written while its old values wait for their gradient.
            return bound._buffers[name].clone()
        return bound._parameters.get(name, bound._modules.get(name))

    def _write(self, name: str, array: Tensor) -> bool:
        buffer = self._bound._buffers.get(name)
        if buffer is not None:
            # Computed out of place and written once: chained in-place updates are miscompiled on CPU.
            buffer.copy_(array.detach())
        return buffer is not None


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
        super().__init__(*(NN.module(part, "Sequential") for part in parts))


def _without_autocast(inputs: tuple) -> AbstractContextManager:
    device = next((value.device.type for value in inputs if isinstance(value, Tensor)), None)
    return torch.autocast(device, enabled=False) if device in ("cpu", "cuda") else nullcontext()


class Layers(Modules):
    """See `ppl_vae.backends.common.networks.Modules`."""

    library, kind, parameter, arrays = "torch.nn", nn.Module, nn.Parameter, (nn.Parameter, nn.Buffer)
    network, value, several = BoundNetwork, Value, nn.ModuleList


NN = Layers({name: getattr(layers, name) for name in layers.__all__} | {"Sequential": Sequential})
