"""Objective, model and guide on Pyro, as one module whose output is a loss in nats per row."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyro
import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from ppl_vae.backends.common.checks import inside_support, refuse_outside
from ppl_vae.backends.common.constraints import Outside, outside, refuse_outside_constraints
from ppl_vae.backends.common.objective import BoundObjective, rows_counted, rows_of, scaled_up
from ppl_vae.backends.common.site import Trace
from ppl_vae.backends.pyro.arrays import noise_kept, on_host
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.errors import ProgramError
from ppl_vae.objectives import Loss


class Objective(BoundObjective, nn.Module):
    """See `ppl_vae.backends.common.objective.BoundObjective`: `forward(batch, scalars)` is everything that a
    training step differentiates.
    """

    F, remedy = F, "a pyro.infer ELBO"

    def __init__(self, bound: nn.Module, objective: Any, num_data: int):
        super().__init__(bound, objective, num_data)
        self._scaled, self._ratio = True if bound.declared else None, 1.0

    @staticmethod
    def usable(objective: Any) -> bool:
        return callable(_loss_function(objective))

    def forward(self, batch: dict[str, Tensor], scalars: Mapping[str, Tensor]) -> Loss:
        with self.bound.at(scalars):
            if self.own:
                return self._loss(Tracer(self.bound).pair(batch, self.objective.particles), scalars)
            with self._calling():
                loss = _loss_function(self.objective)(self.bound.model, self.bound.guide, **batch)
            loss = loss / self._rows_counted(batch)
            return Loss(loss, {"elbo_nats": -loss.detach()})

    def _rows_counted(self, batch: dict[str, Tensor]) -> int:
        """Return the rows that a stock loss sums over: the batch's where a plain program does not scale."""
        if self._scaled is None:
            with torch.no_grad(), noise_kept(self.bound.device):
                model = self._alone(batch)[1]
            self._scaled = scaled_up(model)
            self._ratio = rows_counted(model, batch) / rows_of(batch)
        return round(self._ratio * (self.num_data if self._scaled else rows_of(batch)))

    def _alone(self, batch: dict[str, Tensor]) -> tuple[Trace, Trace]:
        """Return the sites of guide and model, none of them summed out."""
        tracer = Tracer(self.bound)
        guide = tracer.guide(batch)
        return guide, tracer.model(batch, values=guide.drawn)

    def check(
        self, batch: dict[str, Tensor], scalars: Mapping[str, Tensor], every: Callable[[], None]
    ) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate and data that the likelihood
        cannot have made: `every` refuses such rows of all data, before the batch is looked at.
        """
        if not self.own:
            with self.bound.at(scalars):
                refuse_outside_constraints(self.outside(batch))
            return
        with self.bound.at(scalars):
            pair = Tracer(self.bound).pair(batch)
            self._refuse(pair, batch)
            self._try_particles(batch)
            every()
            refuse_outside(pair.model, on_host(inside_support(F, pair.model)))

    def outside(self, batch: dict[str, Tensor]) -> Outside:
        with torch.no_grad(), noise_kept(self.bound.device), pyro.validation_enabled(False):
            torch.manual_seed(0)
            try:
                guide, model = self._alone(batch)
            except Exception:
                if self.own:
                    raise
                return {}  # some objectives alone can run their functions
            return on_host(outside(F, guide=guide, model=model))


def _loss_function(objective: Any) -> Any:
    """Return the function of (model, guide, **batch) that gives an objective's loss; None where it has none.

    Pyro's Jit variants compile the estimator of the class that they derive from, for one size of the batch:
    here a step has its own compiler, and that class is asked.
    """
    if not isinstance(objective, ELBO):
        return objective
    kind = _estimator(objective)
    if not takes_gradients(objective):
        return partial(kind.differentiable_loss, objective)
    return partial(_by_its_gradients, partial(kind.loss_and_grads, objective))


def _estimator(objective: ELBO) -> type:
    kind = type(objective)
    return kind.__base__ if kind.__name__.startswith("Jit") else kind


def takes_gradients(objective: Any) -> bool:
    """Tell whether an objective has no loss to differentiate, but computes gradients itself."""
    return isinstance(objective, ELBO) and not hasattr(_estimator(objective), "differentiable_loss")


def _by_its_gradients(loss_and_grads: Any, model: Any, guide: Any, **batch: Tensor) -> Tensor:
    """Return a loss whose gradients are those that an ELBO without a differentiable loss computes itself."""
    if torch.compiler.is_exporting():
        raise ProgramError("the objective computes its gradients itself")
    parameters = model.__self__.trainable()
    before = [parameter.grad for parameter in parameters]
    try:
        for parameter in parameters:
            parameter.grad = None
        value = loss_and_grads(model, guide, **batch)
        gradients = [(one, one.grad) for one in parameters if one.grad is not None]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
    loss = torch.as_tensor(value[0] if isinstance(value, tuple) else value, device=model.__self__.device)
    return loss + sum(((one - one.detach()) * gradient).sum() for one, gradient in gradients)
