"""A declared program as a torch module whose `model` and `guide` are ordinary Pyro functions."""

import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.backends.common import primitives as common
from ppl_vae.backends.common.bound import DeclaredBound
from ppl_vae.backends.common.calls import NetworkCall
from ppl_vae.backends.common.folding import is_foreign
from ppl_vae.backends.common.networks import networks_of
from ppl_vae.backends.common.primitives import DATA
from ppl_vae.backends.pyro.arrays import find_device
from ppl_vae.backends.pyro.distributions import dist
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.library import OnPyro
from ppl_vae.backends.pyro.networks import NN, BoundNetwork
from ppl_vae.closures import named_by
from ppl_vae.errors import RunError
from ppl_vae.faults import told
from ppl_vae.networks import Network
from ppl_vae.program import Program

_IDS = itertools.count()


class Primitives(common.Primitives):
    """See `ppl_vae.backends.common.primitives.Primitives`."""

    sample, plate, deterministic = map(staticmethod, (pyro.sample, pyro.plate, pyro.deterministic))
    dist, F = dist, F

    def _rows(self, rows: int) -> pyro.plate:
        if self._num_data is None:
            return pyro.plate(DATA, rows, dim=-1, device=self._like.device)
        # The indices are given: Pyro would permute the whole data set at every call.
        index = torch.arange(rows, device=self._like.device)
        return pyro.plate(DATA, self._num_data, subsample=index, dim=-1)

    def array(self, value: Any) -> Tensor:
        if isinstance(value, float):  # filled in on the device: a copy of a number would wait for a GPU
            return self._like.new_full((), value)
        array = torch.as_tensor(value, device=self._like.device)
        return array.to(self._like.dtype) if array.is_floating_point() else array

    @staticmethod
    def factor(name: str, log_factor: Tensor) -> None:
        pyro.factor(name, log_factor, has_rsample=True)

    @staticmethod
    def mask(mask: Tensor) -> Any:
        return pyro.poutine.mask(mask=mask)


class Bound(DeclaredBound, OnPyro):
    """A program bound to Pyro; see `ppl_vae.backends.common.bound.DeclaredBound`.

    Parameters are registered under a name of this object's own, so that two bound programs never share any.
    """

    F = F

    def __init__(self, program: Program, num_data: int | None = None):
        super().__init__(program, num_data)
        with told("the method networks"):
            made = {name: NN.module(part, name) for name, part in networks_of(program, NN).items()}
        self.networks = nn.ModuleDict(made)
        self.parts = {name: _listed(module) for name, module in self.networks.items()}
        self._declared: dict[nn.Module, tuple[list[BoundNetwork], bool, bool]] = {}
        self.register_buffer("anchor", torch.empty(0), persistent=False)
        self._id = f"ppl_vae.{next(_IDS)}"

    def declared_networks(self) -> Iterator[tuple[str, Network]]:
        for name, module in self.networks.named_modules():
            if isinstance(module, BoundNetwork):
                yield name, module.network

    def __getstate__(self) -> dict[str, Any]:
        for parameter in self.parameters():  # Pyro hangs a weak reference on each, and again at each use
            vars(parameter).pop("unconstrained", None)
        return vars(self) | {"supports": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._id = f"ppl_vae.{next(_IDS)}"  # a copy, also one from another process, is another program

    @property
    def device(self) -> torch.device:
        return self.anchor.device

    def _run(self, role: str, args: tuple, data: dict[str, Any], n: int | None) -> Any:
        if self.calls.scaled and next(self.parameters(), None) is not None:
            pyro.module(self._id, self)
        return super()._run(role, args, data, n)

    def unregistered(self) -> list[str]:
        mine = {id(module) for module in self.modules()}
        named = named_by(self.program.model, self.program.guide)
        return [name for name, one in named if isinstance(one, nn.Module) and id(one) not in mine]

    def primitives(self, draws: int | None, num_data: int | None) -> Primitives:
        return Primitives(self.anchor, draws, num_data, self.scalars)

    def network_call(self, part: nn.Module, frozen: bool) -> NetworkCall:
        stopped, autocast = self.calls.stopped, self.autocast
        if part not in self._declared:  # once: to walk through a module takes as long as to call it
            declared = [inner for inner in part.modules() if isinstance(inner, BoundNetwork)]
            foreign = is_foreign(part, nn.Module.children, (nn.Linear, nn.Embedding, nn.ModuleList))
            self._declared[part] = declared, next(part.buffers(), None) is not None, foreign
        declared, stateful, foreign = self._declared[part]

        def call(*args: Any, **kwargs: Any) -> Any:
            for inner in declared:
                inner.frozen = frozen
            forward = _constant(part) if stopped else part
            if autocast is None:
                return forward(*args, **kwargs)
            device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")
            with torch.autocast(device, autocast):
                out = forward(*args, **kwargs)
            return _single_precision(out)

        return NetworkCall(call, stateful, foreign)

    def trainable(self) -> list[Tensor]:
        return list(self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.networks.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        try:
            self.networks.load_state_dict(self.completed(tensors, self.tensors))
        except RuntimeError as error:
            raise RunError(f"the weights do not fit the program: {' '.join(str(error).split())}") from None


def _listed(module: nn.Module) -> Any:
    return [_listed(part) for part in module] if isinstance(module, nn.ModuleList) else module


def _constant(module: nn.Module) -> Callable[..., Any]:
    """Return a module whose parameters are constants."""
    values = {name: value.detach() for name, value in module.named_parameters()}
    return lambda *args, **kwargs: torch.func.functional_call(module, values, args, kwargs)


def _single_precision(out: Any) -> Any:
    if isinstance(out, Tensor):
        return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out
    if isinstance(out, tuple):
        parts = [_single_precision(part) for part in out]
        return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)
    return out


def bind(program: Program, *, num_data: int | None = None, seed: int = 0, device: str = "cpu") -> Bound:
    """Make the program's networks, with weights that depend on `seed` alone, and bind it to Pyro."""
    where = find_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch's own function would seed every GPU too
        return Bound(program, num_data).to(where)
