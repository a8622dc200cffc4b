"""The loss of an objective, and the numbers that every objective logs."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from ppl_vae.backends.common.checks import NO_PLATES, check_plates, check_sites
from ppl_vae.backends.common.constraints import Outside
from ppl_vae.backends.common.particles import takes_particles
from ppl_vae.backends.common.site import ROWS_DIM, Pair, Trace
from ppl_vae.backends.common.terms import Terms
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.faults import told
from ppl_vae.functions import Functions
from ppl_vae.objectives import Group, Loss, Objective
from ppl_vae.scalars import Scalars

_COLUMNS = ("step", "epoch", "split", "seconds", "loss")  # of the history, beside scalars and the bound


class BoundObjective:
    """Objective, model and guide together: what a training step differentiates.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : ppl_vae.Objective, ELBO of the library, or callable
        A callable gets (model, guide, batch) and returns a loss, summed over the data set.
    num_data : int
        Rows of the whole data set.

    Attributes
    ----------
    own : bool
        The objective is one of ppl_vae.
    """

    F: Functions
    remedy: str  # the library's own objectives

    def __init__(self, bound: Any, objective: Any, num_data: int):
        super().__init__()
        self.bound, self.objective, self.num_data = bound, objective, num_data
        self._given, self.own = num_data, isinstance(objective, Objective)
        if not self.own and not self.usable(objective):
            raise UsageError(
                f"{objective!r} is no objective: use ELBO(), IWAE(k) or another of ppl_vae, a callable, or "
                f"{self.remedy}"
            )

    @staticmethod
    def usable(objective: Any) -> bool:
        """Tell whether an objective that is none of ppl_vae gives a loss."""
        raise NotImplementedError

    def _loss(self, pair: Pair, scalars: Mapping[str, Any]) -> Loss:
        """Return the loss of one run of guide and model; its metrics hold no gradient."""
        F, objective = self.F, self.objective
        terms = Terms(F, pair, self.num_data, objective.analytic_kl)
        with self._calling():
            outcome = objective.loss(F, terms, Scalars(scalars))
        value, metrics, others = outcome if isinstance(outcome, Loss) else Loss(outcome)
        who = f"{type(objective).__name__}.loss"
        if _shape(value) != ():
            raise ProgramError(f"{who} returns {_shape(value)}, not one number: take the mean over rows")
        others = dict(others or {})
        metrics = {name: F.asarray(one, value) for name, one in dict(metrics or {}).items()}
        bounds = bound_metrics(F, terms)
        _refuse_names(who, objective, metrics, others, {*_COLUMNS, *bounds, *scalars})
        for name, one in (others | metrics).items():
            if _shape(one) != ():
                raise ProgramError(f"{who} gives {name!r} as {_shape(one)}: take the mean over rows")
        metrics = bounds | metrics | {f"loss/{name}": one for name, one in others.items()}
        return Loss(value, {name: F.stop_gradient(one) for name, one in metrics.items()}, others)

    def _calling(self) -> AbstractContextManager:
        """Tell errors of the objective as such."""
        return told(f"the objective {getattr(self.objective, '__name__', type(self.objective).__name__)}")

    def outside(self, batch: Mapping[str, Any]) -> Outside:
        """Return which parameters of distributions lie outside their constraints for a batch, at the present
        weights, in evaluation mode; see `ppl_vae.backends.common.constraints.outside`.
        """
        raise NotImplementedError

    def _try_particles(self, batch: Mapping[str, Any]) -> None:
        """Learn whether two functions take a plate of particles, where the objective wants several."""
        if self.own and self.objective.particles > 1 and not self.bound.declared:
            with self.bound.passes(0) as passes:
                self.bound.loops = not takes_particles(passes, batch)

    def _refuse(self, pair: Pair, batch: Mapping[str, Any]) -> None:
        """Refuse, by name, sites that the objective cannot estimate."""
        if not self.bound.declared:
            self.num_data = round(self._given * rows_counted(pair.model, batch) / rows_of(batch))
        check_sites(pair, self.bound.backend)
        check_plates(pair.guide, pair.model, NO_PLATES, further=self.objective.particles == 1)
        terms = Terms(self.F, pair, self.num_data, self.objective.analytic_kl)
        with self._calling():
            self.objective.check(terms)


def scaled_up(model: Trace) -> bool:
    """Tell whether a model scales what it observes up to all rows of the data set, as stock losses are."""
    return any(site.subsampling > 1 for site in model.observed.values())


def rows_counted(model: Trace, batch: Mapping[str, Any]) -> int:
    """Return the entries of the plate over the rows: two functions may count another axis of a batch than
    the first.
    """
    seen = (site for site in model.observed.local.values() if not site.factor)
    sizes = [plate.size for site in seen for plate in site.plates if plate.dim == ROWS_DIM]
    return next((size for size in sizes if size > 0), rows_of(batch))


def _shape(value: Any) -> Any:
    return getattr(value, "shape", type(value).__name__)


def _refuse_names(
    who: str, objective: Objective, metrics: Iterable[str], others: Iterable[str], reserved: set[str]
) -> None:
    """Refuse metrics that would overwrite a column of the history, and losses that nothing minimises."""
    for name in sorted(reserved & set(metrics)):
        raise ProgramError(f"{who} gives a metric {name!r}, which the history holds already: rename it")
    groups = [group.name for group in objective.groups if not group.frozen]
    for name in sorted(set(others) - set(groups)):
        listed = ", ".join(groups) or "none"
        raise ProgramError(f"{who} gives a loss of the group {name!r}: its groups are {listed}")


def bound_metrics(F: Functions, terms: Terms) -> dict[str, Any]:
    """Return the unweighted bound and its parts in nats per row, [] each, with gradients."""
    rate = F.asarray(terms.rate, terms.distortion)
    metrics = {
        "elbo_nats": -(terms.distortion + rate),
        "distortion_nats": terms.distortion,
        "rate_nats": rate,
    }
    if len(terms.kl) > 1:
        metrics |= {f"rate_nats/{name}": kl.mean() for name, kl in terms.kl.items()}
    metrics |= {f"penalty/{name}": value.mean() for name, value in terms.auxiliary.items()}
    return metrics | terms.metrics


def rows_of(batch: Mapping[str, Any]) -> int:
    """Return the number of rows of a batch."""
    return len(next(iter(batch.values())))


def check_groups(groups: Sequence[Group], bound: Any) -> None:
    """Refuse, with a UsageError, parameter groups of two functions, of networks that the program does not
    have, or that two of them name.
    """
    if groups and not bound.declared:
        raise UsageError("parameter groups need a declared Program, whose networks have names")
    names = [group.name for group in groups]
    if "" in names or len(set(names)) < len(names):
        raise UsageError(f"parameter groups need names of their own, got {', '.join(map(repr, names))}")
    seen: set[str] = set()
    for group in groups:
        for name in group.networks:
            if name not in bound.parts:
                listed = ", ".join(bound.parts) or "none"
                raise UsageError(
                    f"group {group.name!r}: the program has no network {name!r}: it has {listed}"
                )
            if name in seen:
                raise UsageError(f"network {name!r} belongs to two parameter groups")
            seen.add(name)
