"""The primitives that a model or a guide gets as `ppl`: Pyro's own, with the differences to NumPyro smoothed
over.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.backends.common.bound import named_scalar
from ppl_vae.backends.pyro import distributions
from ppl_vae.backends.pyro.functions import F
from ppl_vae.errors import ProgramError, UsageError

DATA = "data"


class Primitives:
    """One call's primitives.

    Parameters
    ----------
    like : Tensor
        Gives device and dtype to arrays that a program makes.
    draws : int or None
        Size of the plate "data" where no data is given.
    num_data : int or None
        Rows of the whole data set: stock ELBOs see a scale of num_data / batch. None: scale 1.
    scalars : dict of str to number, optional
        What changes with the step.
    """

    sample = staticmethod(pyro.sample)
    plate = staticmethod(pyro.plate)
    dist = distributions
    F = F
    likelihood = staticmethod(distributions.likelihood)
    F = F

    def __init__(
        self,
        like: Tensor,
        draws: int | None = None,
        num_data: int | None = None,
        scalars: Mapping[str, Any] | None = None,
    ):
        self._like, self._draws, self._num_data, self._scalars = like, draws, num_data, scalars or {}

    def scalar(self, name: str) -> Any:
        """Return the present value of what changes with the step (see `Program.schedules`)."""
        return named_scalar(self._scalars, name)

    def minibatch(self, *arrays: Tensor | None) -> pyro.plate:
        """Return the plate "data" over the rows of the batch, or over the draws asked for where every array
        is None.
        """
        # Compared in turn, not put into a set: the size of a captured graph's batch is a symbol.
        sizes = [array.shape[0] for array in arrays if array is not None]
        if any(size != sizes[0] for size in sizes):
            raise ProgramError(f"the fields of a batch have different numbers of rows: {sorted(set(sizes))}")
        rows = sizes[0] if sizes else self._draws
        if rows is None:
            raise UsageError("no data and no number of draws: call model(x) or model(n=64)")
        if self._num_data is None:
            return pyro.plate(DATA, rows, dim=-1, device=self._like.device)
        # The indices are given: Pyro would permute the whole data set at every call.
        index = torch.arange(rows, device=self._like.device)
        return pyro.plate(DATA, self._num_data, subsample=index, dim=-1)

    def standard_normal(self, shape: int | Iterable[int]) -> distributions.Distribution:
        """Return N(0, I) with the event shape `shape`."""
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        return distributions.Normal(self._like.new_zeros(size), self._like.new_ones(size)).to_event(len(size))

    def array(self, value: Any) -> Tensor:
        """Return numbers as an array on the program's device: whole numbers and truth values as they are,
        others in the program's precision.
        """
        if isinstance(value, float):  # filled in on the device: a copy of a number would wait for a GPU
            return self._like.new_full((), value)
        found = torch.as_tensor(value, device=self._like.device)
        return found.to(self._like.dtype) if found.is_floating_point() else found

    @staticmethod
    def deterministic(name: str, value: Tensor) -> Tensor:
        """Record a value under a name, with the axes right of the plates as its event."""
        return pyro.deterministic(name, value)

    @staticmethod
    def factor(name: str, log_factor: Tensor) -> None:
        """Add to the log density, in nats. In a guide it counts as log q: the objective subtracts it,
        reported bounds leave it out.
        """
        pyro.factor(name, log_factor, has_rsample=True)

    @staticmethod
    def mask(mask: Tensor) -> Any:
        """Return a context in which sites count only where `mask` is true."""
        return pyro.poutine.mask(mask=mask)

    @staticmethod
    def stop_gradient(value: Tensor) -> Tensor:
        """Return the value as a constant."""
        return value.detach()
