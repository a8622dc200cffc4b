"""Runs of a bound program's guide and model on NumPyro, as sites."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import jax
import numpyro
from jax import Array, lax, random, tree
from numpyro import handlers

from ppl_vae.backends.common import tracing
from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.common.predictive import centre
from ppl_vae.backends.common.site import Trace
from ppl_vae.backends.common.summing import values_left_of
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.sites import Recorded, mutable, trace_of
from ppl_vae.errors import ProgramError


def _centre_of_site(site: Mapping[str, Any]) -> Array | None:
    if site["type"] != "sample" or site["is_observed"] or site["value"] is not None:
        return None
    try:
        return centre(site["fn"])
    except ProgramError:  # a latent without a mean is drawn
        return None


def _enumerated(place: int) -> AbstractContextManager:
    """See `ppl_vae.backends.common.summing.values_left_of`: for sites that nothing else gives a value."""
    values = values_left_of(place)

    def of_site(site: Mapping[str, Any]) -> Array | None:
        if site["type"] != "sample" or site["is_observed"] or site["value"] is not None:
            return None
        return values(site["name"], site["fn"], site["infer"])

    return handlers.substitute(substitute_fn=of_site)


class Tracer(tracing.Tracer):
    """See `ppl_vae.backends.common.tracing.Tracer`: a pure function of the arrays that it is made with. The
    networks' state after a run of the guide or the model alone is that of later runs.

    Parameters
    ----------
    bound : Bound or PlainBound
    key : Array
        Decides every draw; those of a pair are the draws of NumPyro's own ELBOs.
    params, state : dict or None
        Values by site name; None: those that `bound` holds.
    """

    F = F
    _redrawn, _held = map(staticmethod, (handlers.uncondition, handlers.condition))
    _sites, _enumerated = map(staticmethod, (trace_of, _enumerated))

    def __init__(self, bound: Any, key: Array, params: Any = None, state: Any = None):
        super().__init__(bound)
        self.key = key
        self.params = dict(bound.params if params is None else params)
        self.state = dict(bound.state if state is None else state)

    def _plate(self, name: str, size: int, dim: int) -> AbstractContextManager:
        return numpyro.plate(name, size, dim=dim)

    def _centred(self) -> AbstractContextManager:
        return handlers.substitute(substitute_fn=_centre_of_site)

    def _both(self, batch: Any, values: Mapping[str, Array], place: int) -> tuple[Trace, Trace, Any]:
        model_key, guide_key = random.split(self.key)
        values = self.params | self.state | dict(values)
        seeded = handlers.seed(self.bound.guide, guide_key)
        guide = Recorded(handlers.substitute(seeded, data=values)).get_trace(**batch)
        values |= mutable(guide)
        replayed = handlers.replay(handlers.seed(self.bound.model, model_key), trace=guide)
        with _enumerated(place):
            model = Recorded(handlers.substitute(replayed, data=values)).get_trace(**batch)
        return trace_of(guide), trace_of(model), mutable(guide) | mutable(model)

    def _numbered(self, number: int) -> "Tracer":
        return Tracer(self.bound, random.fold_in(self.key, number), self.params, self.state)

    def _recorded(self, role: str, values: Mapping[str, Array], calls: Calls, state: Any) -> Any:
        self.key, key = random.split(self.key)
        params = tree.map(lax.stop_gradient, self.params) if calls.stopped else self.params
        values = params | self.state | dict(state or {}) | dict(values)
        return Recorded(handlers.substitute(handlers.seed(getattr(self.bound, role), key), data=values))

    def _finished(self, trace: Any, calls: Calls) -> Trace:
        if not calls.frozen:
            self.state |= mutable(trace)
        return trace_of(trace)

    def gradient(self, function: Callable[..., Any], arrays: Mapping[str, Array], aux: bool = False) -> Any:
        return jax.grad(function, has_aux=aux)(dict(arrays))
