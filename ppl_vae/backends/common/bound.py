"""A program bound to a backend: a declared one, whose `model` and `guide` are ordinary functions of the
backend's library.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np

from ppl_vae.backends.common.calls import Calls, NetworkCall, Networks
from ppl_vae.backends.common.primitives import Primitives
from ppl_vae.backends.common.scored import Scored
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.errors import ProgramError
from ppl_vae.faults import told
from ppl_vae.functions import Functions
from ppl_vae.networks import Network
from ppl_vae.networks.base import started
from ppl_vae.program import Program, data_fields, required, taken
from ppl_vae.scalars import own_schedules


class Bound:
    """A program bound to a backend: what training, the verbs and the check need of it.

    Attributes
    ----------
    backend : str
    declared : bool
        It is a Program, which promises to keep leading axes and to draw without data; else two functions.
    registered : str
        How a network becomes part of it, for messages.
    keeps : bool
        It keeps the weights of networks that are no part of it, as they are.
    program : Program or PlainProgram
    fields : tuple of str
        The data's fields that it takes.
    num_data : int or None
        Rows of the whole data set.
    autocast : dtype or None
        Precision of the products within networks; probabilities stay in single precision.
    scalars : dict of str to number or array
        What changes with the step, by name: the values that guide and model see now.
    layouts : dict
        Where the axes of its sites lie, as read before.
    supports : dict
        Which sites observe which fields of the data, as read before.
    readings : dict
        Which fields their own likelihood reads, as found before.
    loops : bool
        Several particles are run one after the other: it takes no plate of them.
    apart : frozenset of str
        Plates in the place of that over the rows which are others, as the last run of both showed.
    """

    backend: str
    declared: bool
    keeps = False
    registered: str
    scalars: Mapping[str, Any]
    broken_plate: Callable[[BaseException], str | None]  # what site does not fit, from the library's error

    def __init__(self, program: Any, fields: tuple[str, ...], num_data: int | None):
        super().__init__()
        self.program, self.fields, self.num_data = program, fields, num_data
        self.autocast: Any = None
        self.layouts: dict[Any, Any] = {}
        self.supports: dict[Any, Any] = {}
        self.readings: dict[Any, Any] = {}
        self.apart: frozenset[str] = frozenset()
        self.loops = False
        self.start_scalars(program)

    def start_scalars(self, program: Any, step: int = 0) -> None:
        """Set the program's own scalars to their values at a step."""
        self.scalars = {name: float(schedule(step)) for name, schedule in own_schedules(program).items()}

    def hold(self, scalars: Mapping[str, Any]) -> None:
        """Set the program's own scalars to their values among those of a step."""
        self.scalars = {name: float(scalars[name]) for name in self.scalars}

    @contextmanager
    def at(self, scalars: Mapping[str, Any]) -> Iterator[None]:
        """Run guide and model at the values of the program's own scalars among those of a step."""
        before = self.scalars
        self.scalars = {name: scalars.get(name, value) for name, value in before.items()}
        try:
            yield
        finally:
            self.scalars = before

    def unscaled(self) -> AbstractContextManager:
        """Run guide and model with scale 1, where the program does not scale its sites itself."""
        return nullcontext()

    def calling(self, calls: Calls) -> AbstractContextManager:
        """Run guide and model with declared networks called as asked."""
        return nullcontext()

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        """Return passes over rows in evaluation mode, on noise of a seed, or of a stream of that name of the
        seed.
        """
        raise NotImplementedError

    def tracer(self, seed: int = 0) -> Tracer:
        """Return a Tracer of the present weights."""
        raise NotImplementedError

    def reached(self, function: Callable[..., Any], rows: Arrays) -> Any:
        """Return the names of the rows that each of the arrays depends on which a function of a Tracer and
        rows returns, in their place, or some more; None where that is not known without values.
        """
        return None

    def gradients(self, *arrays: Any) -> AbstractContextManager:
        """Return a context within passes that records gradients where one of the arrays asks for them now."""
        return nullcontext()

    def among(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return, of rows by field, the fields that the program takes; after training two functions on a
        loader all.
        """
        return {name: rows[name] for name in self.fields if name in rows}

    def validating(self) -> AbstractContextManager:
        """Let distributions know whether they check their values."""
        return nullcontext()

    def put(self, arrays: Any) -> Any:
        """Return nested dicts of arrays of the host on the program's device."""
        raise NotImplementedError

    def transform(self, fn: Any) -> Any:
        """Return the library's bijection from unconstrained numbers to a distribution's support."""
        raise NotImplementedError

    def precision(self) -> np.dtype:
        """Return the floating point type of the parameters."""
        raise NotImplementedError

    def start(self, rows: Arrays) -> None:
        """Set the first weights that data decides: none of two functions."""

    def ensure_parameters(self, batch: Mapping[str, Any]) -> None:
        """Make every parameter exist, where the first run of guide and model does."""

    def unregistered(self) -> list[str]:
        """Return the networks that model and guide name and whose weights are none of this program's, or are
        not trained though they are not frozen; once there are parameters, in their first state.
        """
        raise NotImplementedError

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by name, as copies on the host."""
        raise NotImplementedError

    def load_weights(self, weights: Arrays) -> None:
        """Set parameters and buffers from arrays.

        Raises
        ------
        RunError
            Where names or shapes are not the program's.
        """
        raise NotImplementedError

    @property
    def added(self) -> tuple[str, ...]:
        """The names of weights that earlier versions did not have; see `ppl_vae.networks.Network.added`."""
        return ()

    def completed(self, weights: Arrays, present: Callable[[], Arrays]) -> dict[str, Any]:
        """Return weights by name, those that earlier versions did not have as they are now."""
        lacking = [name for name in self.added if name not in weights]
        return {**weights, **({name: present()[name] for name in lacking} if lacking else {})}

    def _array(self, value: Any) -> Any:
        """Return one array of what a loader yields, as the backend takes it."""
        raise NotImplementedError


class DeclaredBound(Bound):
    """A Program bound to a backend.

    `model(x, ..., n=None)` and `guide(x, ...)` take the data fields that the program declares, by position or
    by name, and may be given to any tool of the library.

    Attributes
    ----------
    num_data : int or None
        Rows of the whole data set: `model` and `guide` scale a batch up to them, as stock ELBOs want it.
        Within `unscaled()` each row counts once, as NUTS and other samplers want it.
    parts : dict of str to network, or nested lists of them
        The networks, as the backend holds them.
    calls : Calls
        How guide and model run now.
    written : set of str
        Networks that the guide has called.
    axes : dict of str to dict
        Of networks that hold foreign modules: how many axes their arguments have without particles.
    """

    declared = True
    registered = "return it from networks()"
    parts: Mapping[str, Any]
    F: Functions

    def __init__(self, program: Program, num_data: int | None = None):
        super().__init__(program, data_fields(program), num_data)
        self.calls, self.written = Calls(scaled=True), set()
        self.axes: dict[str, dict[int, set[int]]] = {}
        self._taken = {role: taken(program, role) for role in ("model", "guide")}
        self._required = {role: required(program, role) for role in ("model", "guide")}

    def network_call(self, part: Any, frozen: bool) -> NetworkCall:
        """Return one of the networks of `parts` as a function, for one run of guide or model; `frozen`:
        statistics and codebooks stay as they are.
        """
        raise NotImplementedError

    def declared_networks(self) -> Iterator[tuple[str, Network]]:
        """Yield every declared network, those within others too, with what its weights' names begin with."""
        raise NotImplementedError

    @property
    def added(self) -> tuple[str, ...]:
        return tuple(f"{place}.{name}" for place, one in self.declared_networks() for name in one.added)

    def start(self, rows: Arrays) -> None:
        """Set the first weights that data decides; see `ppl_vae.networks.Network.start`."""
        networks = list(self.declared_networks())
        if any(type(network).start is not Network.start for _, network in networks):
            self.load_weights(started(self.weights(), networks, Scored.by(self, rows).rows_of))

    def primitives(self, draws: int | None, num_data: int | None) -> Primitives:
        """Return what guide or model gets as `ppl`."""
        raise NotImplementedError

    def model(self, *args: Any, n: int | None = None, **data: Any) -> Any:
        """Run the model: with data it scores, without it draws `n` rows."""
        return self._run("model", args, data, n)

    def guide(self, *args: Any, n: int | None = None, **data: Any) -> Any:
        """Run the guide on data."""
        return self._run("guide", args, data, n)

    def _run(self, role: str, args: tuple, data: dict[str, Any], n: int | None) -> Any:
        batch = self._named(role, args, data)
        ppl = self.primitives(n, self.num_data if self.calls.scaled else None)
        if self.calls.made is not None:
            ppl.note(self.calls.made)
        rows = next((array.shape[0] for array in batch.values() if array is not None), n)
        net = Networks(self, writes=role == "guide", rows=rows)
        with told(f"the {role}", self.broken_plate):
            return getattr(self.program, role)(ppl, net, **self.taken(role, batch))

    def taken(self, role: str, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a batch that `model` or `guide` declares."""
        for name in self._required[role]:
            if name not in batch:
                raise ProgramError(f"it takes {name!r}: give it with the rows")
        return {name: batch[name] for name in self._taken[role] if name in batch}

    def _named(self, role: str, args: tuple, data: dict[str, Any]) -> dict[str, Any]:
        known = ", ".join(self.fields) or "no fields"
        if len(args) > len(self.fields):
            raise ProgramError(f"{role} got {len(args)} arrays, the program declares {known}")
        if any(isinstance(given, Mapping) for given in args):
            raise ProgramError(f"{role} got a dict: give its arrays by name, as {role}(**rows)")
        batch = dict(zip(self.fields, args, strict=False)) | data
        unknown = set(batch) - set(self.fields)
        if unknown:
            raise ProgramError(f"{role} got {', '.join(sorted(unknown))}: the program declares {known}")
        return batch

    def unscaled(self) -> AbstractContextManager:
        """Run guide and model with scale 1, as the project's own objectives do."""
        return self.calling(replace(self.calls, scaled=False))

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        before, self.calls = self.calls, calls
        try:
            yield
        finally:
            self.calls = before

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return a batch of a `data.loader.Loader` of the program's fields on the device."""
        return {name: self._array(item[name]) for name in self.fields if name in item}
