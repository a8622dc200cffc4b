"""Pyro's primitives as `ppl`."""

from typing import Any

import pyro
import torch
from torch import Tensor

from ppl_vae.backends.common import primitives
from ppl_vae.backends.common.primitives import DATA
from ppl_vae.backends.pyro import distributions
from ppl_vae.backends.pyro.functions import F


class Primitives(primitives.Primitives):
    """See `ppl_vae.backends.common.primitives.Primitives`."""

    sample, plate, deterministic = map(staticmethod, (pyro.sample, pyro.plate, pyro.deterministic))
    dist, F = distributions, F

    def _rows(self, rows: int) -> pyro.plate:
        if self._num_data is None:
            return pyro.plate(DATA, rows, dim=-1, device=self._like.device)
        # The indices are given: Pyro would permute the whole data set at every call.
        index = torch.arange(rows, device=self._like.device)
        return pyro.plate(DATA, self._num_data, subsample=index, dim=-1)

    def array(self, value: Any) -> Tensor:
        found = torch.as_tensor(value, device=self._like.device)
        return found.to(self._like.dtype) if found.is_floating_point() else found

    @staticmethod
    def factor(name: str, log_factor: Tensor) -> None:
        pyro.factor(name, log_factor, has_rsample=True)

    @staticmethod
    def mask(mask: Tensor) -> Any:
        return pyro.poutine.mask(mask=mask)
