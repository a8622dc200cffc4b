"""Schedules that are functions of the step.

A step is a number of the host; a compiled loop takes the values of its steps as a table. `Linear` and
`Cyclical` also accept arrays with a `clip` method.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass
from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.schedules.base import Named, as_text, count, number


@dataclass(frozen=True)
class Constant(Named):
    """One value at every step."""

    value: float
    text_name = "constant"

    total = 0

    def __call__(self, step: Any) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(Named):
    """A straight line from `start` at step 0 to `end` at step `steps`, then constant: a warm-up.

    References
    ----------
    Sonderby et al., arXiv:1602.02282 (warm-up of the KL weight).
    """

    start: float
    end: float
    steps: int
    text_name = "linear"

    def __call__(self, step: Any) -> Any:
        return _between(self.start, self.end, _unit(step / self.steps))


@dataclass(frozen=True)
class Cyclical(Named):
    """`cycles` equal cycles within `steps` steps, each a line from `start` to `end` and then a rest there.

    Attributes
    ----------
    ratio : float
        The part of a cycle that rises, in (0, 1].

    References
    ----------
    Fu et al. 2019, arXiv:1903.10145 (with steps counted from 0).
    """

    start: float
    end: float
    steps: int
    cycles: int = 4
    ratio: float = 0.5
    text_name = "cyclical"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.ratio <= 1:
            raise UsageError(f"ratio={self.ratio}: the rising part of a cycle lies in (0, 1]")

    def __call__(self, step: Any) -> Any:
        # The remainder is taken in whole numbers, so that no cycle starts a rounding late.
        cycle = (step * self.cycles % self.steps) / self.steps
        over = _unit(1.0 * (step - self.steps + 1))
        return _between(self.start, self.end, _unit(cycle / self.ratio + over))


@dataclass(frozen=True)
class Cosine(Named):
    """Half a cosine from `start` to `end`, at `steps`, after a linear rise from 0 over `warm_up` steps.

    References
    ----------
    Loshchilov & Hutter, arXiv:1608.03983, eq. 5 (one period).
    """

    start: float
    end: float
    steps: int
    warm_up: int = 0
    text_name = "cosine"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.warm_up >= self.steps:
            raise UsageError(f"warm_up={self.warm_up}: must be shorter than the {self.steps} steps in all")

    def __call__(self, step: Any) -> float:
        part = _unit((step - self.warm_up) / (self.steps - self.warm_up))
        rise = _unit(step / self.warm_up) if self.warm_up else 1.0
        return rise * _between(self.end, self.start, 0.5 * (1.0 + math.cos(math.pi * part)))


@dataclass(frozen=True)
class StepTable(Named):
    """A staircase: `values[i]` from step `boundaries[i - 1]` on, until before `boundaries[i]`.

    Attributes
    ----------
    values : tuple of float
        One more than there are boundaries.
    boundaries : tuple of int
        Rising steps.
    """

    values: tuple[float, ...]
    boundaries: tuple[int, ...]
    text_name = "table"

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", tuple(number("value", v) for v in self.values))
        object.__setattr__(self, "boundaries", tuple(count("boundary", b, 1) for b in self.boundaries))
        if len(self.values) != len(self.boundaries) + 1:
            raise UsageError("a table of steps has one value more than boundaries")
        if any(b <= a for a, b in zip(self.boundaries, self.boundaries[1:], strict=False)):
            raise UsageError(f"boundaries={self.boundaries}: the boundaries of a table must rise")

    @property
    def total(self) -> int:
        """The last boundary (0 where there is none)."""
        return self.boundaries[-1] if self.boundaries else 0

    def __call__(self, step: Any) -> float:
        return self.values[bisect_right(self.boundaries, step)]

    def __str__(self) -> str:
        pairs = zip(self.values, self.boundaries, strict=False)
        parts = [*(part for pair in pairs for part in pair), self.values[-1]]
        return ":".join(["table", *map(as_text, parts)])


def iwae_table(steps_per_pass: int, start: float = 1e-3, stages: int = 8) -> StepTable:
    """Return the IWAE paper's learning rate: start * 10**(-i / 7) for 3**i passes, i = 0, 1, ...

    Parameters
    ----------
    steps_per_pass : int
        Steps in a pass over the training data.
    start : float
        The rate of the first stage.
    stages : int
        8 stages are the paper's 3280 passes.

    References
    ----------
    Burda, Grosse & Salakhutdinov, arXiv:1509.00519, section 5.
    """
    per_pass, several = count("steps_per_pass", steps_per_pass, 1), count("stages", stages, 1)
    rate = number("start", start)
    ends = [per_pass * (3 ** (i + 1) - 1) // 2 for i in range(several - 1)]
    return StepTable(tuple(rate * 10 ** (-i / 7) for i in range(several)), tuple(ends))


def _unit(x: Any) -> Any:
    return x.clip(0.0, 1.0) if hasattr(x, "clip") else min(1.0, max(0.0, x))


def _between(start: float, end: float, part: Any) -> Any:
    return start * (1.0 - part) + end * part  # exact at both ends
