"""A program bound to NumPyro, as the rules of the contract look at it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, random
from jax.tree_util import keystr, tree_flatten_with_path
from numpyro import handlers

from ppl_vae.backends.numpyro.bound import Bound, bind
from ppl_vae.backends.numpyro.evaluate import score
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.backends.numpyro.plain import PlainBound
from ppl_vae.backends.numpyro.predictive import reconstruct
from ppl_vae.backends.numpyro.recorder import Recorder
from ppl_vae.backends.numpyro.sites import broken_plate, log_density, taken_apart
from ppl_vae.backends.numpyro.terms import (
    PARTICLES,
    Trace,
    elbo_terms,
    is_latent_or_observed,
    is_local,
    latent_sites,
    traces,
)
from ppl_vae.contract.generators import foreign_generators
from ppl_vae.contract.probe import Arrays, BrokenRule, Call, ProgramFailure, Site, Traces, other_event
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.objectives import ELBO
from ppl_vae.program import PlainProgram, Program

# What is compiled here runs a few times: a quick compilation matters more than quick code.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


class Probe:
    """See `ppl_vae.contract.probe.Probe`.

    Attributes
    ----------
    bound : Bound or PlainBound
    stock : dict of str to str
        What NumPyro offers where the project's own objectives do not apply.
    """

    backend = "numpyro"
    stock = {
        "enumerated": "numpyro.infer.TraceEnum_ELBO",
        "unreparametrised": "numpyro.infer.TraceGraph_ELBO",
        "frozen": "an nnx.Variable other than nnx.Param",
    }

    def __init__(self, bound: Bound | PlainBound):
        self.bound, self.fields, self.num_data = bound, bound.fields, bound.num_data or 1
        self._recorder = Recorder(bound)
        self._compiled: dict[Any, Any] = {}

    def close(self) -> None:
        """Do nothing: the arrays of a bound program are its own."""

    def train(self, mode: bool) -> None:
        """Set train mode or evaluation mode."""
        self.bound.train(mode)

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by name."""
        return self.bound.weights()

    def load_weights(self, weights: Arrays) -> None:
        """Set parameters and buffers."""
        self.bound.load_weights(weights)

    def prepare(self, rows: Arrays) -> None:
        """Make every parameter exist."""
        with self._asked():
            self._called("guide", lambda: self.bound.ensure_parameters(self._batch(rows)))

    def trace(self, rows: Arrays, seed: int = 0, values: Arrays | None = None, particles: int = 1) -> Traces:
        """Run the guide, and the model on what it drew; `values` replace draws by site."""

        def run(state: Any, values: Any, key: Array, batch: Any) -> Any:
            guide_key, model_key = random.split(key)
            guide = self._run("guide", batch, guide_key, state | values, particles)
            state = state | {name: site["value"] for name, site in guide.items() if site["type"] == "mutable"}
            drawn = {name: site["value"] for name, site in latent_sites(guide).items()}
            return {
                "guide": guide,
                "model": self._run("model", batch, model_key, state | drawn, particles, guide),
            }

        return self._traced(("trace", particles), run, values, seed, rows)

    def draw(self, n: int, seed: int = 0, rows: Arrays | None = None, values: Arrays | None = None) -> Traces:
        """Run the model alone, without the fields that it observes."""

        def run(state: Any, values: Any, key: Array, batch: Any) -> Any:
            return {"guide": {}, "model": self._run("model", batch | {"n": n}, key, state | values)}

        return self._traced(("draw", n), run, values, seed, rows or {})

    def _traced(
        self, name: Any, run: Callable[..., Any], values: Arrays | None, seed: int, rows: Arrays
    ) -> Traces:
        known: dict[str, Any] = {}

        def arrays(*arguments: Any) -> Any:
            self._recorder.start()
            found = {role: taken_apart(trace) for role, trace in run(*arguments).items()}
            known.update(
                {role: what for role, (_, what) in found.items()},
                calls=[c.network for c in self._recorder.calls],
            )
            return {role: part for role, (part, _) in found.items()}, [
                call[1:] for call in self._recorder.calls
            ]

        state = dict(self.bound.params) | dict(self.bound.state)
        fixed = {site: jnp.asarray(value) for site, value in (values or {}).items()}
        (sites, calls), known = self._computed(
            name, arrays, known, state, fixed, random.key(seed), self._batch(rows)
        )
        guide, model = (
            {site: Site(**what, **sites[role][site]) for site, what in known[role].items()}
            for role in ("guide", "model")
        )
        return Traces(
            guide, model, [Call(who, *call) for who, call in zip(known["calls"], calls, strict=True)]
        )

    def _computed(
        self, name: Any, function: Callable[..., Any], known: Any, *arguments: Any
    ) -> tuple[Any, Any]:
        """Return what a function answers, compiled once for its shapes, and what its compilation learnt."""
        kinds = str(jax.tree.map(lambda a: (a.shape, a.dtype), arguments))
        key = name, self.bound.training, kinds
        with self._asked():
            if key not in self._compiled:
                self._compiled[key] = (
                    self._called("program", lambda: jax.jit(function).lower(*arguments).compile(QUICK)),
                    known,
                )
            compiled, known = self._compiled[key]
            return jax.device_get(self._called("program", lambda: compiled(*arguments))), known

    def row_gradients(self, rows: Arrays, row: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Return, by field of floats, the largest gradient of one row's densities by each input row, [B]."""
        batch = self._batch(rows)
        floats = {name: value for name, value in batch.items() if jnp.issubdtype(value.dtype, jnp.floating)}

        def total(floats: Any, params: Any, state: Any, key: Array, batch: Any) -> Array:
            pair = traces(self.bound, {**batch, **floats}, key, 1, params, state)
            nodes = [
                n for trace in pair[:2] for n in trace.values() if is_latent_or_observed(n) and is_local(n)
            ]
            return sum((log_density(node)[row] for node in nodes), start=jnp.zeros(()))

        if not floats:
            return {}
        arguments = floats, self.bound.params, self.bound.state, random.key(seed), batch
        found, _ = self._computed(("row", row), jax.grad(total), None, *arguments)
        return {name: np.abs(g).reshape(len(g), -1).max(1) for name, g in found.items()}

    def parameter_gradients(self, rows: Arrays, seed: int = 0, step: float = 0.0) -> dict[str, float | None]:
        """Return the largest gradient of the loss by trainable parameter; then step against its sign."""
        objective = Objective(self.bound, ELBO(), self.num_data)

        def loss(parameters: Any, state: Any, key: Array, batch: Any) -> Array:
            return objective(parameters, state, key, batch).value

        parameters = self.bound.trainable()
        arguments = parameters, self.bound.state, random.key(seed), self._batch(rows)
        found, _ = self._computed("loss", jax.grad(loss), None, *arguments)
        moved = jax.tree.map(
            lambda p, g: p - jnp.asarray(step * np.sign(np.nan_to_num(g))), parameters, found
        )
        self.bound.load_trainable(moved)
        leaves, _ = tree_flatten_with_path(found)
        return {_name(path): float(np.abs(g).max()) if g.size else None for path, g in leaves}

    def kl(self, rows: Arrays, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the KL by latent site at one draw: closed form where there is one, and sampled."""

        def both(params: Any, state: Any, key: Array, batch: Any) -> tuple[dict[str, Array], ...]:
            guide, model, _ = traces(self.bound, batch, key, 1, params, state)
            terms = (elbo_terms(guide, model, analytic_kl=analytic) for analytic in (True, False))
            latent = latent_sites(guide)
            return tuple({n: v for n, v in (t.kl | t.kl_global).items() if n in latent} for t in terms)

        arguments = self.bound.params, self.bound.state, random.key(seed), self._batch(rows)
        return self._computed("kl", both, None, *arguments)[0]

    def score(self, rows: Arrays, importance_samples: int, seed: int = 0) -> Scores:
        """Return the bounds as an evaluation reports them."""
        with self._asked():
            return self._called("guide", lambda: score(self.bound, rows, importance_samples, seed))

    def reconstruct(self, rows: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the centre of the likelihood of every row, by observed field."""
        with self._asked():
            return self._called("model", lambda: reconstruct(self.bound, rows, seed=seed))

    def _batch(self, rows: Arrays) -> dict[str, Array]:
        return {name: jnp.asarray(rows[name]) for name in self.fields if name in rows}

    @contextmanager
    def _asked(self) -> Iterator[None]:
        self._recorder.start()
        with foreign_generators(), numpyro.validation_enabled(False):
            yield

    def _run(
        self,
        role: str,
        batch: dict[str, Any],
        key: Array,
        values: Mapping[str, Any],
        particles: int = 1,
        guide: Trace | None = None,
    ) -> Trace:
        seeded = handlers.seed(getattr(self.bound, role), key)
        tracer = handlers.trace(handlers.substitute(seeded, data=dict(values)))
        plate = numpyro.plate(PARTICLES, particles, dim=-2) if particles > 1 else nullcontext()
        with self.bound.unscaled(), plate:
            try:
                return self._called(role, lambda: tracer.get_trace(**batch))
            except ProgramFailure:
                # A draw of a wrong shape, more often than not, is what a network stumbles over.
                _refuse_other_events(latent_sites(guide or {}), tracer.trace)
                raise

    def _called(self, role: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except (BrokenRule, ProgramFailure):
            raise
        except Exception as error:
            mismatch = broken_plate(error)
            if mismatch:
                raise BrokenRule(mismatch, "shapes", self._recorder.calls) from error
            raise ProgramFailure(role, error, self._recorder.running) from error


def probe(program: Program | PlainProgram, fields: tuple[str, ...], num_data: int, seed: int) -> Probe:
    """Bind a program for a check; see `ppl_vae.contract.probe.Maker`."""
    with foreign_generators(), numpyro.validation_enabled(False):
        try:
            if isinstance(program, PlainProgram):
                return Probe(PlainBound(program, fields, num_data, seed))
            return Probe(bind(program, num_data=num_data, seed=seed))
        except Exception as error:
            raise ProgramFailure("networks", error) from error


def _refuse_other_events(guide: Trace, model: Trace) -> None:
    for name, site in guide.items():
        if name in model:
            drawn, wanted = tuple(site["fn"].event_shape), tuple(model[name]["fn"].event_shape)
            if drawn != wanted:
                raise BrokenRule(other_event(name, drawn, wanted), "shapes")


def _name(path: tuple) -> str:
    """Return a parameter's name: its site, then its place in the tree."""
    return ".".join(
        filter(None, [path[0].key.removesuffix("$params"), keystr(path[1:], simple=True, separator=".")])
    )
