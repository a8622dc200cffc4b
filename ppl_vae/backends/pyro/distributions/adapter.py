"""From a distribution that is declared once to one of Pyro's."""

from copy import copy
from dataclasses import replace
from functools import cache
from typing import Any, ClassVar

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl

from ppl_vae import distributions
from ppl_vae.backends.pyro.functions import F
from ppl_vae.distributions import base


class _Support(constraints.Constraint):
    """The support that a declared distribution tells by `inside`."""

    def __init__(self, declared: distributions.Distribution):
        self.declared, self.is_discrete, self.event_dim = declared, declared.discrete, declared.event_dim

    def check(self, value: Tensor) -> Tensor:
        return self.declared.inside(F, value)


class Adapted(TorchDistribution):
    """A declared distribution: its parameters are attributes."""

    declares: ClassVar[type[distributions.Distribution]]

    def __init__(self, *args: Any, validate_args: bool | None = None, **kwargs: Any):
        self._keep(self.declares(*args, **kwargs))
        super().__init__(*map(torch.Size, self.declared.shapes(F)), validate_args=validate_args)

    def _keep(self, declared: distributions.Distribution) -> None:
        values = {name: getattr(declared, name) for name in declared.array_fields()}
        numbers = {name: value for name, value in values.items() if not isinstance(value, Tensor)}
        if numbers:
            like = next((value for value in values.values() if isinstance(value, Tensor)), torch.zeros(()))
            declared = replace(declared, **{name: F.asarray(value, like) for name, value in numbers.items()})
        self.declared = declared
        self.__dict__.update(vars(declared))

    @property
    def support(self) -> constraints.Constraint:
        """The library's own constraint where the declaration names one."""
        named = self.declares.support
        return getattr(constraints, named) if named else _Support(self.declared)

    def expand(self, batch_shape, _instance=None):
        """Return the same distribution with a larger batch shape; its parameters are not checked again."""
        new = copy(self)
        new._keep(self.declared.expanded(F, tuple(batch_shape)))
        new._batch_shape = torch.Size(batch_shape)
        return new

    def log_prob(self, value: Tensor) -> Tensor:
        return self.declared.log_prob(F, value)

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        if not self.has_rsample:
            raise NotImplementedError(f"{type(self).__name__} has no reparametrised draw")
        return self.declared.draw(F, None, tuple(self._extended_shape(sample_shape)))

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            return self.declared.draw(F, None, tuple(self._extended_shape(sample_shape)))

    @property
    def mean(self) -> Tensor:
        """What a reconstruction shows."""
        return self.declared.mean(F)


@cache
def adapted(declared: type[distributions.Distribution]) -> type[Adapted]:
    """Return Pyro's class for a declared one."""
    own = {
        "__doc__": declared.__doc__,
        "declares": declared,
        "arg_constraints": {n: getattr(constraints, c) for n, c in declared.arg_constraints.items()},
        "has_rsample": declared.reparametrised,
        "deterministic": declared.deterministic,
    }
    return type(
        declared.__name__, (Adapted,), own | base.own_members(declared, F, lambda self: self.declared)
    )


@register_kl(Adapted, Adapted)
def _closed_form(q: Adapted, p: Adapted) -> Tensor:
    return base.kl(F, q.declared, p.declared)
