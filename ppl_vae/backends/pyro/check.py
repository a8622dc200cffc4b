"""A program bound to Pyro, as the rules of the contract look at it."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.backends.pyro.bound import Bound, bind
from ppl_vae.backends.pyro.evaluate import score
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.backends.pyro.plain import PlainBound, modules_of
from ppl_vae.backends.pyro.predictive import reconstruct
from ppl_vae.backends.pyro.recorder import Recorder
from ppl_vae.backends.pyro.sites import broken_plate, log_density, site_of
from ppl_vae.backends.pyro.terms import PARTICLES, elbo_terms, is_latent_or_observed, is_local, traces
from ppl_vae.contract.generators import foreign_generators
from ppl_vae.contract.probe import Arrays, BrokenRule, ProgramFailure, Site, Traces, other_event
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.objectives import ELBO
from ppl_vae.program import PlainProgram, Program


class Probe:
    """See `ppl_vae.contract.probe.Probe`. Works on the CPU.

    Attributes
    ----------
    bound : Bound or PlainBound
    stock : dict of str to str
        What Pyro offers where the project's own objectives do not apply.
    """

    backend = "pyro"
    stock = {
        "enumerated": "pyro.infer.TraceEnum_ELBO",
        "unreparametrised": "pyro.infer.TraceGraph_ELBO",
        "frozen": "requires_grad_(False)",
    }

    def __init__(self, bound: Bound | PlainBound, modules: list[nn.Module], modes: dict[nn.Module, bool]):
        self.bound, self.fields, self.num_data = bound, bound.fields, bound.num_data or 1
        self._modules, self._modes = modules, modes
        # Modules that a plain program merely names: their buffers are not among its weights.
        named = (f"{n}: {name}" for n, module in enumerate(modules) for name, _ in module.named_buffers())
        buffers = (buffer for module in modules for buffer in module.buffers())
        self._buffers = dict(zip(named, buffers, strict=True)) if isinstance(bound, PlainBound) else {}
        self._before = self.weights()
        self._recorder = Recorder(bound)

    def close(self) -> None:
        """Remove the hooks; put modes and buffers back."""
        self._recorder.close()
        for module, mode in self._modes.items():
            module.training = mode
        self.load_weights({name: self._before.get(name, value) for name, value in self.weights().items()})

    def train(self, mode: bool) -> None:
        """Set train mode or evaluation mode."""
        for module in self._modules:
            module.train(mode)

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by name."""
        return self.bound.weights() | {name: b.numpy().copy() for name, b in self._buffers.items()}

    def load_weights(self, weights: Arrays) -> None:
        """Set parameters and buffers."""
        self.bound.load_weights({n: value for n, value in weights.items() if n not in self._buffers})
        with torch.no_grad():
            for name, buffer in self._buffers.items():
                buffer.copy_(torch.from_numpy(np.array(weights[name])))

    def prepare(self, rows: Arrays) -> None:
        """Make every parameter exist."""
        with self._asked(0):
            self._called("guide", lambda: self.bound.ensure_parameters(self._batch(rows)))

    def trace(self, rows: Arrays, seed: int = 0, values: Arrays | None = None, particles: int = 1) -> Traces:
        """Run the guide, and the model on what it drew; `values` replace draws by site."""
        batch = self._batch(rows)
        with self._asked(seed), torch.no_grad():
            guide = self._run("guide", batch, values, particles)
            drawn = {name: guide.nodes[name]["value"] for name in guide.stochastic_nodes}
            model = self._run("model", batch, drawn, particles, guide)
            return Traces(_sites(guide), _sites(model), self._recorder.calls)

    def draw(self, n: int, seed: int = 0, rows: Arrays | None = None, values: Arrays | None = None) -> Traces:
        """Run the model alone, without the fields that it observes."""
        with self._asked(seed), torch.no_grad():
            model = self._run("model", self._batch(rows or {}) | {"n": n}, values)
            return Traces({}, _sites(model), self._recorder.calls)

    def row_gradients(self, rows: Arrays, row: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Return, by field of floats, the largest gradient of one row's densities by each input row, [B]."""
        batch = self._batch(rows)
        floats = {name: value.requires_grad_() for name, value in batch.items() if value.is_floating_point()}
        with self._asked(seed):
            pair = self._called("guide", lambda: traces(self.bound, batch))
            total = _of_row(pair, row)
            if not floats or not total.requires_grad:
                return {}
            found = torch.autograd.grad(total, list(floats.values()), allow_unused=True)
        sizes = {name: gradient for name, gradient in zip(floats, found, strict=True) if gradient is not None}
        return {
            name: gradient.abs().reshape(len(gradient), -1).amax(1).numpy()
            for name, gradient in sizes.items()
        }

    def parameter_gradients(self, rows: Arrays, seed: int = 0, step: float = 0.0) -> dict[str, float | None]:
        """Return the largest gradient of the loss by trainable parameter; then step against its sign."""
        parameters = self._parameters()
        with self._asked(seed):
            objective = Objective(self.bound, ELBO(), self.num_data)
            loss = self._called("guide", lambda: objective(self._batch(rows), torch.ones(()))).value
            if not parameters or not loss.requires_grad:
                return dict.fromkeys(parameters)
            found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), found, strict=True):
                if gradient is not None and step:
                    parameter.sub_(step * gradient.nan_to_num().sign())
        return {
            name: None if gradient is None else float(gradient.abs().max()) if gradient.numel() else None
            for name, gradient in zip(parameters, found, strict=True)
        }

    def kl(self, rows: Arrays, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the KL by latent site at one draw: closed form where there is one, and sampled."""
        with self._asked(seed), torch.no_grad():
            pair = self._called("guide", lambda: traces(self.bound, self._batch(rows)))
            both = [elbo_terms(*pair, analytic_kl=analytic) for analytic in (True, False)]
        latent = set(pair[0].stochastic_nodes)
        closed, sampled = (
            {n: v.numpy() for n, v in (t.kl | t.kl_global).items() if n in latent} for t in both
        )
        return closed, sampled

    def score(self, rows: Arrays, importance_samples: int, seed: int = 0) -> Scores:
        """Return the bounds as an evaluation reports them."""
        with self._asked(seed):
            return self._called("guide", lambda: score(self.bound, rows, importance_samples, seed))

    def reconstruct(self, rows: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the centre of the likelihood of every row, by observed field."""
        with self._asked(seed):
            return self._called("model", lambda: reconstruct(self.bound, rows, seed=seed))

    def _parameters(self) -> dict[str, Tensor]:
        if isinstance(self.bound, PlainBound):
            names = (name.replace("$$$", ".") for name in self.bound.tensors())
            found = zip(names, self.bound.trainable(), strict=False)
        else:
            found = self.bound.networks.named_parameters()
        return {name: parameter for name, parameter in found if parameter.requires_grad}

    def _batch(self, rows: Arrays) -> dict[str, Tensor]:
        return {name: torch.from_numpy(np.array(rows[name])) for name in self.fields if name in rows}

    @contextmanager
    def _asked(self, seed: int) -> Iterator[None]:
        self._recorder.start()
        with untouched():
            torch.manual_seed(seed)
            yield

    def _run(
        self,
        role: str,
        batch: dict[str, Any],
        values: Mapping[str, Any] | None,
        particles: int = 1,
        guide: poutine.Trace | None = None,
    ) -> poutine.Trace:
        function = getattr(self.bound, role)
        if values:
            function = poutine.replay(function, trace=_fixed(values))
        tracer = poutine.trace(function)
        plate = pyro.plate(PARTICLES, particles, dim=-2) if particles > 1 else nullcontext()
        with self.bound.unscaled(), plate:
            try:
                return self._called(role, lambda: tracer.get_trace(**batch))
            except ProgramFailure:
                # A draw of a wrong shape, more often than not, is what a network stumbles over.
                _refuse_other_events(guide, tracer.trace)
                raise

    def _called(self, role: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:
            mismatch = broken_plate(error)
            if mismatch:
                raise BrokenRule(mismatch, "shapes", self._recorder.calls) from error
            raise ProgramFailure(role, error, self._recorder.running) from error


def probe(program: Program | PlainProgram, fields: tuple[str, ...], num_data: int, seed: int) -> Probe:
    """Bind a program for a check; see `ppl_vae.contract.probe.Maker`."""
    with untouched():
        roots = modules_of(program) if isinstance(program, PlainProgram) else []
        modes = {module: module.training for root in roots for module in root.modules()}
        try:
            if isinstance(program, PlainProgram):
                bound = PlainBound(program, fields, num_data, seed)
            else:
                bound = bind(program, num_data=num_data, seed=seed)
        except Exception as error:
            raise ProgramFailure("networks", error) from error
        modes |= {module: module.training for module in bound.modules()}
        return Probe(bound, [bound, *roots], modes)


@contextmanager
def untouched() -> Iterator[None]:
    """Leave Pyro's parameter store, all random states and the validation flags as they were."""
    state = torch.random.get_rng_state()
    try:
        with (
            foreign_generators(),
            pyro.get_param_store().scope(),
            pyro.validation_enabled(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.random.set_rng_state(state)


def _fixed(values: Mapping[str, Any]) -> poutine.Trace:
    """Return a trace that fixes the values of sites."""
    trace = poutine.Trace()
    for name, value in values.items():
        value = value if isinstance(value, Tensor) else torch.from_numpy(np.array(value))
        trace.add_node(name, name=name, type="sample", is_observed=False, value=value, infer={})
    return trace


def _refuse_other_events(guide: poutine.Trace | None, model: poutine.Trace) -> None:
    for name in guide.stochastic_nodes if guide is not None else ():
        if name in model.nodes and is_latent_or_observed(model.nodes[name]):
            drawn, wanted = (tuple(trace.nodes[name]["fn"].event_shape) for trace in (guide, model))
            if drawn != wanted:
                raise BrokenRule(other_event(name, drawn, wanted), "shapes")


def _sites(trace: poutine.Trace) -> dict[str, Site]:
    return {name: site_of(node) for name, node in trace.nodes.items() if is_latent_or_observed(node)}


def _of_row(pair: tuple[poutine.Trace, ...], row: int) -> Tensor:
    """Return the sum of all log densities of one row."""
    nodes = [node for trace in pair for node in trace.nodes.values() if is_latent_or_observed(node)]
    return sum((log_density(node)[row] for node in nodes if is_local(node)), start=torch.zeros(()))
