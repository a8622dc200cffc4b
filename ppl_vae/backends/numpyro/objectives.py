"""Objective, model and guide on NumPyro, as a pure function whose value is a loss in nats per row."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpyro
from jax import Array, lax, random
from numpyro import handlers
from numpyro.infer import ELBO as NumPyroELBO

from ppl_vae import objectives
from ppl_vae.backends.common.checks import check_plates, check_sites, inside_support, refuse_outside
from ppl_vae.backends.common.objective import loss_of, rows_of
from ppl_vae.backends.common.terms import Terms
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.plain import PlainBound
from ppl_vae.backends.numpyro.tracing import Tracer
from ppl_vae.errors import UsageError


class Loss(NamedTuple):
    """See `ppl_vae.objectives.Loss`; and the networks' mutable state after the run."""

    value: Array
    metrics: dict[str, Array]
    others: dict[str, Array]
    state: dict[str, Any]


class Objective:
    """Objective, model and guide in one function: everything that a training step differentiates.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : ppl_vae.Objective, numpyro.infer.ELBO or callable
        A callable gets (model, guide, batch), functions that hold their parameters and this step's noise, and
        returns a loss, summed over the data set.
    num_data : int
        Rows of the whole data set.
    """

    def __init__(self, bound: Any, objective: Any, num_data: int):
        self.bound, self.objective, self.num_data = bound, objective, num_data
        self.own = isinstance(objective, objectives.Objective)
        if not (self.own or isinstance(objective, NumPyroELBO) or callable(objective)):
            raise UsageError(
                f"{objective!r} is no objective: use ELBO(), IWAE(k) or another of ppl_vae, a numpyro.infer "
                "ELBO or a callable"
            )

    def __call__(
        self, params: Any, state: Any, key: Array, batch: Mapping[str, Array], scalars: Mapping[str, Any]
    ) -> Loss:
        """Return the loss of a batch; `params` as an optimizer sees them (unconstrained)."""
        params = self.bound.constrained(params)
        with self.bound.at(scalars):
            if self.own:
                # Checks of values cannot raise in a compiled function: densities would only turn to -inf.
                with numpyro.validation_enabled(False):
                    pair = Tracer(self.bound, key, params, state).pair(batch, self.objective.particles)
                    found = loss_of(F, self.objective, pair, scalars, self.num_data)
                    return Loss(*found, pair.state)
            if isinstance(self.objective, NumPyroELBO):
                return self._stock(params, state, key, batch)
            return self._callable(params, state, key, batch)

    def check(self, batch: Mapping[str, Array], scalars: Mapping[str, Any]) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate, and impossible data."""
        if not self.own and not isinstance(self.objective, NumPyroELBO):
            return
        traced: dict[str, Any] = {}

        def run(batch: Mapping[str, Array]) -> Any:
            pair = Tracer(self.bound, random.key(0)).pair(batch)
            traced["model"] = pair.model
            if self.own:
                check_sites(pair, "numpyro")
                check_plates(pair)
                self.objective.check(Terms(F, pair, self.num_data, self.objective.analytic_kl))
            return inside_support(F, pair.model)

        with numpyro.validation_enabled(False), self.bound.at(scalars):
            inside = jax.device_get(jax.jit(run)(dict(batch)))
        refuse_outside(traced["model"], inside)

    def _stock(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        arguments = (key, dict(params) | dict(state), self.bound.model, self.bound.guide)
        if state:
            found = self.objective.loss_with_mutable_state(*arguments, **batch)
            loss, state = found["loss"], found["mutable_state"] or state
        else:
            loss = self.objective.loss(*arguments, **batch)
        return self._per_row(sum(jax.tree.leaves(loss)), params, state, key, batch)

    def _callable(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        values = dict(params) | dict(state)
        model, guide = (
            handlers.substitute(handlers.seed(function, part), data=values)
            for function, part in zip((self.bound.model, self.bound.guide), random.split(key), strict=True)
        )
        return self._per_row(self.objective(model, guide, **batch), params, state, key, batch)

    def _per_row(self, loss: Array, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        loss = loss / self._rows_counted(params, state, key, batch)
        return Loss(loss, {"elbo_nats": -lax.stop_gradient(loss)}, {}, state)

    def _rows_counted(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> int:
        """Return the rows that a stock loss sums over: the batch, where a plain plate is not scaled."""
        if not isinstance(self.bound, PlainBound):
            return self.num_data
        observed = Tracer(self.bound, key, params, state).pair(batch).model.observed
        scaled = any(site.subsampling > 1 for site in observed.values())
        return self.num_data if scaled else rows_of(batch)
