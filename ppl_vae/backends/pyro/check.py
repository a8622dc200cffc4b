"""A program bound to Pyro, as the rules of the contract look at it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ppl_vae.backends.common import probe as common
from ppl_vae.backends.pyro.arrays import seed_noise
from ppl_vae.backends.pyro.bound import Bound, bind
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.backends.pyro.plain import PlainBound, modules_of
from ppl_vae.backends.pyro.recorder import Recorder
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.contract.generators import foreign_generators
from ppl_vae.contract.probe import Arrays, ProgramFailure
from ppl_vae.objectives import ELBO
from ppl_vae.program import PlainProgram, Program


class Probe(common.Probe):
    """See `ppl_vae.contract.probe.Probe`. Works on the CPU."""

    frozen = "requires_grad_(False)"

    def __init__(self, bound: Bound | PlainBound, modules: list[nn.Module], modes: dict[nn.Module, bool]):
        super().__init__(bound, Recorder(bound))
        self._modules, self._modes = modules, modes
        # Modules that a plain program merely names: their buffers are not among its weights.
        named = (f"{n}: {name}" for n, module in enumerate(modules) for name, _ in module.named_buffers())
        buffers = (buffer for module in modules for buffer in module.buffers())
        self._buffers = {} if bound.declared else dict(zip(named, buffers, strict=True))
        self._before = self.weights()

    def close(self) -> None:
        """Remove the hooks; put modes and buffers back."""
        self._recorder.close()
        for module, mode in self._modes.items():
            module.training = mode
        self.load_weights({name: self._before.get(name, value) for name, value in self.weights().items()})

    def train(self, mode: bool) -> None:
        """Set train mode or evaluation mode."""
        for module in self._modules:
            module.train(mode)

    def weights(self) -> dict[str, np.ndarray]:
        return super().weights() | {name: b.numpy().copy() for name, b in self._buffers.items()}

    def load_weights(self, weights: Arrays) -> None:
        super().load_weights({n: value for n, value in weights.items() if n not in self._buffers})
        with torch.no_grad():
            for name, buffer in self._buffers.items():
                buffer.copy_(torch.from_numpy(np.array(weights[name])))

    def parameter_gradients(self, rows: Arrays, seed: int = 0, step: float = 0.0) -> dict[str, float | None]:
        parameters = self._parameters()
        with self._asked(seed):
            loss = self._called("guide", lambda: self._loss(rows))
            if not parameters or not loss.requires_grad:
                return dict.fromkeys(parameters)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                if gradient is not None and step:
                    parameter.sub_(step * gradient.nan_to_num().sign())
        return {
            name: None if gradient is None else float(gradient.abs().max()) if gradient.numel() else None
            for name, gradient in zip(parameters, gradients, strict=True)
        }

    def _loss(self, rows: Arrays) -> Tensor:
        objective = Objective(self.bound, ELBO(), self.num_data)
        return objective(self.bound.put(self._batch(rows)), {"beta": torch.ones(())}).value

    def _parameters(self) -> dict[str, Tensor]:
        if self.bound.declared:
            named = self.bound.networks.named_parameters()
        else:
            names = (name.replace("$$$", ".") for name in self.bound.tensors())
            named = zip(names, self.bound.trainable(), strict=False)
        return {name: parameter for name, parameter in named if parameter.requires_grad}

    def _computed(self, name: Any, function: Callable[..., Any], known: Any, seed: int, *arrays: Any) -> Any:
        with self._asked(seed), torch.no_grad():
            result = function(Tracer(self.bound), *map(self.bound.put, arrays))
        return pytree.tree_map_only(Tensor, lambda value: value.detach().numpy().copy(), result), known

    @contextmanager
    def _asked(self, seed: int) -> Iterator[None]:
        self._recorder.start()
        with untouched():
            seed_noise(seed, self.bound.device)
            yield


def probe(program: Program | PlainProgram, fields: tuple[str, ...], num_data: int, seed: int) -> Probe:
    """Bind a program for a check; see `ppl_vae.contract.probe.Maker`."""
    with untouched():
        roots = [] if program.declared else list(modules_of(program).values())
        modes = {module: module.training for root in roots for module in root.modules()}
        try:
            if program.declared:
                bound = bind(program, num_data=num_data, seed=seed)
            else:
                bound = PlainBound(program, fields, num_data, seed)
        except Exception as error:
            raise ProgramFailure("the method networks", error) from error
        modes |= {module: module.training for module in bound.modules()}
        return Probe(bound, [bound, *roots], modes)


@contextmanager
def untouched() -> Iterator[None]:
    """Leave Pyro's parameter store, all random states and the validation flags as they were."""
    state = torch.random.get_rng_state()
    try:
        with (
            foreign_generators(),
            pyro.get_param_store().scope(),
            pyro.validation_enabled(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.random.set_rng_state(state)
