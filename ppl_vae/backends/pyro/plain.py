"""Two plain Pyro functions as a bound program: their parameters live in a parameter store of their own."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.backends.common import plain as common
from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.pyro.arrays import find_device, noise_kept, seed_noise
from ppl_vae.backends.pyro.library import OnPyro
from ppl_vae.backends.pyro.sites import Recorded
from ppl_vae.closures import named_by
from ppl_vae.errors import ProgramError, RunError
from ppl_vae.program import PlainProgram, Program

LOG = logging.getLogger(__name__)
FIXED = "fixed"  # begins the names of parameters that are not trained


def modules_of(program: Program | PlainProgram) -> dict[str, nn.Module]:
    """Return the outermost modules that model and guide, and what they call, belong to or name."""
    named = [pair for pair in named_by(program.model, program.guide) if isinstance(pair[1], nn.Module)]
    inner = {id(part) for _, module in named for part in module.modules() if part is not module}
    outer = [(name, module) for name, module in named if id(module) not in inner]
    taken = [name for name, _ in outer]
    return {
        name if taken.count(name) == 1 else f"{name} {n}": module for n, (name, module) in enumerate(outer)
    }


class PlainBound(common.PlainBound, OnPyro):
    """See `ppl_vae.backends.common.plain.PlainBound`: runs within a parameter store that no other program
    sees.
    """

    keeps = True
    registered = "register it with pyro.module, or freeze it on purpose (requires_grad_(False))"

    def _set_up(self, device: str) -> None:
        self._store: dict[str, Any] = {"params": {}, "constraints": {}}
        self._named = modules_of(self.program)
        self._owners = list(self._named.values())
        self.to(find_device(device))

    def _apply(self, function: Any, recurse: bool = True) -> "PlainBound":
        # What `to` moves: the user's modules and parameters lie beside this module, not in it.
        for owner in self._owners:
            owner._apply(function, recurse)
        for parameter in self._store["params"].values():
            parameter.data = function(parameter.data)
        self.device = function(torch.empty(0)).device
        return super()._apply(function, recurse)

    def _run(self, role: str, args: tuple, batch: Mapping[str, Tensor]) -> Any:
        if self._loaded is not None:
            # The parameters of a saved run are set once the program has made its own.
            self._make_parameters(args, batch)
        with pyro.get_param_store().scope(self._store), self._on_device():
            return super()._run(role, args, batch)

    def _on_device(self) -> AbstractContextManager:
        """Let the user's `torch.zeros(3)` lie where the program does; on the CPU it does anyway."""
        return nullcontext() if self.device.type == "cpu" else self.device

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        if calls.stopped:
            raise ProgramError(
                f"{self.program.name}: the parameters of two plain functions lie outside of any module and "
                "cannot be held constant: declare a Program, or use another objective"
            )
        yield

    def train(self, mode: bool = True) -> "PlainBound":
        """Set the mode of the modules that model and guide belong to or name."""
        for owner in self._owners:
            owner.train(mode)
        return super().train(mode)

    def ensure_parameters(self, batch: Mapping[str, Tensor]) -> None:
        """Run model and guide once, so that every parameter exists; then set those loaded before."""
        self._make_parameters((), batch)

    def _make_parameters(self, args: tuple, batch: Mapping[str, Tensor]) -> None:
        loaded, self._loaded = self._loaded, None
        with noise_kept(self.device), pyro.poutine.block():
            seed_noise(self._seed, self.device)
            trace = Recorded(self.guide).get_trace(*args, **batch)
            pyro.poutine.replay(self.model, trace=trace)(*args, **batch)
        if loaded is None:
            return
        try:
            self.load_tensors(loaded)
        except RunError:  # the next call is refused as well
            self._loaded = loaded
            raise

    def trainable(self) -> list[Tensor]:
        return list(self._store["params"].values())

    def unregistered(self) -> list[str]:
        places = {value.data_ptr() for value in self._store["params"].values()}
        return [
            name
            for name, module in self._named.items()
            if any(p.requires_grad and p.data_ptr() not in places for p in module.parameters())
        ]

    def tensors(self) -> dict[str, Tensor]:
        """Return unconstrained parameters by name, and of the modules buffers and parameters that are not
        trained: frozen ones, and those of modules that no `pyro.module` registers.
        """
        trained = self._store["params"]
        tensors = {name: value.detach() for name, value in trained.items()}
        places = {value.data_ptr() for value in trained.values()}
        for number, owner in enumerate(self._owners):
            tensors |= {f"buffer{number}.{name}": value for name, value in owner.named_buffers()}
            tensors |= {
                f"{FIXED}{number}.{name}": value.detach()
                for name, value in owner.named_parameters()
                if value.data_ptr() not in places
            }
        return tensors

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set parameters and buffers in place; held until they exist."""
        if not self._store["params"]:
            self._loaded = dict(tensors)
            return
        mine = self.tensors()
        lost = {name for name in set(mine) - set(tensors) if name.startswith((FIXED, "buffer"))}
        if lost and not set(tensors) - set(mine):
            LOG.warning(
                "the run was written without weights that are not trained (%s): they are as %s makes them",
                ", ".join(sorted(lost)), self.program.name,
            )  # fmt: skip
            mine = {name: value for name, value in mine.items() if name not in lost}
        if set(mine) != set(tensors):
            raise RunError(
                f"the weights do not fit {self.program.name}: "
                f"{', '.join(sorted(set(mine) ^ set(tensors)))} on one side only"
            )
        if other := sorted(name for name, value in mine.items() if value.shape != tensors[name].shape):
            raise RunError(f"the weights do not fit {self.program.name}: {', '.join(other)} differ in shape")
        with torch.no_grad():
            for name, value in mine.items():
                value.copy_(tensors[name])
        self._loaded = None
