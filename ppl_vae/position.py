"""Where a run stands, as a file of every checkpoint."""

import json
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ppl_vae import annotations
from ppl_vae.errors import RunError, UsageError
from ppl_vae.schedules import PlateauState

POSITION = "position.json"


@dataclass
class Position:
    """Where a run stands; saved with every checkpoint."""

    step: int = 0
    best: float | None = None
    best_step: int | None = None
    waited: int = 0
    seconds: float = 0.0
    done: bool = False
    total: int | None = None
    plateaus: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def read(cls, content: bytes) -> "Position":
        """Return what `to_bytes` gave.

        Raises
        ------
        RunError
            For anything else, also for what a later version added.
        """
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise RunError(f"{POSITION} is no JSON ({error}): restore it from a copy of the run") from None
        position = cls(**annotations.recorded(cls, values, POSITION))
        if unknown := values.keys() - annotations.types(cls).keys():
            raise RunError(f"{POSITION} has {min(unknown)!r}, of a newer ppl_vae: upgrade ppl_vae")
        if min(position.step, position.waited, position.best_step or 0, position.total or 0) < 0:
            raise RunError(f"{POSITION} counts below 0: restore it from a copy of the run")
        for name, state in position.plateaus.items():
            place = f"{POSITION}: plateaus: {name}"
            try:
                PlateauState(**annotations.recorded(PlateauState, state, place))
            except UsageError as error:
                raise RunError(f"{place}: {error}: restore it from a copy of the run") from None
        return position

    def to_bytes(self) -> bytes:
        """Return the position as a file of a checkpoint."""
        return json.dumps(asdict(self)).encode()

    def chosen(self, keep: str) -> int:
        """Return the number of steps after which the weights were taken that a run ends with."""
        return self.best_step if keep == "best" and self.best_step is not None else self.step

    def going_on(self, total: int, patience: int | None) -> "Position":
        """Return where a run of so many steps goes on: one that has ended does where it was given more steps,
        or, if it stopped early, more patience.
        """
        longer = self.total is not None and total > self.total
        patient = self.step < total and (patience is None or self.waited < patience)
        return replace(self, done=self.done and not (longer or patient))
