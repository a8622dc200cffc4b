"""Runs of a bound program's guide and model on Pyro, as sites."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.common.predictive import centre
from ppl_vae.backends.common.site import PARTICLES, Pair, Trace
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.sites import fixed, inner, trace_of
from ppl_vae.errors import ProgramError


class Centres(poutine.messenger.Messenger):
    """Every latent site takes the centre of its distribution instead of a draw, where it has one."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or poutine.util.site_is_subsample(msg) or msg["value"] is not None:
            return
        try:
            msg["value"] = centre(msg["fn"], inner(msg["fn"]))
        except ProgramError:  # a latent without a mean is drawn
            return
        msg["done"] = True


class Tracer:
    """See `ppl_vae.backends.common.tracing.Tracer`. Noise comes from torch's generator."""

    F = F

    def __init__(self, bound: Any):
        self.bound = bound

    def pair(
        self,
        batch: Mapping[str, Tensor],
        particles: int = 1,
        depth: int = 1,
        values: Mapping[str, Tensor] | None = None,
    ) -> Pair:
        """Run guide and model once; every network is computed once for the same arguments."""
        bound = self.bound
        with bound.calling(Calls(remembered={})), self._plate(particles, depth):
            function = poutine.replay(bound.guide, trace=fixed(values)) if values else bound.guide
            guide = poutine.trace(function).get_trace(**batch)
            model = poutine.trace(poutine.replay(bound.model, trace=guide)).get_trace(**batch)
        sites = trace_of(guide)

        def again(role: str, stop: str) -> Trace:
            drawn = {name: site.value for name, site in sites.latent.items()}
            if stop == "draws":
                drawn = {name: value.detach() for name, value in drawn.items()}
            calls = Calls(frozen=True, stopped=stop == "parameters")
            return self._run(role, batch, drawn, calls, particles, depth)

        return Pair(sites, trace_of(model), again)

    def guide(
        self,
        batch: Mapping[str, Tensor],
        *,
        values: Mapping[str, Tensor] | None = None,
        centres: bool = False,
        particles: int = 1,
        depth: int = 1,
    ) -> Trace:
        """Run the guide; `values` replace draws by site."""
        with Centres() if centres else nullcontext():
            return self._run("guide", batch, values or {}, Calls(), particles, depth)

    def model(
        self,
        batch: Mapping[str, Tensor],
        *,
        values: Mapping[str, Tensor] | None = None,
        n: int | None = None,
        centres: bool = False,
        redraw: bool = False,
        particles: int = 1,
        depth: int = 1,
    ) -> Trace:
        """Run the model; `values` replace draws by site."""
        batch = dict(batch) if n is None else {**batch, "n": n}
        with Centres() if centres else nullcontext(), poutine.uncondition() if redraw else nullcontext():
            return self._run("model", batch, values or {}, Calls(), particles, depth)

    def _run(
        self,
        role: str,
        batch: Mapping[str, Any],
        values: Mapping[str, Tensor],
        calls: Calls,
        particles: int,
        depth: int,
    ) -> Trace:
        self._running = poutine.trace(poutine.replay(getattr(self.bound, role), trace=fixed(values)))
        with self.bound.calling(calls), self._plate(particles, depth):
            return trace_of(self._running.get_trace(**batch))

    def unfinished(self) -> Trace:
        """Return the sites of the last run as far as it got."""
        return trace_of(self._running.trace)

    def gradient(self, function: Callable[..., Any], arrays: Mapping[str, Tensor], aux: bool = False) -> Any:
        """Return the gradient of a number by each of its arrays; with `aux` also what comes with it."""
        with torch.enable_grad():
            inputs = {name: value.detach().requires_grad_() for name, value in arrays.items()}
            total, more = function(inputs) if aux else (function(inputs), None)
            grads = self._gradients(total, inputs)
        return (grads, more.detach()) if aux else grads

    def _gradients(self, total: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if not isinstance(total, Tensor) or not total.requires_grad:
            return {name: torch.zeros_like(value) for name, value in inputs.items()}
        found = torch.autograd.grad(total, list(inputs.values()), allow_unused=True)
        return {
            name: torch.zeros_like(value) if grad is None else grad
            for (name, value), grad in zip(inputs.items(), found, strict=True)
        }

    def _plate(self, particles: int, depth: int) -> AbstractContextManager:
        if particles == 1:
            return nullcontext()
        return pyro.plate(PARTICLES, particles, dim=-1 - depth, device=self.bound.device)
