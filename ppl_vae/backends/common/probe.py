"""A bound program as the rules of the contract look at it: NumPy arrays in, NumPy arrays out."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import fields
from typing import Any

import numpy as np

from ppl_vae.backends.common import constraints
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.predictive import reconstruct
from ppl_vae.backends.common.reading import densities, named_apart
from ppl_vae.backends.common.site import Site, Trace
from ppl_vae.backends.common.terms import Terms, added, drawn_in_order, log_rows
from ppl_vae.backends.common.tracing import Tracer
from ppl_vae.contract.probe import Arrays, BrokenRule, Call, ProgramFailure, Seen, Traces, other_event
from ppl_vae.contract.reading import Reading, may_loop, readings
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.faults import cause_of, said

ARRAYS = ("value", "log_prob", "supported")
# What `Seen` has of a site under the same name.
FACTS = [part.name for part in fields(Seen) if part.name not in (*ARRAYS, "plates", "error")]


class Probe:
    """See `ppl_vae.contract.probe.Probe`; a backend says how functions of a Tracer run.

    Parameters
    ----------
    bound : Bound or PlainBound
    recorder : Recorder
        Watches the networks.

    Attributes
    ----------
    frozen : str
        How a network says that a parameter is not to be trained.
    """

    frozen: str

    def __init__(self, bound: Any, recorder: Any):
        self.bound, self.fields, self.num_data = bound, bound.fields, bound.num_data or 1
        self.backend, self._recorder = bound.backend, recorder
        elbo = f"{self.backend}.infer.Trace"
        self.stock = {
            "enumerated": f"{elbo}Enum_ELBO",
            "unreparametrised": f"{elbo}Graph_ELBO",
            "frozen": self.frozen,
            "registered": bound.registered,
        }

    def prepare(self, rows: Arrays) -> None:
        with self._asked(0):
            self._called("guide", lambda: self.bound.ensure_parameters(self.bound.put(self._batch(rows))))

    def _asked(self, seed: int) -> AbstractContextManager:
        """Leave the backend's global state as it is; start from a seed."""
        raise NotImplementedError

    def _computed(self, name: Any, function: Callable[..., Any], known: Any, seed: int, *arrays: Any) -> Any:
        """Return what a function of (tracer, *arrays) returns, as arrays of the host, and `known`, which it
        fills in when it runs.
        """
        raise NotImplementedError

    def unregistered(self) -> list[str]:
        return self.bound.unregistered()

    def weights(self) -> dict[str, np.ndarray]:
        return self.bound.weights()

    def load_weights(self, weights: Arrays) -> None:
        self.bound.load_weights(weights)

    def trace(self, rows: Arrays, seed: int = 0, values: Arrays | None = None, particles: int = 1) -> Traces:
        def run(tracer: Tracer, batch: Any, values: Any) -> dict[str, Trace]:
            guide = Trace()
            try:
                guide = self._called("guide", lambda: tracer.guide(batch, values=values, particles=particles))
                model = self._called("model", lambda: tracer.summed_model(batch, guide.drawn, particles))
            except ProgramFailure:
                # A draw of a wrong shape, more often than not, is what a network stumbles over.
                _refuse_other_events(guide.latent, tracer.unfinished())
                raise
            return {"guide": guide, "model": model}

        return self._seen(("trace", particles), run, seed, self._batch(rows), _copied(values or {}))

    def draw(self, n: int, seed: int = 0, rows: Arrays | None = None, values: Arrays | None = None) -> Traces:
        def run(tracer: Tracer, batch: Any, values: Any) -> dict[str, Trace]:
            model = self._called("model", lambda: tracer.model(batch, values=values, n=n))
            return {"guide": Trace(), "model": model}

        return self._seen(("draw", n), run, seed, self._batch(rows or {}), _copied(values or {}))

    def _seen(self, name: Any, run: Callable[..., dict[str, Trace]], seed: int, *arrays: Any) -> Traces:
        known: dict[str, Any] = {}

        def parts(tracer: Tracer, *arrays: Any) -> Any:
            self._recorder.start()
            traces = run(tracer, *arrays)
            seen = {
                role: {name: _taken_apart(site) for name, site in trace.items()}
                for role, trace in traces.items()
            }
            for role, sites in seen.items():
                known[role] = {name: facts for name, (facts, _) in sites.items()}
            known["calls"] = [call.network for call in self._recorder.calls]
            calls = [call[1:] for call in self._recorder.calls]
            arrays = {role: {n: a for n, (_, a) in sites.items()} for role, sites in seen.items()}
            return arrays, calls, constraints.outside(tracer.F, **traces)

        (sites, calls, parameters), known = self._computed(name, parts, known, seed, *arrays)
        guide, model = (
            {n: Seen(**facts, **sites[role][n]) for n, facts in known[role].items()}
            for role in ("guide", "model")
        )
        calls = [Call(who, *c) for who, c in zip(known["calls"], calls, strict=True)]
        return Traces(guide, model, calls, *(constraints.said(parameters, nan) for nan in (False, True)))

    def row_gradients(self, rows: Arrays, row: int, seed: int = 0) -> dict[str, np.ndarray]:
        batch = self._batch(rows)
        floats = {name: value for name, value in batch.items() if value.dtype.kind == "f"}
        if not floats:
            return {}

        def run(tracer: Tracer, floats: Any, others: Any) -> dict[str, Any]:
            def total(floats: Any) -> Any:
                pair = tracer.pair({**others, **floats})
                local = [sites for sites in (pair.guide.local, pair.model.local) if sites]
                return added(log_rows(sites, scaled=False)[row] for sites in local)

            return tracer.gradient(total, floats)

        others = {name: value for name, value in batch.items() if name not in floats}
        gradients, _ = self._computed(("row", row), self._of("guide", run), None, seed, floats, others)
        return {name: np.abs(g).reshape(len(g), -1).max(1) for name, g in gradients.items()}

    def _of(self, role: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *arguments: self._called(role, lambda: run(*arguments))

    def kl(self, rows: Arrays, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        def run(tracer: Tracer, batch: Any) -> Any:
            pair = tracer.pair(batch)
            both = [Terms(tracer.F, pair, 1, analytic_kl=analytic) for analytic in (True, False)]
            latent = pair.model.latent.keys() & pair.guide.latent.keys()
            return [{n: v for n, v in (t.kl | t.kl_global).items() if n in latent} for t in both]

        (closed, sampled), _ = self._computed("kl", self._of("guide", run), None, seed, self._batch(rows))
        return closed, sampled

    def drawn_late(self, rows: Arrays, seed: int = 0) -> list[str]:
        traces = self.trace(rows, seed)
        guide, model = map(Trace, traces[:2])
        return [name for name in model.latent if name not in drawn_in_order(guide, model)]

    def readings(self, rows: Arrays, seed: int = 0) -> dict[str, Reading]:
        batch = self._batch(rows)
        reached = self._called("model", lambda: self._reached(batch))
        if reached is not None and not may_loop(reached):
            return {}

        def run(name: Any, function: Callable[..., Any], *arrays: Any) -> Any:
            return self._computed(name, self._of("model", function), None, seed, *arrays)[0]

        return readings(batch, densities(run), seed)

    def _reached(self, batch: Arrays) -> Any:
        with self._asked(0):
            return self.bound.reached(named_apart, batch)

    def score(self, rows: Arrays, importance_samples: int, seed: int = 0) -> Scores:
        with self._asked(seed):
            return self._called("guide", lambda: score(self.bound, rows, importance_samples, seed))

    def reconstruct(self, rows: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
        with self._asked(seed):
            return self._called("model", lambda: reconstruct(self.bound, rows, seed=seed))

    def _batch(self, rows: Arrays) -> dict[str, np.ndarray]:
        return _copied({name: rows[name] for name in self.fields if name in rows})

    def _called(self, role: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (BrokenRule, ProgramFailure):
            raise
        except Exception as error:
            mismatch = self.bound.broken_plate(cause_of(error))
            if mismatch:
                raise BrokenRule(mismatch, "shapes", self._recorder.calls) from error
            raise ProgramFailure(f"the {role}", error) from error


def _copied(arrays: Arrays) -> dict[str, np.ndarray]:
    return {name: np.array(value) for name, value in arrays.items()}


def _taken_apart(site: Site) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what is known of a site, and its arrays: together the fields of `Seen`."""
    facts = {name: getattr(site, name) for name in FACTS}
    facts |= {"plates": {plate.name: plate.dim for plate in site.plates}, "error": ""}
    arrays = {"value": site.value, "supported": site.inside(), "log_prob": None}
    try:
        arrays["log_prob"] = site.log_density
    except Exception as error:
        facts["error"] = f"log_prob fails ({said(cause_of(error))})"
    return facts, arrays


def _refuse_other_events(guide: Trace, model: Trace) -> None:
    for name, site in guide.items():
        if name in model and site.event_shape != model[name].event_shape:
            raise BrokenRule(other_event(name, site.event_shape, model[name].event_shape), "shapes")
