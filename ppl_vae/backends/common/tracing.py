"""What a backend gives: runs of guide and model as sites, and passes over rows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partialmethod
from typing import Any, Protocol

import numpy as np

from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.common.checks import plates_apart
from ppl_vae.backends.common.particles import one_by_one
from ppl_vae.backends.common.site import PARTICLES, Pair, Trace
from ppl_vae.backends.common.summing import DEEPEST, summed_out
from ppl_vae.functions import Functions

Arrays = Mapping[str, np.ndarray]


class Tracer:
    """Runs a bound program's guide and model, each site under scale 1 of its rows.

    `particles` draws per row are a plate left of the program's own `depth` batch axes. `values` replace
    draws, by site.

    Parameters
    ----------
    bound : Bound
    """

    F: Functions
    _plate: Callable[[str, int, int], AbstractContextManager]  # the library's, by name, size and dim
    _centred: Callable[[], AbstractContextManager]  # latents take the centres of their distributions
    _redrawn: Callable[[], AbstractContextManager]  # observed sites are drawn
    _held: Callable[..., AbstractContextManager]  # sites have the values of a dict `data`
    _enumerated: Callable[[int], AbstractContextManager]  # see `summing.values_left_of`
    _sites: Callable[[Any], Trace]  # of the library's trace

    def __init__(self, bound: Any):
        self.bound = bound

    def pair(
        self, batch: Any, particles: int = 1, depth: int = 1, values: Mapping[str, Any] | None = None
    ) -> Pair:
        """Run the guide, and the model at its draws; a network is computed once for the same arguments."""
        if particles > 1 and self.bound.loops:
            return one_by_one(self.F, lambda number: self._numbered(number).pair(batch), particles)
        calls = Calls(remembered={}, particles=particles, depth=depth)
        with self.bound.calling(calls), self._particles(particles, depth):
            guide, model, state = self._both(batch, values or {}, max(depth + 1, DEEPEST))
        model = self._marked(model, reads=True)
        self._marked(guide)
        model = self._summed_out(model, guide.drawn, depth)

        def again(role: str, stop: str) -> Trace:
            drawn = guide.drawn
            if stop == "draws":
                drawn = {name: self.F.stop_gradient(value) for name, value in drawn.items()}
            calls = Calls(frozen=True, stopped=stop == "parameters")
            run = self.guide if role == "guide" else self.summed_model
            return run(batch, values=drawn, particles=particles, depth=depth, calls=calls, state=state)

        return Pair(guide, model, again, state)

    def run(
        self,
        role: str,
        batch: Mapping[str, Any],
        *,
        values: Mapping[str, Any] | None = None,
        n: int | None = None,
        centres: bool = False,
        redraw: bool = False,
        held: Mapping[str, Any] | None = None,
        particles: int = 1,
        depth: int = 1,
        calls: Calls | None = None,
        state: Any = None,
    ) -> Trace:
        """Run the guide or the model alone.

        Parameters
        ----------
        role : {"guide", "model"}
        n : int, optional
            Rows that the model draws, without the fields that it observes.
        centres : bool
            A latent takes the centre of its distribution, where it has one.
        redraw : bool
            What the model observes is drawn anew, at the same covariates.
        held : dict, optional
            Values of observed sites in place of those that are redrawn.
        calls, state : optional
            How networks are called, and their mutable state.
        """
        calls = replace(calls or Calls(), particles=particles, depth=depth)
        self._running = self._recorded(role, values or {}, calls, state)
        with (
            self._centred() if centres else nullcontext(),
            self._held(data=held) if held else nullcontext(),
            self._redrawn() if redraw else nullcontext(),
            self.bound.calling(calls),
            self._particles(particles, depth),
        ):
            trace = self._running.get_trace(**batch, **({} if n is None else {"n": n}))
        return self._marked(self._finished(trace, calls), reads=role == "model" or self.bound.declared)

    guide, model = partialmethod(run, "guide"), partialmethod(run, "model")

    def unfinished(self) -> Trace:
        """Return the sites of the last run of guide or model alone, as far as it got."""
        return self._sites(self._running.trace)

    def gradient(self, function: Callable[..., Any], arrays: Mapping[str, Any], aux: bool = False) -> Any:
        """Return the gradient of a number by each of its arrays, by name; with `aux` the function returns an
        array beside the number, and so does this.
        """
        raise NotImplementedError

    def _particles(self, particles: int, depth: int) -> AbstractContextManager:
        return self._plate(PARTICLES, particles, -1 - depth) if particles > 1 else nullcontext()

    def summed_model(
        self, batch: Any, values: Mapping[str, Any], particles: int = 1, depth: int = 1, **options: Any
    ) -> Trace:
        """Run the model at values of its latents; those that are missing and enumerated are summed out."""
        with self._enumerated(max(depth + 1, DEEPEST)):
            trace = self.model(batch, values=values, particles=particles, depth=depth, **options)
        return self._summed_out(trace, values, depth)

    def _summed_out(self, trace: Trace, drawn: Mapping[str, Any], depth: int) -> Trace:
        return summed_out(self.F, trace, drawn, max(depth + 1, DEEPEST))

    def _marked(self, trace: Trace, reads: bool = False) -> Trace:
        """Let sites know which plates in the place of that over the rows are others; with `reads` the trace
        tells.
        """
        apart = plates_apart(trace, self.bound.declared) if reads else None
        self.bound.apart = self.bound.apart if apart is None else apart
        for site in trace.values():
            site.apart = self.bound.apart
        return trace

    def _numbered(self, number: int) -> "Tracer":
        """Return a tracer of the noise of one of several particles."""
        return self

    def _both(self, batch: Any, values: Mapping[str, Any], place: int) -> tuple[Trace, Trace, Any]:
        """Return the sites of guide and model, which are enumerated left of `place` batch axes where the
        guide does not draw them, and the networks' state after both where it is handed on.
        """
        raise NotImplementedError

    def _recorded(self, role: str, values: Mapping[str, Any], calls: Calls, state: Any) -> Any:
        """Return guide or model within the library's handler that records sites."""
        raise NotImplementedError

    def _finished(self, trace: Any, calls: Calls) -> Trace:
        """Return the sites of a whole run."""
        return self._sites(trace)


class Passes(Protocol):
    """Passes over rows: in evaluation mode, without gradients, on a stream of noise of their own.

    Functions get a Tracer and arrays of the device; what they return comes back as arrays of the host.
    """

    def __call__(
        self, name: Any, function: Callable[..., Any], *arrays: Any, stream: tuple[int, ...] | None = None
    ) -> Any:
        """Run a function.

        Parameters
        ----------
        name : hashable
            Stands for the function and for all that it closes over: it is compiled once for each name.
        function : callable
            Called with (tracer, *arrays).
        *arrays : nested dicts of arrays
        stream : tuple of int, optional
            Names the noise; by default the next of these passes.
        """

    def stage(self, number: int) -> None:
        """Start the noise of the first (0) or the second (1) of two kinds of passes."""

    def aside(self, name: Any, function: Callable[..., Any], *arrays: Any) -> Any:
        """Run a function like a pass; the noise of the passes is untouched."""

    def described(self, function: Callable[..., Any], *arrays: Any) -> None:
        """Run a function for what it notes of shapes and sites; noise is untouched."""

    def chunks(self, rows: Any, most: int) -> Iterator[tuple[Any, int | None]]:
        """Yield batches of at most `most` rows, or a loader's as they are, and how many of the rows count."""

    def importance(self, rows: Any, samples: int, at_once: int, most: int, compile: bool) -> np.ndarray:
        """Return the importance weighted bound per row in nats, [N]."""
