"""What the engines of all backends are made of."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from ppl_vae import training
from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.constraints import said
from ppl_vae.backends.common.supports import refuse_outside_rows
from ppl_vae.backends.common.tracing import Arrays
from ppl_vae.errors import PplVaeError, ProgramError, RunError
from ppl_vae.options import Training

LOG = logging.getLogger(__name__)


def shapes_of(batch: Mapping[str, Any]) -> list[Any]:
    """Return the shapes of the arrays of a batch; None of what is no array."""
    return [getattr(value, "shape", None) for value in batch.values()]


@contextmanager
def understood(name: str) -> Iterator[None]:
    """Say which file of a checkpoint it was that whoever takes it up stumbled over; it may be anybody's.

    Raises
    ------
    RunError
    """
    try:
        yield
    except PplVaeError:
        raise
    except Exception as error:
        cause = " ".join(str(error).split()) or type(error).__name__
        raise RunError(f"{name} cannot be read ({cause}): restore it from a copy of the run") from None


class Engine(training.Engine):
    """Optimizer steps on a bound program; see `ppl_vae.training.Engine` for what each method promises.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : objective of ppl_vae, ELBO of the library, or callable
    options : Training
    train : dict of arrays, or None
        Rows to train on, moved to the device at once. None: items are batches themselves.
    valid : dict of arrays, or None
        Rows to validate on.
    num_data : int
        Rows of the training set.
    dynamic : bool
        Draw new bits of `x` at every step.
    compile : str
        Capture and compile the step on Pyro: on, off, or auto, if it is worth while. On NumPyro every step is
        compiled.
    steps : int
        Steps to come, for auto.
    """

    def __init__(
        self,
        bound: Bound,
        objective: Any,
        options: Training,
        *,
        train: Arrays | None = None,
        valid: Arrays | None = None,
        num_data: int,
        dynamic: bool = False,
        compile: str = "off",
        steps: int = 0,
    ):
        self.bound, self.options, self.valid, self.dynamic = bound, options, valid, dynamic
        self.compile, self.steps, self.num_data = compile, steps, num_data
        bound.num_data = num_data
        # Two functions take their fields by position: in the order in which they name them.
        rows = None if train is None else {name: train[name] for name in bound.fields if name in train}
        self._unseen = train
        self._shapes: list[Any] = []  # of the first batch
        self._set_up(objective, rows)

    def _refuse_unkept(self) -> None:
        """Refuse networks that model or guide use and the run would not keep; warn of those that nothing
        trains.
        """
        names = self.bound.unregistered()
        if names:
            said = f"nothing trains {', '.join(map(repr, names))}, which model or guide use"
            if not self.bound.keeps:
                raise ProgramError(f"{said}, and the run would not keep its weights: {self.bound.registered}")
            LOG.warning("%s: %s", said, self.bound.registered)

    def _refuse_rows(self) -> None:
        """Refuse rows that the likelihood cannot have made, once before the first step."""
        taken, self._unseen = self._unseen, None
        for rows, split in ((taken, "train"), (self.valid, "valid")):
            if rows:
                drawn = ("x",) if self.dynamic and split == "train" else ()
                refuse_outside_rows(self.bound, rows, f" ({split})", drawn, error=ProgramError)

    def outside(self, items: Sequence[Any]) -> str:
        # Batches of the first one's shape: others would be compiled anew.
        for item in items[:-3:-1]:
            batch = self.batch(item)
            if self.dynamic:
                batch = batch | {"x": self.loss.F.round(batch["x"])}
            if shapes_of(batch) == self._shapes:
                self.bound.eval()
                return said(self.loss.outside(batch))
        return ""

    def _set_up(self, objective: Any, train: Mapping[str, Any] | None) -> None:
        """Make what the steps need."""
        raise NotImplementedError
