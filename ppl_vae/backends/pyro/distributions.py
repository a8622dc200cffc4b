"""Pyro's distributions and the project's own, as `ppl.dist`."""

from dataclasses import replace

import pyro.distributions
import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from ppl_vae import distributions
from ppl_vae.backends.common.distributions import Adapted, Support, completed
from ppl_vae.backends.pyro.functions import F
from ppl_vae.distributions import base


class TorchSupport(Support, constraints.Constraint):
    """See `Support`."""

    def check(self, value: Tensor) -> Tensor:
        return self.declared.inside(F, value)


class PyroAdapted(Adapted, TorchDistribution):
    """See `Adapted`."""

    F, constraints, _support, _shape = F, constraints, TorchSupport, torch.Size

    def _keep(self, declared: distributions.Distribution) -> None:
        values = {name: getattr(declared, name) for name in declared.array_fields()}
        numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        if numbers:
            like = next((value for value in values.values() if isinstance(value, Tensor)), torch.zeros(()))
            declared = replace(declared, **{name: F.asarray(value, like) for name, value in numbers.items()})
        self.declared = declared
        self.__dict__.update(vars(declared))

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        if not self.has_rsample:
            raise NotImplementedError(f"{type(self).__name__} has no reparametrised draw")
        return self.declared.draw(F, None, tuple(self._extended_shape(sample_shape)))

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.declared.draw(F, None, tuple(self._extended_shape(sample_shape)))


@register_kl(PyroAdapted, PyroAdapted)
def _closed_form(q: PyroAdapted, p: PyroAdapted) -> Tensor:
    return base.kl(F, q.declared, p.declared)


dist = completed(pyro.distributions, PyroAdapted)
