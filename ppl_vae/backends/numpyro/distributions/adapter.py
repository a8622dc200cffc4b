"""From a distribution that is declared once to one of NumPyro's."""

from copy import copy
from functools import cache
from typing import Any, ClassVar

import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.kl import kl_divergence

from ppl_vae import distributions
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.distributions import base


class _Support(constraints.Constraint):
    """The support that a declared distribution tells by `inside`."""

    def __init__(self, declared: distributions.Distribution):
        self.declared, self.is_discrete, self.event_dim = declared, declared.discrete, declared.event_dim

    def __call__(self, value: Array) -> Array:
        return self.declared.inside(F, value)


class Adapted(Distribution):
    """A declared distribution: its parameters are attributes."""

    declares: ClassVar[type[distributions.Distribution]]

    def __init__(self, *args: Any, validate_args: bool | None = None, **kwargs: Any):
        self._keep(self.declares(*args, **kwargs))
        super().__init__(*self.declared.shapes(F), validate_args=validate_args)

    def _keep(self, declared: distributions.Distribution) -> None:
        for name in declared.array_fields():
            setattr(self, name, jnp.asarray(getattr(declared, name)))
        for name in declared.static_fields():
            setattr(self, name, getattr(declared, name))

    @property
    def declared(self) -> distributions.Distribution:
        """The declared distribution."""
        names = (*self.declares.array_fields(), *self.declares.static_fields())
        return self.declares(**{name: getattr(self, name) for name in names})

    @property
    def support(self) -> constraints.Constraint:
        """The library's own constraint where the declaration names one."""
        named = self.declares.support
        return getattr(constraints, named) if named else _Support(self.declared)

    def expand(self, batch_shape: tuple[int, ...]) -> "Adapted":
        """Return the same distribution with a larger batch shape; its parameters are not checked again."""
        new = copy(self)
        new._keep(self.declared.expanded(F, tuple(batch_shape)))
        new._batch_shape = tuple(batch_shape)
        return new

    def log_prob(self, value: Array, intermediates: Any = None) -> Array:
        return self.declared.log_prob(F, value)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        drawn = self.declared.draw(F, key, self.shape(tuple(sample_shape)))
        return drawn if self.has_rsample else lax.stop_gradient(drawn)

    @property
    def mean(self) -> Array:
        """What a reconstruction shows."""
        return self.declared.mean(F)


@cache
def adapted(declared: type[distributions.Distribution]) -> type[Adapted]:
    """Return NumPyro's class for a declared one."""
    own = {
        "__doc__": declared.__doc__,
        "declares": declared,
        "arg_constraints": {n: getattr(constraints, c) for n, c in declared.arg_constraints.items()},
        "pytree_data_fields": declared.array_fields(),
        "pytree_aux_fields": declared.static_fields(),
        "has_rsample": declared.reparametrised,
        "deterministic": declared.deterministic,
    }
    return type(
        declared.__name__, (Adapted,), own | base.own_members(declared, F, lambda self: self.declared)
    )


@kl_divergence.register(Adapted, Adapted)
def _closed_form(q: Adapted, p: Adapted) -> Array:
    return base.kl(F, q.declared, p.declared)
