"""What the bound programs of all backends have in common."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ppl_vae.errors import ProgramError
from ppl_vae.schedules import as_schedule

PARAMETERS_OUTSIDE = (
    "the parameters of two plain functions lie outside of any module and cannot be held constant: declare a "
    "Program, or use another objective"
)


class Scalars:
    """A base that holds what changes with the step, by name: the program's own, and the objective's.

    Attributes
    ----------
    scalars : dict of str to number or array
        The values that guide and model see now.
    """

    scalars: Mapping[str, Any]

    def start_scalars(self, program: Any, step: int = 0) -> None:
        """Set the program's own scalars to their values at a step."""
        self.scalars = {name: float(as_schedule(value)(step)) for name, value in program.schedules().items()}

    def hold(self, scalars: Mapping[str, Any]) -> None:
        """Keep the values of the program's own scalars among those of a step."""
        self.scalars = {name: float(scalars[name]) for name in self.scalars}

    @contextmanager
    def at(self, scalars: Mapping[str, Any]) -> Iterator[None]:
        """Run guide and model at these values."""
        before, self.scalars = self.scalars, {**self.scalars, **scalars}
        try:
            yield
        finally:
            self.scalars = before


def named_scalar(scalars: Mapping[str, Any], name: str) -> Any:
    """Return a scalar by its name; refuses unknown ones.

    Raises
    ------
    ProgramError
    """
    if name not in scalars:
        raise ProgramError(
            f"there is no scalar {name!r}: the program's schedules() and the objective give "
            f"{', '.join(scalars) or 'none'}"
        )
    return scalars[name]
