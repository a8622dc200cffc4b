"""A declared program as a torch module whose `model` and `guide` are ordinary Pyro functions."""

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn
from torch.distributions import biject_to

from ppl_vae.backends.common.bound import Scalars
from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.pyro.networks import NN, module
from ppl_vae.backends.pyro.passes import Passes, at_rest, put
from ppl_vae.backends.pyro.primitives import Primitives
from ppl_vae.backends.pyro.tracing import Tracer
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.program import Program, data_fields, declared

_IDS = itertools.count()


class Networks:
    """What a program sees as `net` during one call: its networks as attributes, in the asked precision."""

    def __init__(
        self,
        modules: nn.ModuleDict,
        autocast: torch.dtype | None,
        used: set[str],
        writes: bool,
        calls: Calls,
    ):
        self._modules, self._autocast, self._used, self._writes = modules, autocast, used, writes
        self._calls = calls

    def __getattr__(self, name: str) -> Any:
        if name not in self._modules:
            raise ProgramError(
                f"the program has no network {name!r}: it declares {', '.join(self._modules) or 'none'}"
            )
        # Statistics of a network that the guide calls are written by the guide alone, else they would move
        # twice a step.
        if self._writes:
            self._used.add(name)
        frozen = self._calls.frozen or (not self._writes and name in self._used)
        return self._callable(self._modules[name], frozen)

    def _callable(self, module: nn.Module, frozen: bool) -> Any:
        if isinstance(module, nn.ModuleList):
            return [self._callable(part, frozen) for part in module]

        def call(*args: Any, **kwargs: Any) -> Any:
            for part in module.modules():
                if hasattr(part, "frozen"):
                    part.frozen = frozen
            forward = _constant(module) if self._calls.stopped else module
            if self._autocast is None:
                return forward(*args, **kwargs)
            device = next((a.device.type for a in args if isinstance(a, Tensor)), "cpu")
            with torch.autocast(device, self._autocast):
                out = forward(*args, **kwargs)
            return _single_precision(out)

        stateful = next(module.buffers(), None) is not None
        return lambda *args, **kwargs: self._calls.once(module, stateful, call, args, kwargs)


def _constant(module: nn.Module) -> Callable[..., Any]:
    """Return a module whose parameters are constants."""
    values = {name: value.detach() for name, value in module.named_parameters()}
    return lambda *args, **kwargs: torch.func.functional_call(module, values, args, kwargs)


def _single_precision(out: Any) -> Any:
    if isinstance(out, Tensor):
        return out.float() if out.dtype in (torch.bfloat16, torch.float16) else out
    if isinstance(out, tuple):
        parts = [_single_precision(part) for part in out]
        return type(out)(*parts) if hasattr(out, "_fields") else tuple(parts)
    return out


