"""Objective, model and guide on Pyro, as one module whose output is a loss in nats per row."""

from collections.abc import Mapping
from typing import Any

import torch
from pyro.infer import ELBO
from torch import Tensor, nn

from ppl_vae.backends.common.checks import inside_support, refuse_outside
from ppl_vae.backends.common.objective import BoundObjective, rows_of, scaled_up
from ppl_vae.backends.pyro.arrays import noise_kept, on_host
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.objectives import Loss


class Objective(BoundObjective, nn.Module):
    """See `ppl_vae.backends.common.objective.BoundObjective`: `forward(batch, scalars)` is everything that a
    training step differentiates.
    """

    F, remedy = F, "a pyro.infer ELBO that has a differentiable_loss"

    def __init__(self, bound: nn.Module, objective: Any, num_data: int):
        super().__init__(bound, objective, num_data)
        self._scaled = True if bound.declared else None

    @staticmethod
    def usable(objective: Any) -> bool:
        return callable(_loss_function(objective))

    def forward(self, batch: dict[str, Tensor], scalars: Mapping[str, Tensor]) -> Loss:
        with self.bound.at(scalars):
            if self.own:
                return self._loss(Tracer(self.bound).pair(batch, self.objective.particles), scalars)
            loss = _loss_function(self.objective)(self.bound.model, self.bound.guide, **batch)
            loss = loss / self._rows_counted(batch)
            return Loss(loss, {"elbo_nats": -loss.detach()})

    def _rows_counted(self, batch: dict[str, Tensor]) -> int:
        """Return the rows that a stock loss sums over: the batch's where a plain program does not scale."""
        if self._scaled is None:
            with torch.no_grad(), noise_kept(self.bound.device):
                self._scaled = scaled_up(Tracer(self.bound).pair(batch).model)
        return self.num_data if self._scaled else rows_of(batch)

    def check(self, batch: dict[str, Tensor], scalars: Mapping[str, Tensor]) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate and data that the likelihood
        cannot have made.
        """
        if not self.own:
            return
        with self.bound.at(scalars):
            pair = Tracer(self.bound).pair(batch)
            self._refuse(pair)
            refuse_outside(pair.model, on_host(inside_support(F, pair.model)))


def _loss_function(objective: Any) -> Any:
    return getattr(objective, "differentiable_loss", None) if isinstance(objective, ELBO) else objective
