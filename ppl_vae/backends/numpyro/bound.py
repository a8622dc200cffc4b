"""A declared program whose `model` and `guide` are ordinary NumPyro functions."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from numpyro.contrib.module import nnx_module

from ppl_vae.backends.numpyro import networks, weights
from ppl_vae.backends.numpyro.primitives import Primitives
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.program import Program, data_fields, declared


class Networks:
    """What a program sees as `net` during one call: its networks as attributes, registered on first use."""

    def __init__(self, bound: "Bound", writes: bool):
        self._bound, self._writes, self._made = bound, writes, {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._bound.networks:
            known = ", ".join(self._bound.networks) or "none"
            raise ProgramError(f"the program has no network {name!r}: it declares {known}")
        # Statistics of a network that the guide calls are written by the guide alone, else they move twice a step.
        if self._writes:
            self._bound.written.add(name)
        frozen = not self._writes and name in self._bound.written
        module = self._bound.networks[name]
        if isinstance(module, list):
            return [self._registered(f"{name}.{i}", part, frozen) for i, part in enumerate(module)]
        return self._registered(name, module, frozen)

    def _registered(self, name: str, module: nnx.Module, frozen: bool) -> Callable[..., Any]:
        if name not in self._made:
            module.set_attributes(frozen=frozen, raise_if_not_found=False)
            self._made[name] = _in_precision(nnx_module(name, module), module, self._bound.autocast)
        return self._made[name]


def _in_precision(call: Callable[..., Any], module: nnx.Module, dtype: Any) -> Callable[..., Any]:
    """Return the registered network, a partial over its parameters, with its products in `dtype` where one is asked."""
    if dtype is None or getattr(module, "single_precision", False):
        return call
    apply, parameters = call.func, _cast(call.args[0], jnp.float32, dtype)

    def cast(*args: Any, **kwargs: Any) -> Any:
        args, kwargs = _cast((args, kwargs), jnp.float32, dtype)
        return _cast(apply(parameters, *args, **kwargs), dtype, jnp.float32)

    return cast


def _cast(tree: Any, old: Any, new: Any) -> Any:
    return jax.tree.map(lambda a: a.astype(new) if isinstance(a, Array) and a.dtype == old else a, tree)


class Bound:
    """A program bound to NumPyro.

    `model(x, ..., n=None)` and `guide(x, ...)` take the data fields that the program declares, by position or by
    name, and may be given to any NumPyro tool. Where a tool brings no values of its own, they use those held here.

    Attributes
    ----------
    program : Program
    fields : tuple of str
        The data fields that the program declares.
    networks : dict of str to flax.nnx.Module or list of them
    num_data : int or None
        Rows of the whole data set; weights a batch against global latents under stock ELBOs.
    autocast : dtype or None
        Precision of the products within networks; probabilities stay in single precision.
    """

    backend = "numpyro"

    def __init__(self, program: Program, num_data: int | None = None, seed: int = 0):
        self.program, self.num_data, self.fields = program, num_data, data_fields(program)
        declared_networks = program.networks(networks.Seeded(seed))
        self.networks = {name: _module(name, part) for name, part in declared_networks.items()}
        self.autocast, self.training, self.written = None, True, set()
        self._scaled = True
        self.train()

    @property
    def device(self) -> Any:
        """Where the parameters lie."""
        arrays = jax.tree.leaves((self.params, self.state))
        return next(iter(arrays[0].devices())) if arrays else jax.devices()[0]

    @property
    def params(self) -> dict[str, Any]:
        """The parameters by NumPyro's site names: what `SVI.get_params` returns and what may be set here."""
        return {f"{name}$params": tree for name, tree in self._trees(nnx.Param)}

    @params.setter
    def params(self, values: Mapping[str, Any]) -> None:
        for name, module in self._modules():
            if f"{name}$params" in values:
                _set(module, nnx.Param, values[f"{name}$params"])

    @property
    def state(self) -> dict[str, Any]:
        """The mutable state by NumPyro's site names: what `SVIState.mutable_state` holds and what may be set here."""
        return {f"{name}$state": {"state": tree} for name, tree in self._trees(nnx.Not(nnx.Param))}

    @state.setter
    def state(self, values: Mapping[str, Any] | None) -> None:
        for name, module in self._modules():
            if f"{name}$state" in (values or {}):
                _set(module, nnx.Not(nnx.Param), values[f"{name}$state"]["state"])

    def _modules(self) -> Iterator[tuple[str, nnx.Module]]:
        for name, module in self.networks.items():
            if isinstance(module, list):
                yield from ((f"{name}.{i}", part) for i, part in enumerate(module))
            else:
                yield name, module

    def _trees(self, kind: Any) -> Iterator[tuple[str, Any]]:
        trees = ((name, nnx.to_pure_dict(nnx.state(module, kind))) for name, module in self._modules())
        return ((name, tree) for name, tree in trees if tree)

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
        ppl = Primitives(n, self.num_data if self._scaled else None)
        net = Networks(self, writes=role == "guide")
        return getattr(self.program, role)(ppl, net, **declared(self.program, role, batch))

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Trace with scale 1: what the project's own objectives do."""
        before, self._scaled = self._scaled, False
        try:
            yield
        finally:
            self._scaled = before

    def train(self, mode: bool = True) -> "Bound":
        """Set train mode: statistics and codebooks move. Functions compiled before keep the mode that they saw."""
        self.training = mode
        for _, module in self._modules():
            module.train() if mode else module.eval()
            module.set_attributes(training=mode, raise_if_not_found=False)
        return self

    def eval(self) -> "Bound":
        """Set evaluation mode: statistics and codebooks rest."""
        return self.train(False)

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by torch's names and in torch's layout, as copies on the host."""
        return weights.to_torch(self.networks)

    def load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set parameters and buffers from what `weights` of either backend returns.

        Raises
        ------
        RunError
            Where names or shapes are not the program's.
        """
        weights.from_torch(self.networks, arrays)


def _module(name: str, part: Any) -> Any:
    if isinstance(part, (list, tuple)):
        return [_module(name, item) for item in part]
    if not isinstance(part, nnx.Module):
        raise ProgramError(f"network {name!r} is a {type(part).__name__}, not a flax.nnx.Module")
    return part


def _set(module: nnx.Module, kind: Any, values: Any) -> None:
    state = nnx.state(module, kind)
    nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, values))
    nnx.update(module, state)


def find_device(name: str) -> Any:
    """Return a JAX device by name: auto, cpu, cuda, cuda:1 ...

    Raises
    ------
    UsageError
        For an unknown name, or a device that this machine lacks.
    """
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    try:
        found = jax.devices(None if kind == "auto" else kind)
    except RuntimeError:
        found = []
    if int(index or 0) >= len(found):
        raise UsageError(f"device {name!r}: JAX sees {len(found)} devices of this kind here")
    return found[int(index or 0)]


def bind(program: Program, *, num_data: int | None = None, seed: int = 0, device: str = "cpu") -> Bound:
    """Make the program's networks, with weights that depend on `seed` alone, and bind it to NumPyro."""
    where = find_device(device)
    with jax.default_device(where):
        bound = Bound(program, num_data, seed)
    bound.params, bound.state = jax.device_put((bound.params, bound.state), where)
    return bound
