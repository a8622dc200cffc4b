"""Everything that changes with the step, by name: learning rates, and what objective and program schedule."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.faults import told
from ppl_vae.options import Training
from ppl_vae.schedules import Plateau, Schedule, as_schedule

RATE, AVERAGE = "lr", "ema"
LOOKED_AT = 20_000  # steps at which a learning rate is looked at before a run: all of most runs


def rate_of(group: str) -> str:
    """Return the name of a parameter group's learning rate; "" is the group of all other parameters."""
    return f"{RATE}/{group}" if group else RATE


def own_schedules(program: Any) -> dict[str, Schedule]:
    """Return what a program schedules: the scalars that its model and guide may read.

    Raises
    ------
    ProgramError
        Where `schedules()` returns no dict.
    UsageError
        Where a value is no schedule.
    """
    with told("the method schedules"):
        schedules = program.schedules()
    if not isinstance(schedules, Mapping):
        raise ProgramError(
            f"{type(program).__name__}.schedules() returns {schedules!r}: return a dict of numbers, "
            "schedules or their texts by name"
        )
    return {name: as_schedule(value) for name, value in schedules.items()}


class Scalars(dict):
    """The scalars of a step, by name."""

    def __missing__(self, name: str) -> Any:
        raise ProgramError(f"there is no scalar {name!r}: the step has {', '.join(self) or 'none'}")


def for_loss(scalars: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scalars that a loss depends on."""
    return {n: value for n, value in scalars.items() if n != AVERAGE and n.partition("/")[0] != RATE}


def _refuse_negative(name: str, schedule: Schedule, max_steps: int) -> None:
    for step in np.unique(np.linspace(0, max(max_steps - 1, 0), LOOKED_AT).astype(int)).tolist():
        value = float(schedule(step))
        if not 0 <= value <= float(np.finfo(np.float32).max):
            raise UsageError(
                f"{name} is {value:g} at step {step}: learning rates are finite and not negative"
            )


def _refuse_plateaus(schedules: Mapping[str, Any]) -> None:
    for name, schedule in schedules.items():
        if isinstance(schedule, Plateau):
            raise UsageError(f"{name}: the schedule {schedule} is for learning rates alone; choose another")


class Plan:
    """The named scalars of a run.

    `lr` and `lr/<group>` are learning rates; `ema` is the weight of a step in the average of the weights,
    such that the average is that of the steps taken, without the first weights (the correction of
    arXiv:1412.6980, section 3).

    Parameters
    ----------
    options : Training
    objective : Objective, or any other
    program : Program or PlainProgram
    max_steps : int
        Length of the run; a schedule that does not end within it is refused.

    Attributes
    ----------
    plateaus : dict of str to dict
        The states of learning rates that depend on the bound, by scalar: part of a checkpoint.
    """

    def __init__(self, options: Training, objective: Any, program: Any, max_steps: int):
        groups = [group for group in getattr(objective, "groups", ()) if not group.frozen]
        rates = {rate_of(group.name): group.lr for group in groups if group.lr is not None}
        self._schedules: dict[str, Schedule] = {
            rate_of(group.name): as_schedule(options.lr) for group in groups
        } | {name: as_schedule(value) for name, value in ({RATE: options.lr} | rates).items()}
        self._ema = options.ema
        for name, schedule in self._schedules.items():
            _refuse_negative(name, schedule, max_steps)
        for group in groups:
            replace(options, **group.settings())  # refuses settings that make no sense
        own = own_schedules(program)
        _refuse_plateaus(own | getattr(objective, "schedules", dict)())
        self._objective: Callable[[int], dict[str, float]] = getattr(objective, "scalars", lambda step: {})
        theirs = self._objective(0)
        for whose, names, others in (("objective", theirs, ()), ("program", own, theirs)):
            for name in names:
                if name == AVERAGE or name.partition("/")[0] == RATE or name in others:
                    raise UsageError(f"the {whose} schedules {name!r}, which the run does too: rename it")
        self._schedules |= own
        for schedule in self._schedules.values():
            schedule.check_fits(max_steps)
        self.plateaus = {name: one.first() for name, one in self._plateaus().items()}
        if hasattr(objective, "check_fits"):
            objective.check_fits(max_steps)

    def at(self, step: int) -> dict[str, float]:
        """Return every scalar's value at a step 0, 1, ..."""
        values = {name: float(schedule(step)) for name, schedule in self._schedules.items()}
        values |= {name: state["value"] for name, state in self.plateaus.items()}
        values |= self._objective(step)
        if self._ema is not None:
            values[AVERAGE] = (1 - self._ema) / (1 - self._ema ** (step + 1))
        return values

    def _plateaus(self) -> dict[str, Plateau]:
        return {name: one for name, one in self._schedules.items() if isinstance(one, Plateau)}

    def go_on(self, plateaus: Mapping[str, Mapping[str, Any]]) -> None:
        """Take the states of learning rates from a checkpoint; one of another schedule starts anew."""
        for name, before in plateaus.items():
            if name in self.plateaus and self.plateaus[name]["schedule"] == before["schedule"]:
                self.plateaus[name] = dict(before)

    def validated(self, bound: float) -> dict[str, dict[str, Any]]:
        """Tell learning rates of a bound on the validation rows, in nats per row; return their states."""
        for name, schedule in self._plateaus().items():
            self.plateaus[name] = schedule.after(self.plateaus[name], bound)
        return dict(self.plateaus)

    def table(self, steps: Sequence[int]) -> dict[str, np.ndarray]:
        """Return every scalar's values at some steps, [steps] each."""
        with told("a schedule"):
            rows = [self.at(step) for step in steps]
        return {name: np.array([row[name] for row in rows]) for name in rows[0]}
