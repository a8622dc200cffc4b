"""Runs of a bound program's guide and model on NumPyro, as sites."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import jax
import numpyro
from jax import Array, lax, random, tree
from numpyro import handlers

from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.common.predictive import centre
from ppl_vae.backends.common.site import PARTICLES, Pair, Trace
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.sites import inner, mutable, trace_of
from ppl_vae.errors import ProgramError


def _centre_of_site(site: Mapping[str, Any]) -> Array | None:
    if site["type"] != "sample" or site["is_observed"] or site["value"] is not None:
        return None
    try:
        return centre(site["fn"], inner(site["fn"]))
    except ProgramError:  # a latent without a mean is drawn
        return None


class Tracer:
    """See `ppl_vae.backends.common.tracing.Tracer`: a pure function of the arrays that it is made with.

    Parameters
    ----------
    bound : Bound or PlainBound
    key : Array
        Decides every draw.
    params, state : dict or None
        Values by site name; None: those kept in `bound`.
    """

    F = F

    def __init__(self, bound: Any, key: Array, params: Any = None, state: Any = None):
        self.bound, self.key = bound, key
        self.params = dict(bound.params if params is None else params)
        self.state = dict(bound.state if state is None else state)

    def pair(
        self,
        batch: Mapping[str, Array],
        particles: int = 1,
        depth: int = 1,
        values: Mapping[str, Array] | None = None,
    ) -> Pair:
        """Run guide and model once, with the draws of NumPyro's own ELBOs for this key; every network is
        computed once for the same arguments.
        """
        model_key, guide_key = random.split(self.key)
        values = self.params | self.state | dict(values or {})
        with self.bound.calling(Calls(remembered={})), _plate(particles, depth):
            seeded = handlers.seed(self.bound.guide, guide_key)
            guide = handlers.trace(handlers.substitute(seeded, data=values)).get_trace(**batch)
            values |= mutable(guide)
            replayed = handlers.replay(handlers.seed(self.bound.model, model_key), trace=guide)
            model = handlers.trace(handlers.substitute(replayed, data=values)).get_trace(**batch)
        sites, state = trace_of(guide), mutable(guide) | mutable(model)

        def again(role: str, stop: str) -> Trace:
            drawn = {name: site.value for name, site in sites.latent.items()}
            drawn = lax.stop_gradient(drawn) if stop == "draws" else drawn
            calls = Calls(frozen=True, stopped=stop == "parameters")
            return self._run(role, batch, drawn, calls, particles, depth, state)

        return Pair(sites, trace_of(model), again, state)

    def guide(
        self,
        batch: Mapping[str, Array],
        *,
        values: Mapping[str, Array] | None = None,
        centres: bool = False,
        particles: int = 1,
        depth: int = 1,
    ) -> Trace:
        """Run the guide; `values` replace draws by site. Its networks' state is that of later runs."""
        with _centred(centres):
            return self._run("guide", batch, values or {}, Calls(), particles, depth)

    def model(
        self,
        batch: Mapping[str, Array],
        *,
        values: Mapping[str, Array] | None = None,
        n: int | None = None,
        centres: bool = False,
        redraw: bool = False,
        particles: int = 1,
        depth: int = 1,
    ) -> Trace:
        """Run the model; `values` replace draws by site."""
        batch = dict(batch) if n is None else {**batch, "n": n}
        with _centred(centres), handlers.uncondition() if redraw else nullcontext():
            return self._run("model", batch, values or {}, Calls(), particles, depth)

    def _run(
        self,
        role: str,
        batch: Mapping[str, Any],
        drawn: Mapping[str, Array],
        calls: Calls,
        particles: int,
        depth: int,
        state: Any = None,
    ) -> Trace:
        self.key, key = random.split(self.key)
        params = tree.map(lax.stop_gradient, self.params) if calls.stopped else self.params
        values = params | self.state | dict(state or {}) | dict(drawn)
        seeded = handlers.seed(getattr(self.bound, role), key)
        self._running = handlers.trace(handlers.substitute(seeded, data=values))
        with self.bound.calling(calls), _plate(particles, depth):
            found = self._running.get_trace(**batch)
        if not calls.frozen:
            self.state |= mutable(found)
        return trace_of(found)

    def unfinished(self) -> Trace:
        """Return the sites of the last run as far as it got."""
        return trace_of(self._running.trace)

    def gradient(self, function: Callable[..., Any], arrays: Mapping[str, Array], aux: bool = False) -> Any:
        """Return the gradient of a number by each of its arrays; with `aux` also what comes with it."""
        return jax.grad(function, has_aux=aux)(dict(arrays))


def _centred(centres: bool) -> AbstractContextManager:
    return handlers.substitute(substitute_fn=_centre_of_site) if centres else nullcontext()


def _plate(particles: int, depth: int) -> AbstractContextManager:
    return numpyro.plate(PARTICLES, particles, dim=-1 - depth) if particles > 1 else nullcontext()
