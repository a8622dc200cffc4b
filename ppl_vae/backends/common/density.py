"""The log density of rows as a function of their latents: the seam below samplers and estimators."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ppl_vae.backends.common.checks import check_plates
from ppl_vae.backends.common.terms import added, log_rows
from ppl_vae.backends.common.tracing import Arrays, Tracer
from ppl_vae.data.batches import count_rows
from ppl_vae.errors import DataError, ProgramError


class Gradient(NamedTuple):
    """`Density.log_joint` in nats, [draws, rows], and its gradient by the latents, [draws, rows, dim]."""

    value: Any
    gradient: Any


@dataclass(frozen=True, eq=False)
class Part:
    """One latent site in a flat vector."""

    start: int  # of its entries
    stop: int
    shape: tuple[int, ...]  # of one draw, unconstrained
    event: tuple[int, ...]  # of one draw, as the model sees it
    transform: Any  # the backend's bijection from unconstrained numbers to the support of the site's prior


class Density:
    """log p(x, z) of rows as a function of their local latents, on the backend's arrays.

    Latents are one flat vector of unconstrained numbers per row, u [draws, rows, dim]: an array of the
    backend, or a NumPy array or lists, which become one. Densities of u include the log determinant of the
    map to the latents, so that a sampler may walk freely. Draws and rows do not meet. Global latents are held
    at the guide's centres. Every density is differentiable by u: by `jax.grad` (`jax.vmap`, `jax.jit`) on
    NumPyro, where methods are pure functions, and on Pyro by `backward` for a u with `requires_grad`.

    Parameters
    ----------
    bound : Bound
        Of a declared program.
    rows : dict of str to [rows, ...]

    Attributes
    ----------
    count, dim : int
        The number of rows, and of the numbers in one row's latents.
    parts : dict of str to Part
        By local latent site.
    F : Functions
        The backend's array functions.

    Raises
    ------
    ProgramError
        For two functions, a program without local latents, a discrete latent, and a site in a plate
        besides that over the rows.
    DataError
        By every method, for latents of another shape.
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
        model = tracer.model(self.batch, values=guide.drawn)
        check_plates(guide, model)
        for name, site in model.latent.items():
            if not site.local:
                self._shared[name] = site.value
                continue
            if site.discrete:
                raise ProgramError(f"site {name!r} is discrete: its density has no gradient")
            transform = self.bound.transform(site.fn)
            shape = tuple(transform.inverse_shape(site.event_shape))
            stop = self.dim + max(1, math.prod(shape))
            self.parts[name] = Part(self.dim, stop, shape, site.event_shape, transform)
            self.dim = stop

    def _run(self, function: Callable[..., Any], *arrays: Any, seed: int = 0) -> Any:
        gradients = self.bound.gradients(*arrays)
        with self.bound.passes(seed), gradients:
            return function(self.bound.tracer(seed), *arrays)

    def _array(self, name: str, value: Any, shape: tuple[int, ...]) -> Any:
        """Return an array of the backend, refused where it is not [draws, *shape]."""
        if isinstance(value, np.ndarray) or not hasattr(value, "shape"):
            try:
                value = self.bound.put(np.asarray(value, self.bound.precision()))
            except (TypeError, ValueError) as error:
                raise DataError(f"{name} is no array of numbers ({error})") from None
        if value.ndim != 1 + len(shape) or tuple(value.shape[1:]) != shape:
            wanted = ", ".join(map(str, ("draws", *shape)))
            raise DataError(f"{name} has shape {tuple(value.shape)}: give [{wanted}], {self.count} rows")
        return value

    def _latents(self, u: Any) -> Any:
        return self._array("u", u, (self.count, self.dim))

    def constrain(self, u: Any) -> dict[str, Any]:
        """Return the latents by site, [draws, rows, *event]."""
        u = self._latents(u)
        return {name: part.transform(self._free(u, part)) for name, part in self.parts.items()}

    def _free(self, u: Any, part: Part) -> Any:
        """Return the unconstrained numbers of a site, [draws, rows, *shape]."""
        return u[..., part.start : part.stop].reshape(*u.shape[:-1], *part.shape)

    def unconstrain(self, values: Mapping[str, Any]) -> Any:
        """Return the flat vectors, [draws, rows, dim], of latents by site, [draws, rows, *event]."""
        if set(values) != set(self.parts):
            raise DataError(f"got latents {', '.join(sorted(values))}: give {', '.join(self.parts)}")
        flat = []
        for name, part in self.parts.items():
            value = self._array(f"latent {name!r}", values[name], (self.count, *part.event))
            flat.append(part.transform.inv(value).reshape(*value.shape[:2], part.stop - part.start))
        return self.F.concat(flat, -1)

    def _log_det(self, u: Any, values: Mapping[str, Any]) -> Any:
        """Return the log determinant of `constrain` at u, [draws, rows]."""
        terms = (
            part.transform.log_abs_det_jacobian(self._free(u, part), values[name])
            for name, part in self.parts.items()
        )
        return added(term.reshape(*u.shape[:2], -1).sum(-1) for term in terms)

    def _evaluated(self, u: Any, role: str, *kinds: str) -> Any:
        """Return the log density of local sites of a role, latent or observed, [draws, rows]; that of latents
        with the log determinant.
        """

        def run(tracer: Tracer, u: Any) -> Any:
            values = self.constrain(u)
            trace = getattr(tracer, role)(self.batch, values=values | self._shared, particles=u.shape[0])
            sums = [log_rows(getattr(trace.local, kind), scaled=False) for kind in kinds]
            total = added([self.F.zeros(u.shape[:2], u), *sums])
            return total + self._log_det(u, values) if "latent" in kinds else total

        return self._run(run, self._latents(u))

    def log_joint(self, u: Any) -> Any:
        """Return log p(x, z) in nats with the log determinant, [draws, rows]."""
        return self._evaluated(u, "model", "latent", "observed")

    def log_prior(self, u: Any) -> Any:
        """Return log p(z) in nats with the log determinant, [draws, rows]."""
        return self._evaluated(u, "model", "latent")

    def log_likelihood(self, u: Any) -> Any:
        """Return log p(x | z) in nats, [draws, rows]."""
        return self._evaluated(u, "model", "observed")

    def log_guide(self, u: Any) -> Any:
        """Return log q(z | x) in nats with the log determinant, [draws, rows]."""
        return self._evaluated(u, "guide", "latent")

    def gradient(self, u: Any) -> Gradient:
        """Return `log_joint` and its gradient by u, as arrays without gradients of their own on Pyro."""

        def total(inputs: Mapping[str, Any]) -> Any:
            value = self.log_joint(inputs["u"])
            return value.sum(), value

        def run(tracer: Tracer, u: Any) -> Gradient:
            gradients, value = tracer.gradient(total, {"u": u}, aux=True)
            return Gradient(value, gradients["u"])

        return self._run(run, self._latents(u))

    def from_guide(self, count: int, seed: int = 0) -> Any:
        """Draw from q(z | x), [count, rows, dim]."""
        return self._drawn("guide", count, seed)

    def from_prior(self, count: int, seed: int = 0) -> Any:
        """Draw from p(z) at the rows' covariates, [count, rows, dim]."""
        return self._drawn("model", count, seed)

    def _drawn(self, role: str, count: int, seed: int) -> Any:
        def run(tracer: Tracer) -> Any:
            trace = getattr(tracer, role)(self.batch, values=self._shared, particles=count)
            shapes = {name: (count, self.count, *part.event) for name, part in self.parts.items()}
            return self.unconstrain(
                {name: self.F.broadcast_to(trace[name].value, shape) for name, shape in shapes.items()}
            )

        return self._run(run, seed=seed)
