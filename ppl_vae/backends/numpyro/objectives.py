"""The objectives of `ppl_vae.objectives` for NumPyro, as a pure function whose value is a loss."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro
from jax import Array, lax, random
from jax.scipy.special import logsumexp
from numpyro import handlers
from numpyro.infer import ELBO as NumPyroELBO

from ppl_vae import objectives
from ppl_vae.backends.numpyro.plain import PlainBound
from ppl_vae.backends.numpyro.terms import (
    ELBOTerms,
    check_plates,
    check_sites,
    elbo_terms,
    inside_support,
    log_weights,
    refuse_outside,
    subsampled,
    traces,
)
from ppl_vae.errors import UsageError


class Loss(NamedTuple):
    """A loss to minimise, in nats a datum, numbers to log, and the mutable state after the step."""

    value: Array
    metrics: dict[str, Array]
    state: dict[str, Any]


class Objective:
    """Objective, model and guide in one function: everything that a training step differentiates.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : ppl_vae.ELBO, ppl_vae.IWAE, numpyro.infer.ELBO or callable
        A callable gets (model, guide, batch), functions that hold their parameters and this step's noise, and
        returns a loss, summed over the data set.
    num_data : int
        Rows of the whole data set.
    """

    def __init__(self, bound: Any, objective: Any, num_data: int):
        self.bound, self.objective, self.num_data = bound, objective, num_data
        known = (objectives.ELBO, objectives.IWAE, NumPyroELBO)
        if not isinstance(objective, known) and not callable(objective):
            raise UsageError(
                f"{objective!r} is no objective: use ELBO(), IWAE(k), a numpyro.infer ELBO or a callable"
            )

    def __call__(
        self, params: Any, state: Any, key: Array, batch: Mapping[str, Array], weight: Any = 1.0
    ) -> Loss:
        """Return the loss of a batch; `params` as an optimizer sees them (unconstrained)."""
        params = self.bound.constrained(params)
        if isinstance(self.objective, (objectives.ELBO, objectives.IWAE)):
            # Checks of values cannot raise in a compiled function: they would only turn densities into -inf.
            with numpyro.validation_enabled(False):
                if isinstance(self.objective, objectives.ELBO):
                    return self._elbo(params, state, key, batch, weight)
                return self._iwae(params, state, key, batch)
        if isinstance(self.objective, NumPyroELBO):
            return self._stock(params, state, key, batch)
        return self._callable(params, state, key, batch)

    def check(self, batch: Mapping[str, Array]) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate, and impossible data."""
        own = isinstance(self.objective, (objectives.ELBO, objectives.IWAE))
        if not own and not isinstance(self.objective, NumPyroELBO):
            return
        traced: dict[str, Any] = {}

        def run(batch: Mapping[str, Array]) -> dict[str, Array]:
            guide, model, _ = traces(self.bound, batch, random.key(0))
            if own:
                check_sites(guide, model)
                check_plates((guide, model), rows_of(batch))
            if isinstance(self.objective, objectives.IWAE):
                log_weights(guide, model)
            traced.update(model)
            return inside_support(model)

        with numpyro.validation_enabled(False):
            refuse_outside(traced, jax.device_get(jax.jit(run)(dict(batch))))

    def _elbo(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array], weight: Any) -> Loss:
        guide, model, state = traces(self.bound, batch, key, self.objective.particles, params, state)
        terms = elbo_terms(guide, model, self.objective.analytic_kl)
        rate = _total(terms.kl) + _total(terms.kl_global) / self.num_data
        distortion = -terms.log_likelihood.mean()
        loss = distortion + weight * rate + _total(terms.auxiliary)
        return Loss(loss, _metrics(terms, distortion, rate), state)

    def _iwae(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        guide, model, state = traces(self.bound, batch, key, self.objective.k, params, state)
        weights = log_weights(guide, model)
        bound = weights if self.objective.k == 1 else logsumexp(weights, 0) - math.log(self.objective.k)
        terms = elbo_terms(guide, model, analytic_kl=False)
        metrics = _metrics(terms, -terms.log_likelihood.mean(), _total(terms.kl)) | {"iw_nats": bound.mean()}
        return Loss(-bound.mean() + _total(terms.auxiliary), metrics, state)

    def _stock(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        arguments = (key, dict(params) | dict(state), self.bound.model, self.bound.guide)
        if state:
            found = self.objective.loss_with_mutable_state(*arguments, **batch)
            loss, state = found["loss"], found["mutable_state"] or state
        else:
            loss = self.objective.loss(*arguments, **batch)
        loss = sum(jax.tree.leaves(loss)) / self._rows_counted(key, params, state, batch)
        return Loss(loss, {"elbo_nats": -loss}, state)

    def _callable(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        values = dict(params) | dict(state)
        model, guide = (
            handlers.substitute(handlers.seed(function, part), data=values)
            for function, part in zip((self.bound.model, self.bound.guide), random.split(key), strict=True)
        )
        loss = self.objective(model, guide, **batch) / self._rows_counted(key, params, state, batch)
        return Loss(loss, {"elbo_nats": -loss}, state)

    def _rows_counted(self, key: Array, params: Any, state: Any, batch: Mapping[str, Array]) -> int:
        """Return the rows that a stock loss sums over: the batch, where a plain plate is not scaled."""
        if not isinstance(self.bound, PlainBound):
            return self.num_data
        values = dict(params) | dict(state)
        guide, model = (handlers.seed(part, key) for part in (self.bound.guide, self.bound.model))
        guide = handlers.trace(handlers.substitute(guide, data=values)).get_trace(**batch)
        model = handlers.replay(handlers.substitute(model, data=values), trace=guide)
        trace = handlers.trace(model).get_trace(**batch)
        factors = subsampled(trace)
        scaled = any(factor > 1 for name, factor in factors.items() if trace[name]["is_observed"])
        return self.num_data if scaled else rows_of(batch)


def rows_of(batch: Mapping[str, Any]) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(batch.values())))


def _total(terms: dict[str, Array]) -> Array | float:
    return sum((term.mean() for term in terms.values()), start=0.0)


def _metrics(terms: ELBOTerms, distortion: Array, rate: Array | float) -> dict[str, Array]:
    metrics = {
        "elbo_nats": -(distortion + rate),
        "distortion_nats": distortion,
        "rate_nats": jnp.asarray(rate),
    }
    metrics |= {f"rate_nats/{name}": kl.mean() for name, kl in terms.kl.items()} if len(terms.kl) > 1 else {}
    metrics |= {f"penalty/{name}": value.mean() for name, value in terms.auxiliary.items()}
    return lax.stop_gradient(metrics | terms.metrics)
