"""What a backend gives: runs of guide and model as sites, and passes over rows."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ppl_vae.backends.common.site import Pair, Trace
from ppl_vae.functions import Functions

Arrays = Mapping[str, np.ndarray]


class Tracer(Protocol):
    """Runs a bound program's guide and model, each site under scale 1 of its rows.

    `particles` draws per row are a plate left of the program's own `depth` batch axes. `values` replace
    draws, by site.
    """

    F: Functions
    bound: Any

    def pair(
        self, batch: Any, particles: int = 1, depth: int = 1, values: Mapping[str, Any] | None = None
    ) -> Pair:
        """Run the guide, and the model at its draws; a network is computed once for the same arguments."""

    def guide(
        self,
        batch: Any,
        *,
        values: Mapping[str, Any] | None = None,
        centres: bool = False,
        particles: int = 1,
        depth: int = 1,
    ) -> Trace:
        """Run the guide alone; with `centres` a latent takes the centre of its distribution."""

    def model(
        self,
        batch: Any,
        *,
        values: Mapping[str, Any] | None = None,
        n: int | None = None,
        centres: bool = False,
        redraw: bool = False,
        particles: int = 1,
        depth: int = 1,
    ) -> Trace:
        """Run the model alone: on a batch, or without the fields that it observes for `n` rows; `redraw`
        draws what it observes anew, at the same covariates.
        """

    def unfinished(self) -> Trace:
        """Return the sites of the last run of guide or model alone, as far as it got."""

    def gradient(self, function: Callable[..., Any], arrays: Mapping[str, Any], aux: bool = False) -> Any:
        """Return the gradient of a number by each of its arrays, by name; with `aux` the function returns an
        array beside the number, and so does this.
        """


class Passes(Protocol):
    """Passes over rows: in evaluation mode, without gradients, on a stream of noise of their own.

    Functions get a Tracer and arrays of the device; what they return comes back as arrays of the host.
    """

    def __call__(
        self, name: Any, function: Callable[..., Any], *arrays: Any, stream: tuple[int, ...] | None = None
    ) -> Any:
        """Run a function.

        Parameters
        ----------
        name : hashable
            Stands for the function and for all that it closes over: it is compiled once for each name.
        function : callable
            Called with (tracer, *arrays).
        *arrays : nested dicts of arrays
        stream : tuple of int, optional
            Names the noise; by default the next of these passes.
        """

    def stage(self, number: int) -> None:
        """Start the noise of the first (0) or the second (1) of two kinds of passes."""

    def described(self, function: Callable[..., Any], *arrays: Any) -> None:
        """Run a function for what it tells its surroundings about shapes and sites; noise is untouched."""

    def chunks(self, rows: Any, most: int) -> Iterator[tuple[Any, int | None]]:
        """Yield batches of at most `most` rows, or a loader's as they are, and how many of the rows count."""

    def importance(self, rows: Any, samples: int, at_once: int, most: int, compile: bool) -> np.ndarray:
        """Return the importance weighted bound of every row in nats, [N]."""


class Bound(Protocol):
    """What the verbs need of a bound program.

    Attributes
    ----------
    declared : bool
        It is a Program, which promises to keep leading axes and to draw without data; else two functions.
    fields : tuple of str
        The data's fields that it takes.
    """

    backend: str
    declared: bool
    fields: tuple[str, ...]
    program: Any
    num_data: int | None

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        """Return passes on noise of a seed, or of a stream of that name of the seed."""

    def precision(self) -> np.dtype:
        """Return the floating point type of its parameters."""

    def tracer(self, seed: int) -> Tracer:
        """Return a Tracer of the present weights."""

    def put(self, arrays: Any) -> Any:
        """Return nested dicts of arrays of the host on the program's device."""

    def transform(self, fn: Any) -> Any:
        """Return the library's bijection from unconstrained numbers to a distribution's support."""
