"""A declared program whose `model` and `guide` are ordinary NumPyro functions."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array, random
from numpyro.distributions import biject_to

from ppl_vae.backends.common.bound import Scalars
from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.numpyro import weights
from ppl_vae.backends.numpyro.devices import find_devices
from ppl_vae.backends.numpyro.modules import Part
from ppl_vae.backends.numpyro.networks import Seeded, module
from ppl_vae.backends.numpyro.passes import Passes, at_rest
from ppl_vae.backends.numpyro.primitives import Primitives
from ppl_vae.backends.numpyro.tracing import Tracer
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import Program, data_fields, declared

Parts = Part | list["Parts"]


class Networks:
    """What a program sees as `net` during one call: its networks as attributes, registered on first use."""

    def __init__(self, bound: "Bound", writes: bool):
        self._bound, self._writes, self._made = bound, writes, {}

    def __getattr__(self, name: str) -> Any:
        parts = self._bound.parts
        if name not in parts:
            raise ProgramError(
                f"the program has no network {name!r}: it declares {', '.join(parts) or 'none'}"
            )
        # Statistics of a network that the guide calls are written by the guide alone, else twice a step.
        if self._writes:
            self._bound.written.add(name)
        writes = not self._bound.calls.frozen and (self._writes or name not in self._bound.written)
        return self._registered(parts[name], writes)

    def _registered(self, part: Parts, writes: bool) -> Any:
        if isinstance(part, list):
            return [self._registered(one, writes) for one in part]
        if part.name not in self._made:
            bound = self._bound
            params, state = bound.params.get(part.params_site), bound.state.get(part.state_site)
            state = None if state is None else state["state"]
            call = part.registered(params, state, bound.training, writes, bound.autocast)
            self._made[part.name] = partial(_once, bound.calls, part, call)
        return self._made[part.name]


def _once(calls: Calls, part: Part, call: Any, /, *args: Any, **kwargs: Any) -> Any:
    return calls.once(part, bool(part.state), call, args, kwargs)


class Bound(Scalars):
    """A program bound to NumPyro.

    `model(x, ..., n=None)` and `guide(x, ...)` take the data fields that the program declares, by position or
    by name, and may be given to any NumPyro tool. Where a tool brings no values, they use those kept here.

    Attributes
    ----------
    program : Program
    fields : tuple of str
        The data fields that the program declares.
    params : dict
        Parameters by NumPyro's site names, as `SVI.get_params` returns them. Set it to use others.
    num_data : int or None
        Rows of the whole data set: `model` and `guide` scale a batch up to them, as stock ELBOs want it.
        Within `unscaled()` each row counts once, as NUTS and other samplers want it.
    autocast : dtype or None
        Precision of the products within networks; probabilities stay in single precision.
    training : bool
        Train mode, in which statistics and codebooks move.
    parts : dict of str to Part, or lists of them
        The networks.
    compiled : dict
        Compiled functions of this program, by name.
    """

    backend, declared = "numpyro", True

    def __init__(self, program: Program, num_data: int | None = None, seed: int = 0):
        self.program, self.num_data, self.fields = program, num_data, data_fields(program)
        nn = Seeded(seed)
        self.parts = {name: _parts(nn, name, network) for name, network in program.networks(nn).items()}
        self.params = {part.params_site: part.params for part in self._all() if part.params}
        self.state = {part.state_site: {"state": part.state} for part in self._all() if part.state}
        self.autocast, self.training, self.written, self._scaled = None, True, set(), True
        self.compiled: dict[Any, Any] = {}
        self.calls, self.layouts = Calls(), {}
        self.start_scalars(program)

    def _all(self) -> Iterator[Part]:
        yield from flat(self.parts.values())

    @property
    def state(self) -> dict[str, Any]:
        """Mutable state by NumPyro's site names, as `SVIState.mutable_state` holds it; may be set."""
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any] | None) -> None:
        self._state = dict(values or {})

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the networks."""
        return tuple(self.parts)

    @property
    def device(self) -> Any:
        """Where the parameters lie."""
        arrays = jax.tree.leaves((self.params, self.state))
        return next(iter(arrays[0].devices())) if arrays else jax.devices()[0]

    def to(self, device: Any) -> "Bound":
        """Move parameters and state to a JAX device."""
        self.params, self.state = jax.device_put((self.params, self.state), device)
        return self

    def ensure_parameters(self, batch: Mapping[str, Array]) -> None:
        """Do nothing: a declared program has its parameters from the start."""

    def trainable(self) -> dict[str, Any]:
        """Return the parameters that an optimizer should see."""
        return dict(self.params)

    def load_trainable(self, params: Mapping[str, Any]) -> None:
        """Set the parameters."""
        self.params = dict(params)

    def constrained(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters' values at their sites: those of networks have no constraints."""
        return params

    def model(self, *args: Array | None, n: int | None = None, **data: Array | None) -> Any:
        """Run the story: with data it scores, without it draws `n` rows."""
        return self._run("model", args, data, n)

    def guide(self, *args: Array | None, n: int | None = None, **data: Array | None) -> Any:
        """Run the guide on data."""
        return self._run("guide", args, data, n)

    def _run(self, role: str, args: tuple, data: dict[str, Any], n: int | None) -> Any:
        listed = ", ".join(self.fields) or "no fields"
        if len(args) > len(self.fields):
            raise ProgramError(f"{role} got {len(args)} arrays, the program declares {listed}")
        batch = dict(zip(self.fields, args, strict=False)) | data
        unknown = set(batch) - set(self.fields)
        if unknown:
            raise ProgramError(f"{role} got {', '.join(sorted(unknown))}: the program declares {listed}")
        ppl = Primitives(n, self.num_data if self._scaled else None, self.scalars)
        net = Networks(self, writes=role == "guide")
        # A GPU may take TF32 for products of matrices in single precision, which torch does not unasked.
        with jax.default_matmul_precision("highest"):
            return getattr(self.program, role)(ppl, net, **declared(self.program, role, batch))

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Trace with scale 1: what the project's own objectives do."""
        before, self._scaled = self._scaled, False
        try:
            yield
        finally:
            self._scaled = before

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        """Trace with scale 1, with networks called as asked."""
        before, self.calls = self.calls, calls
        try:
            with self.unscaled():
                yield
        finally:
            self.calls = before

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        """Return passes over rows in evaluation mode."""
        return at_rest(self, seed, name)

    def tracer(self, seed: int = 0) -> Tracer:
        """Return a Tracer of the present weights."""
        return Tracer(self, random.key(seed))

    def put(self, arrays: Any) -> Any:
        """Return nested dicts of arrays of the host on the program's device."""
        return jax.device_put(arrays, self.device)

    def transform(self, fn: Any) -> Any:
        """Return the bijection from unconstrained numbers to a distribution's support."""
        return biject_to(fn.support)

    def precision(self) -> np.dtype:
        """Return the floating point type of the parameters."""
        return precision_of(self.params)

    def train(self, mode: bool = True) -> "Bound":
        """Set train mode, or with False evaluation mode."""
        self.training = mode
        return self

    def eval(self) -> "Bound":
        """Set evaluation mode: statistics and codebooks rest."""
        return self.train(False)

    def _modules(self) -> dict[str, nnx.Module]:
        states = {part.name: self.state.get(part.state_site, {"state": {}})["state"] for part in self._all()}
        return {p.name: p.module(self.params.get(p.params_site, {}), states[p.name]) for p in self._all()}

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by torch's names and in torch's layout, as copies on the host."""
        return weights.to_torch(self._modules())

    def load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set parameters and buffers from what `weights` of either backend returns.

        Raises
        ------
        RunError
            Where names or shapes are not the program's.
        """
        modules = self._modules()
        weights.from_torch(modules, arrays)
        parts = {name: Part(name, module) for name, module in modules.items()}.values()
        self.params = {part.params_site: part.params for part in parts if part.params}
        self.state = {part.state_site: {"state": part.state} for part in parts if part.state}

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return what a loader yields as named fields: a dict by name, else in the declared order."""
        if not isinstance(item, Mapping):
            item = dict(zip(self.fields, item if isinstance(item, (tuple, list)) else (item,), strict=False))
        return {name: as_array(item[name]) for name in self.fields if name in item}


def precision_of(params: Any) -> np.dtype:
    """Return the floating point type of the first array that has one; without any JAX's own."""
    kinds = (np.dtype(value.dtype) for value in jax.tree.leaves(params) if value.dtype.kind == "f")
    return next(kinds, np.dtype(jax.numpy.result_type(float)))


def as_array(value: Any) -> np.ndarray:
    """Return what a loader yields as an array; refuses what is none."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise DataError(f"a loader's batch holds {type(value).__name__}: NumPyro takes arrays of numbers")
    return array


def flat(parts: Iterable[Parts]) -> Iterator[Part]:
    """Yield the networks of a program, those in lists too."""
    for part in parts:
        if isinstance(part, list):
            yield from flat(part)
        else:
            yield part


def _parts(nn: Seeded, name: str, network: Any) -> Parts:
    if isinstance(network, (list, tuple)):
        return [_parts(nn, f"{name}.{index}", item) for index, item in enumerate(network)]
    return Part(name, module(nn, network, name))


def bind(program: Program, *, num_data: int | None = None, seed: int = 0, device: str = "cpu") -> Bound:
    """Make the program's networks, with weights that depend on `seed` alone, and bind it to NumPyro."""
    (where,) = find_devices(device)
    with jax.default_device(where):
        return Bound(program, num_data, seed).to(where)
