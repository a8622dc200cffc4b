"""What the bound programs of all backends have in common."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.scalars import own_schedules


class Bound:
    """A program bound to a backend: what training, the verbs and the check need of it.

    Attributes
    ----------
    backend : str
    declared : bool
        It is a Program, which promises to keep leading axes and to draw without data; else two functions.
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
    """

    backend: str
    declared: bool
    scalars: Mapping[str, Any]

    def __init__(self, program: Any, fields: tuple[str, ...], num_data: int | None):
        super().__init__()
        self.program, self.fields, self.num_data = program, fields, num_data
        self.autocast: Any = None
        self.layouts: dict[Any, Any] = {}
        self.start_scalars(program)

    def start_scalars(self, program: Any, step: int = 0) -> None:
        """Set the program's own scalars to their values at a step."""
        self.scalars = {name: float(schedule(step)) for name, schedule in own_schedules(program).items()}

    def hold(self, scalars: Mapping[str, Any]) -> None:
        """Keep the values of the program's own scalars among those of a step."""
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

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        """Return passes over rows in evaluation mode, on noise of a seed, or of a stream of that name of the
        seed.
        """
        raise NotImplementedError

    def tracer(self, seed: int = 0) -> Tracer:
        """Return a Tracer of the present weights."""
        raise NotImplementedError

    def gradients(self, *arrays: Any) -> AbstractContextManager:
        """Return a context within passes that records gradients where one of the arrays asks for them now."""
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

    def ensure_parameters(self, batch: Mapping[str, Any]) -> None:
        """Make every parameter exist, where the first run of guide and model does."""
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

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return what a loader yields as arrays by name."""
        raise NotImplementedError

    def _array(self, value: Any) -> Any:
        """Return one array of what a loader yields, as the backend takes it."""
        raise NotImplementedError


def listed(item: Any) -> list[Any]:
    """Return the arrays of a loader's item in order, whatever holds them."""
    if isinstance(item, Mapping):
        return list(item.values())
    return list(item) if isinstance(item, (tuple, list)) else [item]
