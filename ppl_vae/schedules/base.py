"""What a schedule is, and the checks and the text form that the library's own share."""

import math
from dataclasses import fields
from typing import Any, ClassVar, Protocol, runtime_checkable

from ppl_vae.errors import UsageError

MAY_BE_ZERO = ("warm_up", "patience")


@runtime_checkable
class Schedule(Protocol):
    """What the trainer needs: a value for each step and a refusal of runs that are too short."""

    def __call__(self, step: Any) -> Any:
        """Return the value at a step."""

    def check_fits(self, max_steps: int) -> None:
        """Raise UsageError where the run ends before the schedule does."""


class Named:
    """Checks and the text form."""

    text_name: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type is int:
                value = count(field.name, value, 0 if field.name in MAY_BE_ZERO else 1)
            elif field.type is float:
                value = number(field.name, value)
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
        return ":".join([self.text_name, *(as_text(getattr(self, field.name)) for field in fields(self))])


def as_text(value: float) -> str:
    """Return a number as a schedule's text holds it."""
    return repr(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))


def number(name: str, value: Any) -> float:
    """Return a finite number; refuse all else by its name."""
    try:
        if not isinstance(value, (bool, str)) and math.isfinite(value):
            return float(value)
    except (TypeError, ValueError):
        pass
    raise UsageError(f"{name} must be a finite number, not {value!r}")


def count(name: str, value: Any, least: int) -> int:
    """Return a whole number of at least `least`; refuse all else by its name."""
    given = number(name, value)
    if given != int(given) or given < least:
        raise UsageError(f"{name}={given:g}: must be a whole number of at least {least}")
    return int(given)
