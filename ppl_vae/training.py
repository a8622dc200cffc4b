"""The training loop, the same for every backend: epochs, history, validation, early stopping, checkpoints.

A backend gives an Engine, which runs optimizer steps; this loop decides which ones and what is saved.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppl_vae.data.batches import batches, num_batches, order
from ppl_vae.diagnostics.evidence import Scores, robust_mean, summary
from ppl_vae.errors import DataError, RunError
from ppl_vae.options import Training
from ppl_vae.position import POSITION, Position
from ppl_vae.scalars import Plan

# What a row of the history tells of the validation rows.
VALIDATED = ("elbo_nats", "elbo_stderr", "rate_nats", "distortion_nats", "bits_per_dim")
LOOK_EVERY = 50  # steps, at least, between looks at the parameters of distributions
CHOICE = "elbo_robust_nats"  # by which weights are chosen, where one row would decide the bound

LOG = logging.getLogger(__name__)


class Advance(NamedTuple):
    """How many steps an engine took, and the means of their metrics."""

    steps: int
    metrics: dict[str, float]


class Engine(Protocol):
    """What the loop needs of a backend; what is given here holds for one process.

    Attributes
    ----------
    rank : int
        Which of the processes of a run this is; the first (0) alone writes.
    compile : str
        How steps are computed: on or off, from the first one on; auto before.
    """

    rank: int = 0
    compile: str = "auto"

    def start(self) -> None:
        """Start the other processes, where there are any."""

    def agree(self, number: int) -> int:
        """Return the greatest of a number of each process."""
        return number

    def advance(
        self, items: Sequence[Any], scalars: Mapping[str, np.ndarray], stop: Callable[[], bool]
    ) -> Advance:
        """Take one optimizer step for each item (row numbers, or a batch); may return early once `stop()` is
        true.

        Parameters
        ----------
        items : sequence
        scalars : dict of str to [len(items)]
            The value of each named scalar at each step; see `ppl_vae.scalars.Plan`.
        stop : callable
        """

    def finite(self) -> bool:
        """Tell whether all weights and buffers are finite numbers: one transfer from the device."""

    def outside(self, items: Sequence[Any]) -> str:
        """Say which parameter of a distribution lies outside its constraint for one of the last items, "" if
        none does: one pass, and one transfer from the device.
        """

    def scores(self) -> Scores | None:
        """Return the terms of the unweighted bound of every validation row, under the averaged weights where
        there are any; None without validation rows.
        """

    def select(self) -> None:
        """Remember the present weights as the ones to keep."""

    def chosen(self) -> dict[str, np.ndarray]:
        """Return the selected weights, else the present (averaged) ones, by name."""

    def finish(self, selected: bool) -> None:
        """Put the selected (else the last, averaged) weights into the bound program."""

    def state(self) -> dict[str, Any]:
        """Return files (name -> bytes or writer) from which `restore` goes on bit by bit."""

    def restore(self, read: Callable[[str], bytes]) -> None:
        """Go on from what `state` returned."""


class Source(Protocol):
    """Where an engine's items come from."""

    def __len__(self) -> int:
        """Return the number of batches per epoch."""

    def epoch(self, number: int, start: int) -> Iterator[Any]:
        """Yield the items of an epoch, from batch `start` on."""


@dataclass(frozen=True)
class Rows:
    """Batches of row numbers of data in memory: a function of seed and epoch."""

    rows: int
    batch_size: int
    seed: int

    def __len__(self) -> int:
        return num_batches(self.rows, self.batch_size)

    def epoch(self, number: int, start: int = 0) -> Iterator[np.ndarray]:
        """Yield row numbers, [batch]."""
        for index, rows in enumerate(batches(order(self.seed, number, self.rows), self.batch_size)):
            if index >= start:
                yield rows


