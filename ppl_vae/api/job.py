"""A training that can start: a program that fits its data, and all that is decided before the first step."""

import inspect
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae import gallery
from ppl_vae.api import sources
from ppl_vae.api.record import CONFIG, RunRecord
from ppl_vae.api.settings import Settings, settle_binarize
from ppl_vae.backends import backend as backend_named
from ppl_vae.data import Data
from ppl_vae.data.loader import Loader
from ppl_vae.data.loading import opened
from ppl_vae.errors import DataError, UsageError
from ppl_vae.faults import told
from ppl_vae.model_files import ModelSource
from ppl_vae.program import data_fields, needed, refuse_lacking
from ppl_vae.scalars import Plan
from ppl_vae.store import RunFolder
from ppl_vae.training import POSITION, Engine, Rows

LOG = logging.getLogger(__name__)
STARTED = 5000


@dataclass(frozen=True)
class Job:
    """A training."""

    program: Any  # with all shapes set
    data: Data | Loader
    objective: Any  # of ppl_vae, a stock ELBO or a callable
    record: RunRecord
    earlier: RunFolder | None = None  # of the part of the run that this one goes on from
    plan: Plan = field(init=False)  # the named scalars of every step

    def __post_init__(self) -> None:
        if self.record.training.patience is not None and not self.data.num_rows("valid"):
            raise UsageError(
                "patience needs validation rows: hold some out with valid=... of the data, or leave it away"
            )
        # Refuses schedules that are longer than the run.
        plan = Plan(self.record.training, self.objective, self.program, self.total)
        if plan.plateaus and not self.data.num_rows("valid"):
            raise UsageError("lr=plateau:... needs validation rows: hold some out with valid=... of the data")
        object.__setattr__(self, "plan", plan)

    @classmethod
    def new(cls, program: Any, given: Any, chosen: Settings, earlier: RunFolder | None = None) -> "Job":
        """Fit a program to data; with an earlier part of the run, go on with it as far as it computes the
        same.
        """
        before = None if earlier is None else RunRecord.open(earlier)
        data = opened(given, fields_of(program))
        if program.declared:
            # A loader's shapes come from a first batch; its own order is not touched by looking at it.
            sample = data if isinstance(data, Data) else data.first
            refuse_lacking(needed(program), sample.fields)
            with told("the program"):
                program = program.adapted_to(sample)
            program.refuse_open()
        refuse_lost_mask(program, data)
        if isinstance(data, Data):
            data = settle_binarize(program, data, chosen.backend)
            chosen = chosen.for_rows(data.num_rows("train"))
        if before is not None:
            chosen = replace(chosen, compile=_compiled_as(before.compile, chosen.compile, earlier.path))
        record = RunRecord.of(program, data, chosen)
        if before is not None:
            before.refuse_other(record, earlier.path)
            record = replace(record, kept=before.kept)
        return cls(program, data, chosen.objective, record, earlier)

    @classmethod
    def again(
        cls, folder: RunFolder, model_file: Any, data: Any, objective: Any, changes: Mapping[str, Any]
    ) -> "Job":
        """Go on with a run as it is recorded, and record where its files lie now."""
        before = RunRecord.open(folder)
        before = before.going_on(changes, folder.path)
        program = before.made_program(folder.path, model_file)
        record = before.moved(None if model_file is None else program)
        made = before.made_objective(folder.path, objective)
        record = record.moved(objective=None if objective is None else made)
        if data is None:
            dataset = before.data.again()
        else:
            dataset = before.data.same(opened(data, fields_of(program), before.data.kind))
        return cls(program, dataset, made, record, folder)

    def files(self) -> dict[str, bytes]:
        """Return the record and, to read, the sources of model and objective as they were executed."""
        return {CONFIG: self.record.content()} | sources.texts(self.sources)

    @cached_property
    def sources(self) -> dict[str, ModelSource]:
        """The sources of what the run records, and of what has none that could be recorded."""
        record = self.record
        held = {
            "model": (gallery.source_of(self.program), record.program),
            "objective": (sources.objective_source(self.objective), record.objective_file),
            "schedule": (sources.schedule_source(record.training.lr), record.schedule_file),
        }
        return {
            kind: source
            for kind, (source, recorded) in held.items()
            if source is not None and (source.lacking or source.sha256 == (recorded or {}).get("sha256"))
        }

    @cached_property
    def source(self) -> Loader | Rows:
        """Where the batches come from."""
        options = self.record.training
        if isinstance(self.data, Loader):
            return self.data
        return Rows(self.data.num_rows("train"), options.batch_size, options.seed)

    @cached_property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.record.training.total_steps(len(self.source))

    @cached_property
    def train_rows(self) -> dict[str, np.ndarray] | None:
        """The rows to train on, by field; None where a loader gives them."""
        return self.data.train_rows() if isinstance(self.data, Data) else None

    def start(self, bound: Any) -> None:
        """Set the first weights that the data decides, where training begins anew: from no more than STARTED
        rows, evenly spaced.
        """
        begun = self.earlier is not None and POSITION in self.earlier.names()
        if self.train_rows is None or begun:
            return
        step = -(-self.data.num_rows("train") // STARTED)
        rows = {name: values[::step] for name, values in self.train_rows.items() if name in bound.fields}
        bound.start(rows)

    def engine(self, bound: Any) -> Engine:
        """Return what takes the steps on a bound program."""
        return backend_named(self.record.backend).Engine(
            bound,
            self.objective,
            self.record.training,
            train=self.train_rows,
            valid=self.data.rows("valid") if self.data.num_rows("valid") else None,
            num_data=self.data.num_rows("train"),
            dynamic=self.data.binarize == "dynamic",
            compile=self.record.compile,
            steps=self.total,
        )


def fields_of(program: Any) -> tuple[str, ...] | None:
    """Return the fields that a declared program takes of a loader's batches; plain functions take all."""
    return data_fields(program) if program.declared else None


def refuse_lost_mask(program: Any, data: Data | Loader) -> None:
    """Refuse to train on what stands for missing numbers, where the program does not take the mask."""
    if data.roles.get("mask") is None:
        return
    taken = data_fields(program) if program.declared else inspect.signature(program.model).parameters
    if "mask" not in taken:
        name = type(program).__name__ if program.declared else program.name
        raise UsageError(
            f"{name} takes no mask: give its model and guide a parameter mask, for "
            "ppl.mask or a distribution's .mask (of the gallery vae takes one, the others in a copy: ppl-vae "
            "copy), or fill in what is missing"
        )


def _compiled_as(before: str, asked: str, path: Path) -> str:
    """Return how to compile: as an earlier part of the run did, so that it goes on bit by bit."""
    if (before, asked) == ("on", "off"):
        raise UsageError(f"{path} was trained with compile=on: it cannot go on with off (leave compile away)")
    if (before, asked) == ("off", "on"):  # the log said why to what asked for it before
        LOG.warning("%s goes on uncompiled, as it began", path)
    return asked if before == "auto" else before


def refuse_other_data(sha256: str, agree: Callable[[int], int]) -> None:
    """Refuse to train where the processes of a run hold different data; each of them does.

    Parameters
    ----------
    sha256 : str
        Of this process' data.
    agree : callable
        Returns the greatest of a number of each process.

    Raises
    ------
    DataError
    """
    number = int(sha256[:12], 16)
    if agree(number) != -agree(-number):
        raise DataError(
            "the processes of this run have different data: make it the same in each, seeded alike"
        )
