"""Objective, model and guide on NumPyro, as a pure function whose value is a loss in nats per row."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpyro
from jax import Array, lax, random
from numpyro import handlers
from numpyro.infer import ELBO as NumPyroELBO

from ppl_vae.backends.common.checks import inside_support, refuse_outside
from ppl_vae.backends.common.constraints import Outside, outside, refuse_outside_constraints
from ppl_vae.backends.common.objective import BoundObjective, rows_counted, rows_of, scaled_up
from ppl_vae.backends.common.site import Trace
from ppl_vae.backends.common.supports import fields_of, key_of, observed
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.tracing import Tracer


class Loss(NamedTuple):
    """See `ppl_vae.objectives.Loss`; and the networks' mutable state after the run."""

    value: Array
    metrics: dict[str, Array]
    others: dict[str, Array]
    state: dict[str, Any]


class Objective(BoundObjective):
    """See `ppl_vae.backends.common.objective.BoundObjective`: a pure function. A callable gets model and
    guide as functions that hold their parameters and this step's noise.
    """

    F, remedy = F, "a numpyro.infer ELBO"

    def __init__(self, bound: Any, objective: Any, num_data: int):
        super().__init__(bound, objective, num_data)
        self._traced: dict[str, Any] = {}  # by the look at a batch, compiled once
        self._look = jax.jit(self._seen)

    @staticmethod
    def usable(objective: Any) -> bool:
        return isinstance(objective, NumPyroELBO) or callable(objective)

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
                    return Loss(*self._loss(pair, scalars), pair.state)
            run = self._stock if isinstance(self.objective, NumPyroELBO) else self._callable
            with self._calling():
                return run(params, state, key, batch)

    def check(
        self, batch: Mapping[str, Array], scalars: Mapping[str, Any], every: Callable[[], None]
    ) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate and data that the likelihood
        cannot have made: `every` refuses such rows of all data, before the batch is looked at.
        """
        with self.bound.at(scalars):
            try:
                inside, values, parameters = self._looked(batch)
            except Exception:
                if self.own or isinstance(self.objective, NumPyroELBO):
                    raise
                return  # some callables alone can run their functions
        if self.own or isinstance(self.objective, NumPyroELBO):
            fields = fields_of(self._traced["sites"], values, jax.device_get(dict(batch)))
            if fields.certain:  # what is traced here need not be traced again
                self.bound.supports[key_of(batch)] = fields
            every()
            self._try_particles(batch)
            refuse_outside(self._traced["model"], inside)
        refuse_outside_constraints(parameters)

    def outside(self, batch: Mapping[str, Array]) -> Outside:
        return self._looked(batch)[-1] if self._traced else {}

    def _looked(self, batch: Mapping[str, Array]) -> Any:
        """Run once, compiled, and return on the host: which entries of the data lie inside their supports,
        their values, and which parameters lie outside their constraints.
        """
        bound, batch = self.bound, jax.device_put(dict(batch), self.bound.device)
        return jax.device_get(self._look(bound.params, bound.state, dict(bound.scalars), batch))

    def _seen(self, params: Any, state: Any, scalars: Mapping[str, Any], batch: Mapping[str, Array]) -> Any:
        with numpyro.validation_enabled(False), self.bound.at(scalars):
            tracer = Tracer(self.bound, random.key(0), params, state)
            if self.own:
                pair = tracer.pair(batch)
                self._refuse(pair, batch)
                guide, model = pair.guide, pair.model
            else:
                guide, model = self._alone(tracer, batch)
            sites, values = observed(model)
            self._traced |= {"model": model, "sites": sites}
            return inside_support(F, model), values, outside(F, guide=guide, model=model)

    def _stock(self, params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Loss:
        arguments = (key, dict(params) | dict(state), self.bound.model, self.bound.guide)
        if state:
            outcome = self.objective.loss_with_mutable_state(*arguments, **batch)
            loss, state = outcome["loss"], outcome["mutable_state"] or state
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
        """Return the rows that a stock loss sums over: the batch's where a plain program does not scale."""
        if self.bound.declared:
            return self.num_data
        model = self._alone(Tracer(self.bound, key, params, state), batch)[1]
        rows = self.num_data if scaled_up(model) else rows_of(batch)
        return round(rows * rows_counted(model, batch) / rows_of(batch))

    @staticmethod
    def _alone(tracer: Tracer, batch: Mapping[str, Array]) -> tuple[Trace, Trace]:
        """Return the sites of guide and model, none of them summed out."""
        guide = tracer.guide(batch)
        return guide, tracer.model(batch, values=guide.drawn)
