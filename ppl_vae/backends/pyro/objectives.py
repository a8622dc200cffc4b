"""The objectives of `ppl_vae.objectives` for Pyro, as one module whose output is a loss in nats a datum."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import torch
from pyro.infer import ELBO as PyroELBO
from torch import Tensor, nn

from ppl_vae import objectives
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.backends.pyro.terms import (
    ELBOTerms,
    check_plates,
    check_sites,
    check_support,
    elbo_terms,
    is_latent_or_observed,
    log_weights,
    subsampled,
    traces,
)
from ppl_vae.errors import UsageError


class Loss(NamedTuple):
    """A loss to minimise, in nats a datum, and numbers to log (detached)."""

    value: Tensor
    metrics: dict[str, Tensor]


class Objective(nn.Module):
    """Objective, model and guide in one module: `forward(batch, weight)` is everything that a training step
    differentiates.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : ppl_vae.ELBO, ppl_vae.IWAE, pyro.infer.ELBO or callable
        A callable gets (model, guide, batch) and returns a loss, summed over the data set.
    num_data : int
        Rows of the whole data set.
    """

    def __init__(self, bound: nn.Module, objective: Any, num_data: int):
        super().__init__()
        self.bound, self.objective, self.num_data = bound, objective, num_data
        self._scaled = None if isinstance(bound, PlainBound) else True
        if not isinstance(objective, (objectives.ELBO, objectives.IWAE)) and not callable(
            _loss_function(objective)
        ):
            raise UsageError(
                f"{objective!r} is no objective: use ELBO(), IWAE(k), a callable, "
                "or a pyro.infer ELBO that has a differentiable_loss"
            )

    def forward(self, batch: dict[str, Tensor], weight: Tensor) -> Loss:
        if isinstance(self.objective, objectives.ELBO):
            return self._elbo(batch, weight)
        if isinstance(self.objective, objectives.IWAE):
            return self._iwae(batch)
        loss = _loss_function(self.objective)(self.bound.model, self.bound.guide, **batch)
        loss = loss / self._rows_counted(batch)
        return Loss(loss, {"elbo_nats": -loss.detach()})

    def _rows_counted(self, batch: dict[str, Tensor]) -> int:
        """Return the rows that a stock loss sums over: the batch, where a plain plate is not scaled."""
        if self._scaled is None:
            devices = [self.bound.device] if self.bound.device.type == "cuda" else []
            with torch.no_grad(), torch.random.fork_rng(devices=devices):
                guide = pyro.poutine.trace(self.bound.guide).get_trace(**batch)
                model = pyro.poutine.replay(self.bound.model, trace=guide)
                sites = pyro.poutine.trace(model).get_trace(**batch).nodes.values()
            seen = [site for site in sites if is_latent_or_observed(site) and site["is_observed"]]
            self._scaled = any(subsampled(site) > 1 for site in seen)
        return self.num_data if self._scaled else rows_of(batch)

    def check(self, batch: dict[str, Tensor]) -> None:
        """Run once and refuse, by name, sites that the objective cannot estimate and data that the likelihood
        cannot have made.
        """
        if isinstance(self.objective, (objectives.ELBO, objectives.IWAE)):
            guide, model = traces(self.bound, batch)
            check_sites(guide, model)
            check_plates((guide, model), rows_of(batch))
            check_support(model)
            if isinstance(self.objective, objectives.IWAE):
                log_weights(guide, model)

    def _elbo(self, batch: dict[str, Tensor], weight: Tensor) -> Loss:
        guide, model = traces(self.bound, batch, self.objective.particles)
        terms = elbo_terms(guide, model, self.objective.analytic_kl)
        rate = _total(terms.kl) + _total(terms.kl_global) / self.num_data
        distortion = -terms.log_likelihood.mean()
        loss = distortion + weight * rate + _total(terms.auxiliary)
        return Loss(loss, _metrics(terms, distortion, rate))

    def _iwae(self, batch: dict[str, Tensor]) -> Loss:
        guide, model = traces(self.bound, batch, self.objective.k)
        weights = log_weights(guide, model)
        bound = weights if self.objective.k == 1 else weights.logsumexp(0) - math.log(self.objective.k)
        terms = elbo_terms(guide, model, analytic_kl=False)
        metrics = _metrics(terms, -terms.log_likelihood.mean(), _total(terms.kl)) | {
            "iw_nats": bound.mean().detach()
        }
        return Loss(-bound.mean() + _total(terms.auxiliary), metrics)


def rows_of(batch: Mapping[str, Any]) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(batch.values())))


def _loss_function(objective: Any) -> Any:
    if isinstance(objective, PyroELBO):
        return getattr(objective, "differentiable_loss", None)
    return objective


def _total(terms: dict[str, Tensor]) -> Tensor | float:
    return sum((term.mean() for term in terms.values()), start=0.0)


def _metrics(terms: ELBOTerms, distortion: Tensor, rate: Tensor | float) -> dict[str, Tensor]:
    # Detached, not computed under no_grad: that would be a region of its own in a captured graph.
    rate, distortion = torch.as_tensor(rate, device=distortion.device).detach(), distortion.detach()
    metrics = {"elbo_nats": -(distortion + rate), "distortion_nats": distortion, "rate_nats": rate}
    if len(terms.kl) > 1:
        metrics |= {f"rate_nats/{name}": kl.detach().mean() for name, kl in terms.kl.items()}
    metrics |= {f"penalty/{name}": value.detach().mean() for name, value in terms.auxiliary.items()}
    return metrics | {name: value.detach() for name, value in terms.metrics.items()}