class Bound(Scalars, nn.Module):
    """A program bound to Pyro.

    `model(x, ..., n=None)` and `guide(x, ...)` take the data fields that the program declares, by position or
    by name, and may be given to any
    Pyro tool. Parameters are registered under a name of this object's own, so that two bound programs never
    share any.

    Attributes
    ----------
    program : Program
    fields : tuple of str
        The data fields that the program declares.
    num_data : int or None
        Rows of the whole data set: `model` and `guide` scale a batch up to them, as stock ELBOs want it.
        Within `unscaled()` each row counts once, as NUTS and other samplers want it.
    """

    backend, declared = "pyro", True

    def __init__(self, program: Program, num_data: int | None = None):
        super().__init__()
        self.program, self.num_data, self.fields = program, num_data, data_fields(program)
        self.networks = nn.ModuleDict(
            {name: module(part, name) for name, part in program.networks(NN).items()}
        )
        self.autocast: torch.dtype | None = None
        self.register_buffer("anchor", torch.empty(0), persistent=False)
        self._id, self._scaled, self._guide_networks = f"ppl_vae.{next(_IDS)}", True, set()
        self._calls, self.layouts = Calls(), {}
        self.start_scalars(program)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the networks."""
        return tuple(self.networks)

    @property
    def device(self) -> torch.device:
        """Where the parameters lie."""
        return self.anchor.device

    def model(self, *args: Tensor | None, n: int | None = None, **data: Tensor | None) -> Any:
        """Run the story: with data it scores, without it draws `n` rows."""
        return self._run("model", args, data, n)

    def guide(self, *args: Tensor | None, n: int | None = None, **data: Tensor | None) -> Any:
        """Run the guide on data."""
        return self._run("guide", args, data, n)

    def _run(self, role: str, args: tuple, data: dict[str, Any], n: int | None) -> Any:
        if len(args) > len(self.fields):
            raise ProgramError(
                f"{role} got {len(args)} arrays, the program declares {', '.join(self.fields) or 'no fields'}"
            )
        batch = dict(zip(self.fields, args, strict=False)) | data
        unknown = set(batch) - set(self.fields)
        if unknown:
            raise ProgramError(
                f"{role} got {', '.join(sorted(unknown))}: the program declares {', '.join(self.fields)}"
            )
        if self._scaled and any(True for _ in self.parameters()):
            pyro.module(self._id, self)
        ppl = Primitives(self.anchor, n, self.num_data if self._scaled else None, self.scalars)
        net = Networks(self.networks, self.autocast, self._guide_networks, role == "guide", self._calls)
        return getattr(self.program, role)(ppl, net, **declared(self.program, role, batch))

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Trace with scale 1 and without touching the parameter store, as our own objectives do."""
        before, self._scaled = self._scaled, False
        try:
            yield
        finally:
            self._scaled = before

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        """Trace with scale 1, with networks called as asked."""
        before, self._calls = self._calls, calls
        try:
            with self.unscaled():
                yield
        finally:
            self._calls = before

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        """Return passes over rows in evaluation mode."""
        return at_rest(self, seed, name)

    def tracer(self, seed: int = 0) -> Tracer:
        """Return a Tracer of the present weights."""
        return Tracer(self)

    def put(self, arrays: Any) -> Any:
        """Return nested dicts of arrays of the host on the program's device."""
        return put(arrays, self.device)

    def transform(self, fn: Any) -> Any:
        """Return the bijection from unconstrained numbers to a distribution's support."""
        return biject_to(fn.support)

    def precision(self) -> np.dtype:
        """Return the floating point type of the parameters."""
        return precision_of(self.tensors().values())

    def ensure_parameters(self, batch: Mapping[str, Tensor]) -> None:
        """Do nothing: a declared program has its parameters from the start."""

    def trainable(self) -> list[Tensor]:
        """Return the parameters that an optimizer should see."""
        return list(self.parameters())

    def tensors(self) -> dict[str, Tensor]:
        """Return parameters and buffers by name, as they are."""
        return {name: value.detach() for name, value in self.networks.state_dict().items()}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Set parameters and buffers in place.

        Raises
        ------
        RunError
            Where names or shapes are not the program's.
        """
        try:
            self.networks.load_state_dict(dict(tensors))
        except RuntimeError as error:
            raise RunError(f"the weights do not fit the program: {' '.join(str(error).split())}") from None

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by name, as copies on the host."""
        return {name: value.cpu().numpy().copy() for name, value in self.tensors().items()}

    def load_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set parameters and buffers from arrays; see `load_tensors`."""
        self.load_tensors({name: torch.from_numpy(np.array(value)) for name, value in weights.items()})

    def as_batch(self, item: Any, device: torch.device) -> dict[str, Tensor]:
        """Return what a loader yields as named fields: a dict by name, else in the order that the program
        declares them.
        """
        if not isinstance(item, Mapping):
            parts = item if isinstance(item, (tuple, list)) else (item,)
            item = dict(zip(self.fields, parts, strict=False))
        return {name: to_device(item[name], device) for name in self.fields if name in item}


def precision_of(tensors: Iterable[Tensor]) -> np.dtype:
    """Return the floating point type of the first tensor that has one; without any single precision."""
    kinds = (value.dtype for value in tensors if value.is_floating_point())
    return torch.empty(0, dtype=next(kinds, torch.float32)).numpy().dtype


def to_device(value: Any, device: torch.device) -> Any:
    """Return an array on a device; anything that is no array stays what it is."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def find_device(name: str) -> torch.device:
    """Return a torch device by name: auto, cpu, cuda, cuda:1 ...

    Raises
    ------
    UsageError
        For an unknown name, or a device that this machine lacks.
    """
    kind, _, index = name.partition(":")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UsageError(f"unknown device {name!r}: choose auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device("cpu")


def bind(program: Program, *, num_data: int | None = None, seed: int = 0, device: str = "cpu") -> Bound:
    """Make the program's networks, with weights that depend on `seed` alone, and bind it to Pyro."""
    where = find_device(device)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # torch's own function would seed every GPU too
        return Bound(program, num_data).to(where)
