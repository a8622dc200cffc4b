"""What bound programs of both kinds have on Pyro."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.distributions import biject_to

from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.pyro.arrays import precision_of, put, to_device
from ppl_vae.backends.pyro.passes import Passes, at_rest
from ppl_vae.backends.pyro.sites import broken_plate
from ppl_vae.backends.pyro.tracing import Tracer


class OnPyro(Bound, nn.Module):
    """A bound program as a torch module.

    Attributes
    ----------
    device : torch.device
        Where the parameters lie.
    """

    backend = "pyro"
    broken_plate = staticmethod(broken_plate)

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        return at_rest(self, seed, name)

    def tracer(self, seed: int = 0) -> Tracer:
        return Tracer(self)

    def gradients(self, *arrays: Any) -> AbstractContextManager:
        wanted = torch.is_grad_enabled() and any(value.requires_grad for value in arrays)
        return torch.enable_grad() if wanted else nullcontext()

    def validating(self) -> AbstractContextManager:
        return pyro.validation_enabled(True)

    def put(self, arrays: Any) -> Any:
        return put(arrays, self.device)

    def transform(self, fn: Any) -> Any:
        return biject_to(fn.support)

    def precision(self) -> np.dtype:
        return precision_of(self.tensors().values())

    def trainable(self) -> list[Tensor]:
        """Return the parameters that an optimizer should see."""
        raise NotImplementedError

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, as they are."""
        raise NotImplementedError

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set parameters and buffers in place; see `load_weights`."""
        raise NotImplementedError

    def weights(self) -> dict[str, np.ndarray]:
        return {name: value.cpu().numpy().copy() for name, value in self.tensors().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        self.load_tensors({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})

    def _array(self, value: Any) -> Any:
        return to_device(value, self.device)
