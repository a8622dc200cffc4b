"""NumPyro's distributions and the project's own, as `ppl.dist`."""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpyro.distributions
from jax import Array, lax
from numpyro.distributions import Distribution, LogNormal, constraints
from numpyro.distributions.kl import kl_divergence

from ppl_vae import distributions
from ppl_vae.backends.common.distributions import Adapted, Support, completed
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.distributions import base


class JaxSupport(Support, constraints.Constraint):
    """See `Support`."""

    def __call__(self, value: Array) -> Array:
        return self.declared.inside(F, value)

    def tree_flatten(self) -> tuple[tuple[Any, ...], Any]:
        names, declared = self.declared.array_fields(), self.declared
        static = tuple((name, getattr(declared, name)) for name in declared.static_fields())
        return tuple(getattr(declared, name) for name in names), (type(declared), tuple(names), static)

    @classmethod
    def tree_unflatten(cls, aux_data: Any, params: Iterable[Any]) -> "JaxSupport":
        kind, names, static = aux_data
        return cls(kind(**dict(zip(names, params, strict=True)), **dict(static)))


class NumPyroAdapted(Adapted, Distribution):
    """See `Adapted`."""

    F, constraints, _support, _shape = F, constraints, JaxSupport, tuple

    @classmethod
    def _members(cls, declared: type[distributions.Distribution]) -> dict[str, Any]:
        return {
            "pytree_data_fields": declared.array_fields(),
            "pytree_aux_fields": declared.static_fields(),
        }

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


@kl_divergence.register(NumPyroAdapted, NumPyroAdapted)
def _closed_form(q: NumPyroAdapted, p: NumPyroAdapted) -> Array:
    return base.kl(F, q.declared, p.declared)


@kl_divergence.register(LogNormal, LogNormal)
def _kl_lognormal_lognormal(q: LogNormal, p: LogNormal) -> Array:
    # The divergence does not change under the common exponential; torch has this one, NumPyro lacks it.
    return kl_divergence(q.base_dist, p.base_dist)


dist = completed(numpyro.distributions, NumPyroAdapted)
