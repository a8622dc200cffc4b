"""One program on one data set: what the rules share."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from ppl_vae.contract.probe import Maker, Probe, ProgramFailure, Seen, Traces
from ppl_vae.contract.reading import Reading
from ppl_vae.data import Data
from ppl_vae.program import PlainProgram, Program

ROWS = 32
# Steps after which layers that start at zero hide nothing.
MOVES, MOVE = 2, 0.05
# A batch of a size that is no other size of the program, so that a wrong axis cannot fit by chance.
SIZES = (7, 11, 13, 5, 9)


@dataclass
class Case:
    """A program, data, and how to bind the one for the other.

    Attributes
    ----------
    program : Program or PlainProgram
    data : Data
    makers : dict of str to Maker
        By backend.
    backend : str
        The one to check; others are for parity.
    seed : int
    """

    program: Program | PlainProgram
    data: Data
    makers: Mapping[str, Maker]
    backend: str
    seed: int = 0

    @property
    def plain(self) -> bool:
        """The program is two plain functions."""
        return not self.program.declared

    def make(self, seed: int, backend: str | None = None) -> Probe:
        """Bind the program anew."""
        maker = self.makers[backend or self.backend]
        return maker(self.program, self.data.fields, self.data.num_rows("train"), seed)

    @cached_property
    def probe(self) -> Probe:
        """The bound program, in evaluation mode."""
        probe = self.make(self.seed)
        probe.train(False)
        return probe

    @cached_property
    def rows(self) -> dict[str, np.ndarray]:
        """Some training rows of the fields that the program uses, as they are scored."""
        count = self.data.num_rows("train")
        index = np.resize(np.random.default_rng(self.seed).permutation(count), ROWS)
        part = {name: values[index] for name, values in self.data.splits["train"].items()}
        ready = replace(self.data, splits={"train": part}).rows("train")
        return {name: ready[name] for name in self.probe.fields if name in ready}

    @cached_property
    def size(self) -> int:
        """Rows of a batch."""
        sizes = {size for name in self.data.fields for size in self.data.shape(name)}
        if not self.plain:
            sizes |= set(
                _whole_numbers([getattr(self.program, field.name) for field in fields(self.program)])
            )
        return next((size for size in SIZES if size not in sizes), SIZES[0])

    def batch(self, size: int | None = None) -> dict[str, np.ndarray]:
        """Return the first rows."""
        return {name: values[: size or self.size] for name, values in self.rows.items()}

    @cached_property
    def traces(self) -> Traces:
        """Guide and model on a batch, in evaluation mode."""
        self.probe.prepare(self.batch())
        return self.probe.trace(self.batch(), self.seed)

    @cached_property
    def wide(self) -> Traces:
        """Guide and model on all rows at hand, in evaluation mode."""
        return self.probe.trace(self.rows, self.seed)

    @cached_property
    def trained(self) -> Traces:
        """Guide and model on a batch, in train mode."""
        with self.mode(train=True) as probe:
            return probe.trace(self.batch(), self.seed)

    def few(self, size: int) -> Traces:
        """Guide and model on the first rows of the batch, with the draws that they had there."""
        if size not in self._few:
            values = {
                name: site.value[:size] if site.local else site.value
                for name, site in self.traces.guide.items()
                if not site.observed
            }
            self._few[size] = self.probe.trace(self.batch(size), self.seed, values)
        return self._few[size]

    @cached_property
    def readings(self) -> dict[str, Reading] | None:
        """The fields that their own density reads; None where the model does not run on changed rows."""
        with self.mode(train=False) as probe:
            for number in range(MOVES):
                probe.parameter_gradients(self.rows, self.seed + number, MOVE)
            try:
                return dict(probe.readings(self.rows, self.seed))
            except ProgramFailure:
                return None

    @cached_property
    def _few(self) -> dict[int, Traces]:
        return {}

    def observed(self) -> dict[str, Seen]:
        """Return the sites of the model that take data."""
        sites = self.traces.model.items()
        return {name: site for name, site in sites if site.observed and not site.factor}

    @contextmanager
    def mode(self, train: bool) -> Iterator[Probe]:
        """Use the probe in a mode, and put parameters, buffers and mode back afterwards."""
        probe, before = self.probe, self.probe.weights()
        probe.train(train)
        try:
            yield probe
        finally:
            probe.train(False)
            probe.load_weights(before)

    def close(self) -> None:
        """Give everything back."""
        if "probe" in self.__dict__:
            self.probe.close()


def _whole_numbers(value: Any) -> Iterator[int]:
    if isinstance(value, int):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _whole_numbers(item)


def differ(a: np.ndarray | None, b: np.ndarray | None, dims: int = 1) -> bool:
    """Tell whether log densities of `dims` numbers each differ: in shape, or beyond single precision."""
    if a is None or b is None or a.shape != b.shape:
        return True
    finite = np.isfinite(a) & np.isfinite(b)
    with np.errstate(invalid="ignore"):
        near = np.abs(a - b) <= 1e-5 * np.maximum(np.maximum(np.abs(a), np.abs(b)), dims)
    return not bool(np.where(finite, near, a == b).all())


def shown(number: float) -> str:
    """Return a number as a message shows it."""
    return f"{number:.4g}" if math.isfinite(number) else str(number)
