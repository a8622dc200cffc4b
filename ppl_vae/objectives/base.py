"""What an objective is: a frozen dataclass that says what training asks for and computes it, on any backend.

Evaluation never uses objectives: it always reports the unweighted bound.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from ppl_vae import annotations, checks
from ppl_vae.declaration import refuse_unknown, undecorated
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.schedules import Schedule, as_schedule

SCHEDULE = "schedule"  # the metadata of a field that a step may change


def scheduled(default: Any, least: float = 0.0) -> Any:
    """Declare a field that is a number, a schedule or a schedule's text, and never starts below `least`."""
    return field(default=default, metadata={SCHEDULE: True, "least": least})


class Loss(NamedTuple):
    """A loss to minimise, in nats per row.

    Attributes
    ----------
    value : array
        Minimised by the parameters that belong to no group of their own.
    metrics : dict of str to array
        Numbers to log beside those of the bound.
    others : dict of str to array
        By parameter group: the loss that its parameters alone minimise, in place of `value`.
    """

    value: Any
    metrics: Mapping[str, Any] = {}
    others: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Group:
    """Parameters with a loss, a learning rate or settings of their own.

    Attributes
    ----------
    name : str
        As in `Loss.others`, and in the history: its learning rate is the scalar `lr/<name>`.
    networks : tuple of str
        The program's networks whose parameters belong to it.
    lr : float, str or schedule, optional
        By default that of the run.
    betas, eps, weight_decay : optional
        Of the optimizer; by default those of the run.
    frozen : bool
        No optimizer changes these parameters.
    """

    name: str
    networks: tuple[str, ...]
    lr: Any = None
    betas: tuple[float, float] | None = None
    eps: float | None = None
    weight_decay: float | None = None
    frozen: bool = False

    def settings(self) -> dict[str, Any]:
        """Return the optimizer's settings that are not the run's."""
        given = {name: getattr(self, name) for name in ("betas", "eps", "weight_decay")}
        return {name: value for name, value in given.items() if value is not None}


class Objective:
    """Base of objectives. Subclasses are frozen dataclasses with a method `loss`.

    A field annotated `int` is a number of samples or steps, `float` a number, `bool` a truth value; one made
    with `scheduled(default)` is a number, a schedule or a schedule's text, which `loss` finds in `scalars`.

    Attributes
    ----------
    particles : int
        Draws of the guide per row: the terms of the bound then have the shape [particles, B].
    analytic_kl : bool
        Terms use the closed form of a site's KL where it applies.
    groups : tuple of Group
        Parameter groups, where there is more than one.
    """

    particles: ClassVar[int] = 1
    analytic_kl: ClassVar[bool] = True
    groups: ClassVar[tuple[Group, ...]] = ()

    def loss(self, F: Any, terms: Any, scalars: Mapping[str, Any]) -> Any:
        """Return a number to minimise, in nats per row, or a `Loss`. Abstract.

        Parameters
        ----------
        F : ppl_vae.functions.Functions
            The backend's array functions.
        terms : ppl_vae.backends.common.terms.Terms
            Terms of the bound, per row and per site.
        scalars : dict of str to array
            The values of this step, [] each, of everything that changes with the step.
        """
        raise NotImplementedError(f"{type(self).__name__} declares no loss(self, F, terms, scalars)")

    def __new__(cls, *args: Any, **options: Any) -> "Objective":
        """Raise ProgramError for a class that is no objective, UsageError for an option that it has not."""
        if fault := cls.fault():
            raise ProgramError(fault)
        refuse_unknown(cls, options)
        return super().__new__(cls)

    @classmethod
    def fault(cls) -> str:
        """Return what the class lacks to be an objective, with the remedy; nothing where it is one."""
        if cls.loss is Objective.loss:
            return f"class {cls.__name__} has no loss(self, F, terms, scalars)"
        signature = inspect.signature(cls.loss)
        try:
            signature.bind("self", "F", "terms", "scalars")
        except TypeError:
            return f"class {cls.__name__} has loss{signature}: write loss(self, F, terms, scalars)"
        return undecorated(cls)

    def __post_init__(self) -> None:
        annotations.check(self)
        kinds = annotations.types(type(self))
        for one in fields(self):
            _check_least(one.name, getattr(self, one.name), kinds.get(one.name), one.metadata)

    def schedules(self) -> dict[str, Schedule]:
        """Return what changes with the step, by name."""
        named = (one.name for one in fields(self) if SCHEDULE in one.metadata)
        return {name: as_schedule(getattr(self, name)) for name in named}

    def scalars(self, step: int) -> dict[str, float]:
        """Return the value of each scalar at a step 0, 1, ..."""
        return {name: float(schedule(step)) for name, schedule in self.schedules().items()}

    def check_fits(self, max_steps: int) -> None:
        """Raise UsageError for a schedule that does not end within the run."""
        for schedule in self.schedules().values():
            schedule.check_fits(max_steps)

    def check(self, terms: Any) -> None:
        """Refuse, before training, what this objective cannot estimate, by the name of the site."""


def _check_least(name: str, value: Any, kind: Any, metadata: Mapping[str, Any]) -> None:
    if SCHEDULE in metadata:
        if as_schedule(value)(0) < metadata["least"]:
            raise UsageError(f"{name}={value!r}: {name} must not start below {metadata['least']:g}")
    elif kind is int:
        checks.whole_number(name, value, metadata.get("least", 1), checks.COUNTS)
