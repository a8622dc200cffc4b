"""Numbers that change with the step (learning rates, weights): a schedule maps a step 0, 1, ... to a value.

A step is a number of the host; a compiled loop takes the values of its steps as a table. `Linear` and
`Cyclical` also accept arrays with a `clip` method.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, runtime_checkable

from ppl_vae.errors import UsageError


@runtime_checkable
class Schedule(Protocol):
    """What the trainer needs: a value for each step and a refusal of runs that are too short."""

    def __call__(self, step: Any) -> Any:
        """Return the value at a step."""

    def check_fits(self, max_steps: int) -> None:
        """Raise UsageError where the run ends before the schedule does."""


class _Schedule:
    """Checks and the text form."""

    text_name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                value = _count(field.name, value, 0 if field.name == "warm_up" else 1)
            elif field.type is float:
                value = _number(field.name, value)
            object.__setattr__(self, field.name, value)

    @property
    def total(self) -> int:
        """The step from which on the value is constant."""
        return self.steps

    def check_fits(self, max_steps: int) -> None:
        """Raise UsageError where the run ends before the schedule does."""
        if self.total > max_steps:
            raise UsageError(
                f"the schedule {self} takes {self.total} steps, longer than the run of {max_steps} steps: "
                "shorten the schedule or train longer"
            )

    def __str__(self) -> str:
        return ":".join([self.text_name, *(_text(getattr(self, field.name)) for field in fields(self))])


@dataclass(frozen=True)
class Constant(_Schedule):
    """One value at every step."""

    value: float
    text_name = "constant"

    total = 0

    def __call__(self, step: Any) -> float:
        return self.value


@dataclass(frozen=True)
class Linear(_Schedule):
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
class Cyclical(_Schedule):
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
class Cosine(_Schedule):
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
class StepTable(_Schedule):
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
        object.__setattr__(self, "values", tuple(_number("value", v) for v in self.values))
        object.__setattr__(self, "boundaries", tuple(_count("boundary", b, 1) for b in self.boundaries))
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
        return ":".join(["table", *(_text(part) for pair in pairs for part in pair), _text(self.values[-1])])


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
    per_pass, count = _count("steps_per_pass", steps_per_pass, 1), _count("stages", stages, 1)
    rate = _number("start", start)
    ends = [per_pass * (3 ** (i + 1) - 1) // 2 for i in range(count - 1)]
    return StepTable(tuple(rate * 10 ** (-i / 7) for i in range(count)), tuple(ends))


def as_schedule(value: Any) -> Schedule:
    """Return a schedule from a number, a schedule or a text.

    Texts are `0.5`, `constant:0.5`, `linear:START:END:STEPS`, `cosine:START:END:STEPS[:WARM_UP]`,
    `cyclical:START:END:STEPS[:CYCLES[:RATIO]]`, `table:VALUE:STEP:VALUE[:STEP:VALUE ...]` and
    `iwae:STEPS_PER_PASS[:START[:STAGES]]`.

    Raises
    ------
    UsageError
        For anything else, and for values that make no sense.
    """
    if isinstance(value, str):
        return _read(value)
    if isinstance(value, Schedule) and not isinstance(value, type):
        return value
    if callable(value):
        raise UsageError(
            f"a {type(value).__name__} is no schedule: {_FORMS}, or give an object with __call__(step) and "
            "check_fits(max_steps)"
        )
    return Constant(_number("a schedule", value))


def text_of(value: Any) -> str:
    """Return the text from which `as_schedule` makes an equal schedule; for an object that no text gives,
    `<CLASS>`, which `as_schedule` refuses.
    """
    text = str(value)
    try:
        known = isinstance(value, str) or as_schedule(text) == as_schedule(value)
    except UsageError:
        known = False
    return text if known else f"<{type(value).__name__}>"


def _read(text: str) -> Schedule:
    if text.startswith("<"):
        raise UsageError(f"the schedule {text} was an object of a class of Python: give it again")
    name, *parts = text.strip().split(":")
    if not parts:
        name, parts = "constant", [name]
    maker = _MAKERS.get(name)
    if maker is None:
        raise UsageError(f"unknown schedule {text!r}: {_FORMS}")
    try:
        return maker(*map(float, parts))
    except UsageError as error:
        raise UsageError(f"schedule {text!r}: {error}") from None
    except (TypeError, ValueError):
        raise UsageError(f"cannot read the schedule {text!r}: {_FORMS}") from None


def _table(*parts: float) -> StepTable:
    return StepTable(parts[::2], parts[1::2])


_MAKERS = {kind.text_name: kind for kind in (Constant, Linear, Cosine, Cyclical)}
_MAKERS |= {"table": _table, "iwae": iwae_table}
_FORMS = (
    "write a number, linear:0:1:1000, cosine:1e-3:1e-5:20000, cyclical:0:1:20000:4:0.5, "
    "table:1e-3:5000:1e-4 or iwae:500"
)


def _unit(x: Any) -> Any:
    return x.clip(0.0, 1.0) if hasattr(x, "clip") else min(1.0, max(0.0, x))


def _between(start: float, end: float, part: Any) -> Any:
    return start * (1.0 - part) + end * part  # exact at both ends


def _text(value: float) -> str:
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def _number(name: str, value: Any) -> float:
    try:
        if not isinstance(value, (bool, str)) and math.isfinite(value):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise UsageError(f"{name} must be a finite number, not {value!r}")


def _count(name: str, value: Any, least: int) -> int:
    number = _number(name, value)
    if number != int(number) or number < least:
        raise UsageError(f"{name}={number:g}: must be a whole number of at least {least}")
    return int(number)
