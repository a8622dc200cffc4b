"""From a distribution that is declared once to one of NumPyro's."""

from functools import cache
from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.kl import kl_divergence

from ppl_vae import distributions
from ppl_vae.backends.common.distributions import Adapted, Support, made
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.distributions import base


class JaxSupport(Support, constraints.Constraint):
    """See `Support`."""

    def __call__(self, value: Array) -> Array:
        return self.declared.inside(F, value)


class NumPyroAdapted(Adapted, Distribution):
    """See `Adapted`."""

    F, constraints, _support = F, constraints, JaxSupport

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
        """The declared distribution, of the arrays that it has now: JAX takes it apart and rebuilds it."""
        names = (*self.declares.array_fields(), *self.declares.static_fields())
        return self.declares(**{name: getattr(self, name) for name in names})

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        drawn = self.declared.draw(F, key, self.shape(tuple(sample_shape)))
        return drawn if self.has_rsample else lax.stop_gradient(drawn)


@cache
def adapted(declared: type[distributions.Distribution]) -> type[NumPyroAdapted]:
    """Return NumPyro's class for a declared one."""
    data, aux = declared.array_fields(), declared.static_fields()
    return made(NumPyroAdapted, declared, pytree_data_fields=data, pytree_aux_fields=aux)


@kl_divergence.register(NumPyroAdapted, NumPyroAdapted)
def _closed_form(q: NumPyroAdapted, p: NumPyroAdapted) -> Array:
    return base.kl(F, q.declared, p.declared)
