"""Objective, model and guide on Pyro, as one module whose output is a loss in nats per row."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from ppl_vae import objectives
from ppl_vae.backends.common.checks import check_plates, check_sites, inside_support, refuse_outside
from ppl_vae.backends.common.objective import loss_of, rows_of
from ppl_vae.backends.common.terms import Terms
from ppl_vae.backends.pyro.arrays import on_host
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.errors import UsageError
from ppl_vae.objectives import Loss


class Objective(nn.Module):
    """Objective, model and guide in one module: `forward(batch, scalars)` is everything that a training step
    differentiates.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : ppl_vae.Objective, pyro.infer.ELBO or callable
        A callable gets (model, guide, batch) and returns a loss, summed over the data set.
    num_data : int
        Rows of the whole data set.
    """

    def __init__(self, bound: nn.Module, objective: Any, num_data: int):
        super().__init__()
        self.bound, self.objective, self.num_data = bound, objective, num_data
        self.own = isinstance(objective, objectives.Objective)
        self._scaled = None if isinstance(bound, PlainBound) else True
        if not self.own and not callable(_loss_function(objective)):
            raise UsageError(
                f"{objective!r} is no objective: use ELBO(), IWAE(k) or another of ppl_vae, a callable, "
                "or a pyro.infer ELBO that has a differentiable_loss"
            )

    def forward(self, batch: dict[str, Tensor], scalars: Mapping[str, Tensor]) -> Loss:
        with self.bound.at(scalars):
            if self.own:
                pair = Tracer(self.bound).pair(batch, self.objective.particles)
                return loss_of(F, self.objective, pair, scalars, self.num_data)
            loss = _loss_function(self.objective)(self.bound.model, self.bound.guide, **batch)
            loss = loss / self._rows_counted(batch)
            return Loss(loss, {"elbo_nats": -loss.detach()})

    def _rows_counted(self, batch: dict[str, Tensor]) -> int:
        """Return the rows that a stock loss sums over: the batch, where a plain plate is not scaled."""
        if self._scaled is None:
            devices = [self.bound.device] if self.bound.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                observed = Tracer(self.bound).pair(batch).model.observed
            self._scaled = any(site.subsampling > 1 for site in observed.values())
        return self.num_data if self._scaled else rows_of(batch)

    def check(self, batch: dict[str, Tensor], scalars: Mapping[str, Tensor]) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate and data that the likelihood
        cannot have made.
        """
        if not self.own:
            return
        with self.bound.at(scalars):
            pair = Tracer(self.bound).pair(batch)
            check_sites(pair, "pyro")
            check_plates(pair)
            refuse_outside(pair.model, on_host(inside_support(F, pair.model)))
            self.objective.check(Terms(F, pair, self.num_data, self.objective.analytic_kl))


def _loss_function(objective: Any) -> Any:
    if isinstance(objective, PyroELBO):
        return getattr(objective, "differentiable_loss", None)
    return objective
