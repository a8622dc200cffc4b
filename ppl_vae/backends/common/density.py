"""The log density of rows as a function of their latents: the seam below samplers and estimators."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from ppl_vae.backends.common.site import Site, Trace
from ppl_vae.backends.common.terms import added
from ppl_vae.backends.common.tracing import Arrays, Tracer
from ppl_vae.data.batches import count_rows
from ppl_vae.errors import ProgramError


class Gradient(NamedTuple):
    """A log density in nats, [C, N], and its gradient by the flat vectors, [C, N, D]."""

    value: Any
    gradient: Any


@dataclass(frozen=True, eq=False)
class Part:
    """The place of one latent site in a flat vector.

    Attributes
    ----------
    start, stop : int
        Its entries.
    shape : tuple of int
        Of the unconstrained event.
    transform : Any
        The backend's bijection from unconstrained numbers to the support of the site's prior.
    """

    start: int
    stop: int
    shape: tuple[int, ...]
    transform: Any


class Density:
    """log p(x, z) of N rows as a function of their local latents, on the backend's arrays.

    A state is u [C, N, D]: C chains of one flat vector per row, of unconstrained numbers. Densities of u
    include the log determinant of the map to the latents, so that a sampler may walk freely. Global latents
    are held at the guide's centres. On NumPyro every method is a pure function that `jax.jit` takes.

    Parameters
    ----------
    bound : Bound
        Of a declared program.
    rows : dict of str to [N, ...]

    Attributes
    ----------
    parts : dict of str to Part
        By local latent site.
    dim : int
        D.

    Raises
    ------
    ProgramError
        For two plain functions, a program without local latents, and a discrete latent.
    """

    def __init__(self, bound: Any, rows: Arrays):
        if not bound.declared:
            raise ProgramError(f"{bound.program.name} is two plain functions: only a Program has a density")
        self.bound, self.count = bound, count_rows(rows)
        self.batch = bound.put({name: rows[name] for name in bound.fields if name in rows})
        self.F, self.dim = bound.tracer(0).F, 0
        self.parts: dict[str, Part] = {}
        self._shared: dict[str, Any] = {}
        self._run(self._read)
        if not self.parts:
            raise ProgramError("the program has no local latent: its density is a function of none")

    def _read(self, tracer: Tracer) -> None:
        guide = tracer.guide(self.batch, centres=True)
        latents = {name: site.value for name, site in guide.latent.items()}
        for name, site in tracer.model(self.batch, values=latents).latent.items():
            if not site.local:
                self._shared[name] = latents[name]
                continue
            if site.discrete:
                raise ProgramError(f"site {name!r} is discrete: its density has no gradient")
            transform = self.bound.transform(site.fn)
            shape = tuple(transform.inverse_shape(site.event_shape))
            stop = self.dim + max(1, math.prod(shape))
            self.parts[name] = Part(self.dim, stop, shape, transform)
            self.dim = stop

    def _run(self, function: Callable[..., Any], *arrays: Any, seed: int = 0) -> Any:
        with self.bound.passes(seed):
            return function(self.bound.tracer(seed), *arrays)

    def constrain(self, u: Any) -> dict[str, Any]:
        """Return the latents by site, [C, N, *event], of flat vectors [C, N, D]."""
        lead = tuple(u.shape[:-1])
        flat = {
            n: u[..., part.start : part.stop].reshape(*lead, *part.shape) for n, part in self.parts.items()
        }
        return {name: self.parts[name].transform(value) for name, value in flat.items()}

    def unconstrain(self, values: Mapping[str, Any]) -> Any:
        """Return the flat vectors [C, N, D] of latents by site, [C, N, *event]."""
        flat = []
        for name, part in self.parts.items():
            inverse = part.transform.inv(values[name])
            lead = tuple(inverse.shape[: inverse.ndim - len(part.shape)])
            flat.append(inverse.reshape(*lead, part.stop - part.start))
        return self.F.concat(flat, -1)

    def _log_det(self, u: Any, values: Mapping[str, Any]) -> Any:
        """Return the log determinant of `constrain` at u, [C, N]."""
        lead, found = tuple(u.shape[:-1]), []
        for name, part in self.parts.items():
            free = u[..., part.start : part.stop].reshape(*lead, *part.shape)
            term = part.transform.log_abs_det_jacobian(free, values[name])
            found.append(term.reshape(*lead, -1).sum(-1))
        return added(found)

    def _sites(self, role: str, tracer: Tracer, u: Any) -> tuple[Trace, dict[str, Any]]:
        values = self.constrain(u)
        run = getattr(tracer, role)
        return run(self.batch, values=values | self._shared, particles=u.shape[0]), values

    def _total(self, u: Any, sites: list[Site]) -> Any:
        """Return the sum of log densities, [C, N]."""
        found = [self.F.broadcast_to(site.log_density, tuple(u.shape[:-1])) for site in sites if site.local]
        return added(found) if found else self.F.zeros(u.shape[:-1], u)

    def _joint(self, tracer: Tracer, u: Any) -> Any:
        trace, values = self._sites("model", tracer, u)
        return self._total(u, list(trace.values())) + self._log_det(u, values)

    def log_joint(self, u: Any) -> Any:
        """Return log p(x, z) in nats with the log determinant, [C, N]."""
        return self._run(self._joint, u)

    def log_prior(self, u: Any) -> Any:
        """Return log p(z) in nats with the log determinant, [C, N]."""

        def run(tracer: Tracer, u: Any) -> Any:
            trace, values = self._sites("model", tracer, u)
            return self._total(u, list(trace.latent.values())) + self._log_det(u, values)

        return self._run(run, u)

    def log_likelihood(self, u: Any) -> Any:
        """Return log p(x | z) in nats, [C, N]."""

        def run(tracer: Tracer, u: Any) -> Any:
            return self._total(u, list(self._sites("model", tracer, u)[0].observed.values()))

        return self._run(run, u)

    def log_guide(self, u: Any) -> Any:
        """Return log q(z | x) in nats with the log determinant, [C, N]."""

        def run(tracer: Tracer, u: Any) -> Any:
            trace, values = self._sites("guide", tracer, u)
            return self._total(u, list(trace.latent.values())) + self._log_det(u, values)

        return self._run(run, u)

    def gradient(self, u: Any) -> Gradient:
        """Return `log_joint` and its gradient by u: rows and chains do not meet."""

        def run(tracer: Tracer, u: Any) -> Gradient:
            def total(inputs: Mapping[str, Any]) -> Any:
                value = self._joint(tracer, inputs["u"])
                return value.sum(), value

            found, value = tracer.gradient(total, {"u": u}, aux=True)
            return Gradient(value, found["u"])

        return self._run(run, u)

    def from_guide(self, count: int, seed: int = 0) -> Any:
        """Draw from q(z | x) as flat vectors, [count, N, D]."""
        return self._drawn("guide", count, seed)

    def from_prior(self, count: int, seed: int = 0) -> Any:
        """Draw from p(z), at the rows' covariates, as flat vectors, [count, N, D]."""
        return self._drawn("model", count, seed)

    def _drawn(self, role: str, count: int, seed: int) -> Any:
        def run(tracer: Tracer) -> Any:
            trace = getattr(tracer, role)(self.batch, values=self._shared, particles=count)
            values = {}
            for name in self.parts:
                value, event = trace[name].value, trace[name].event_shape
                values[name] = self.F.broadcast_to(value, (count, self.count, *event))
            return self.unconstrain(values)

        return self._run(run, seed=seed)