@dataclass
class Loop:
    """One training run.

    Attributes
    ----------
    engine, source, options
        What runs, on what, how.
    plan : Plan
        The named scalars of every step.
    emit : callable
        Gets (event, position, row): "log", "valid", "checkpoint" or "end".
    stop : callable
        True once the run should end after the present step; the same for all processes of a run.
    save : callable or None
        Writes a group of files at once.
    levels : int or None
        Grey levels of the data, for bits per dimension.
    position, history
        Where the run stands, and the rows so far: moved and added to.
    """

    engine: Engine
    source: Source
    options: Training
    plan: Plan
    emit: Callable[[str, Position, dict[str, Any]], None]
    stop: Callable[[], bool]
    save: Callable[[Mapping[str, Any]], None] | None = None
    levels: int | None = None
    position: Position = field(default_factory=Position)
    history: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.total = self.options.total_steps(len(self.source))
        self._warned, self._looked = False, 0
        self.plan.go_on(self.position.plateaus)

    def run(self) -> Position:
        """Train to the end, or to where it is stopped; leave the chosen weights in the bound program."""
        started, before = time.perf_counter(), self.position.seconds
        self._saved, first, self.position.total = started, self.position.step, self.total
        while self.position.step < self.total and not self.stop() and not self.position.done:
            start = self.position.step
            for chunk in self._chunks():
                done = self._advance(chunk)
                self.position.seconds = before + time.perf_counter() - started
                if done and self._at_validation():
                    self._validate()
                self._checkpoint(force=False)
                if done < len(chunk) or self.stop() or self.position.done:
                    break
            if self.position.step == start and not self.stop():
                raise DataError(f"the loader has {len(self.source)} batches by its length but yields fewer")
        if self.position.step > first:
            self._end(before + time.perf_counter() - started)
        self.emit("end", self.position, {})
        return self.position

    def _end(self, seconds: float) -> None:
        interrupted = self.position.step < self.total and not self.position.done
        self.position.done, self.position.seconds = not interrupted, seconds
        self._checkpoint(force=True)
        self.engine.finish(selected=self.position.best_step is not None and self.options.keep == "best")

    def _chunks(self) -> Iterator[list[Any]]:
        """Cut the rest of the epoch where a row of the history ends: the cuts depend on the step alone, so a
        resumed run has the same.
        """
        epoch, start = divmod(self.position.step, len(self.source))
        step, chunk = self.position.step, []
        for item in self.source.epoch(epoch, start):
            chunk.append(item)
            step += 1
            if step % self.options.log_every == 0 or step == self.total:
                yield chunk
                chunk = []
            if step == self.total:
                return
        if chunk:
            yield chunk

    def _advance(self, chunk: list[Any]) -> int:
        first = self.position.step
        scalars = self.plan.table(range(first, first + len(chunk)))
        started = time.perf_counter()
        done, metrics = self.engine.advance(chunk, scalars, self.stop)
        if done:
            epoch = (first + done - 1) // len(self.source)
            row = {"step": first + done, "epoch": epoch, "split": "train"} | metrics
            row |= {name: float(values[done - 1]) for name, values in scalars.items()}
            row["seconds"] = time.perf_counter() - started
            self.position.step += done
            self._record("log", row)
            self._refuse_not_finite(metrics.get("loss", 0.0))
            self._refuse_outside(chunk[:done])
        return done

    def _refuse_not_finite(self, loss: float) -> None:
        """Stop before weights that are no numbers are validated or written."""
        if math.isfinite(loss) and self.engine.finite():
            return
        site = "; check names a site that is so from the start" if self.position.step < LOOK_EVERY else ""
        what = "weights are no longer finite" if math.isfinite(loss) else f"the loss became {loss}"
        raise RunError(
            f"{what} by step {self.position.step}: lower lr=..., or set clip_norm=...{site}{self._stays()}"
        )

    def _refuse_outside(self, items: list[Any]) -> None:
        """Stop where a distribution got a parameter that it cannot have, looked for now and then."""
        if self.position.step - self._looked < LOOK_EVERY and self.position.step < self.total:
            return
        self._looked = self.position.step
        if said := self.engine.outside(items):
            raise RunError(f"{said}, by step {self._looked}{self._stays()}")

    def _stays(self) -> str:
        return "" if self.save is None else "; the last checkpoint stays, resume=True may lower the lr"

    def _at_validation(self) -> bool:
        step, every = self.position.step, self.options.valid_every * len(self.source)
        return step % every == 0 or step == self.total

    def _validate(self) -> None:
        scores = self.engine.scores()
        if scores is None:
            return
        numbers = summary(scores, self.levels)
        (value, said), position = robust_mean(scores.elbo), self.position
        if said and not self._warned:
            LOG.warning(said)
            self._warned = True
        if math.isfinite(value) and (position.best is None or value > position.best):
            position.best, position.best_step, position.waited = value, position.step, 0
            self.engine.select()
        else:
            position.waited += 1
            position.done = self.options.patience is not None and position.waited >= self.options.patience
        position.plateaus = self.plan.validated(value)
        epoch = (position.step - 1) // len(self.source)
        row = {"step": position.step, "epoch": epoch, "split": "valid"} | ({CHOICE: value} if said else {})
        self._record("valid", row | {name: numbers[name] for name in VALIDATED})

    def _record(self, event: str, row: dict[str, Any]) -> None:
        self.history.append(row)
        self.emit(event, self.position, row)

    def _checkpoint(self, force: bool) -> None:
        if self.save is None or not (
            force or time.perf_counter() - self._saved >= self.options.checkpoint_every
        ):
            return
        self.save(self.engine.state() | {POSITION: self.position.to_bytes()})
        self._saved = time.perf_counter()
        self.emit("checkpoint", self.position, {})
