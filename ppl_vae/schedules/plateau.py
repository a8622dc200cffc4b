"""A learning rate that falls where the bound on the validation rows no longer rises."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.schedules.base import Named


@dataclass(frozen=True)
class PlateauState:
    """What a checkpoint holds of a plateau, the text of its schedule first."""

    schedule: str
    value: float
    best: float | None = None
    waited: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.value < math.inf and math.isfinite(self.best or 0) and self.waited >= 0):
            raise UsageError(f"a plateau has no such state: {asdict(self)}")


@dataclass(frozen=True)
class Plateau(Named):
    """A learning rate that is multiplied by `factor` after more than `patience` validations in a row without
    a bound that is better, by more than `threshold`, than the best so far: torch's `ReduceLROnPlateau` with
    mode="max" and threshold_mode="abs".

    Attributes
    ----------
    start : float
        The first rate.
    factor : float
        In (0, 1).
    patience : int
        Counted anew after each reduction.
    threshold : float
        In nats per row.
    minimum : float
        The rate falls no further.
    """

    start: float
    factor: float = 0.1
    patience: int = 10
    threshold: float = 0.0
    minimum: float = 0.0
    text_name = "plateau"

    total = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.factor < 1:
            raise UsageError(f"factor={self.factor}: a plateau multiplies the rate by a number in (0, 1)")
        if self.threshold < 0 or not 0 <= self.minimum <= self.start:
            raise UsageError(
                f"threshold={self.threshold:g}, minimum={self.minimum:g}: a threshold is not negative, a "
                f"minimum lies between 0 and the start, {self.start:g}"
            )

    def __call__(self, step: Any) -> float:
        """Return the rate before any validation."""
        return self.start

    def first(self) -> dict[str, Any]:
        """Return the state before any validation, as a checkpoint holds it."""
        return asdict(PlateauState(str(self), self.start))

    def after(self, state: Mapping[str, Any], bound: float) -> dict[str, Any]:
        """Return the state after a validation with a bound in nats per row; one that is not finite is no
        better.
        """
        best = state["best"]
        if math.isfinite(bound) and (best is None or bound > best + self.threshold):
            return {**state, "best": bound, "waited": 0}
        if state["waited"] < self.patience:
            return {**state, "waited": state["waited"] + 1}
        return {**state, "value": max(state["value"] * self.factor, self.minimum), "waited": 0}
