"""`fit` and `resume`: from a program, data and an objective to a run, in memory or in a folder."""

import logging
import shutil
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ppl_vae import bars
from ppl_vae.api import board, sources
from ppl_vae.api.job import Job, refuse_other_data
from ppl_vae.api.opening import make_bound
from ppl_vae.api.record import CHANGES, CONFIG, RunRecord, history
from ppl_vae.api.run import Run
from ppl_vae.api.saving import WEIGHTS
from ppl_vae.api.settings import Settings, program_of
from ppl_vae.api.signals import stop_request
from ppl_vae.api.signatures import taking
from ppl_vae.data import Data
from ppl_vae.errors import PplVaeError, RunError, UsageError
from ppl_vae.options import Training
from ppl_vae.progress import heard_by
from ppl_vae.stopping import Present
from ppl_vae.store import RunFolder
from ppl_vae.training import POSITION, Engine, Loop, Position

LOG = logging.getLogger(__name__)
Callback = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Shown:
    """Who hears how a training stands."""

    callbacks: Iterable[Callback] = ()
    progress: bool | None = None
    tensorboard: bool = False


@taking(Training)
def fit(
    program: Any,
    data: Any,
    objective: Any = None,
    *,
    backend: str | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    tensorboard: bool = False,
    compile: str = "auto",
    **training: Any,
) -> Run:
    """Train a program by stochastic variational inference.

    Parameters
    ----------
    program : Program, (model, guide), or name or path of a model file
        Plain functions keep their own modules: a second fit of the same pair goes on with their weights.
    data : Data, array, dict of arrays, DataFrame, DataLoader, or name or path
    objective : ELBO, IWAE, a stock ELBO of the backend, a callable, or text
        By default ELBO().
    backend : str
        pyro or numpyro; by default the program's first.
    out : path, optional
        The run folder. Without it nothing is written.
    resume : bool
        Go on with the run in `out`.
    callbacks : iterable of callables
        Each is called with (event, state): event is log, valid, checkpoint or end, state holds position, row
        and run.
    progress : bool, optional
        A progress bar; by default on a terminal and in a notebook.
    tensorboard : bool
        Also write TensorBoard logs into the run folder.
    compile : str
        on: Pyro's step becomes one compiled graph, which takes seconds to minutes to make; off: not; auto: on
        where the number of steps and the size of the graph say that it saves more than it takes
        (`ppl_vae.backends.pyro.compiling.earns`), on any machine alike. A run folder records what auto
        decided. Compiled code draws other noise from the same seed. On NumPyro steps are always compiled.
    **training
        The fields of `ppl_vae.options.Training`: epochs, max_steps, batch_size, lr, seed, device, precision
        ...

    Returns
    -------
    Run
        Ctrl-C ends training after the present step (on several devices of Pyro: after the present row of the
        history) and returns the run as far as it got.
    """
    program = program_of(program, backend)
    chosen = Settings.of(program, objective, backend, compile, **training)
    return start(program, data, chosen, out, resume, Shown(callbacks, progress, tensorboard))


def start(
    program: Any,
    data: Any,
    chosen: Settings,
    out: str | Path | None = None,
    resume: bool = False,
    shown: Shown = Shown(),
) -> Run:
    """Do what `fit` says, with a program and settings as they were made."""
    if out is None and (resume or shown.tensorboard):
        raise UsageError("resume and tensorboard need a run folder: give out=...")
    return _trained(Job.new(program, data, chosen, _earlier_folder(out) if resume else None), out, shown)


@taking(Training, (*CHANGES, "log_every"))
def resume(
    out: str | Path,
    *,
    model_file: str | Path | None = None,
    callbacks: Iterable[Callback] = (),
    progress: bool | None = None,
    tensorboard: bool = False,
    data: Any = None,
    objective: Any = None,
    **changes: Any,
) -> Run:
    """Go on with an interrupted run, bit by bit as if it had not been interrupted (on a loader: where its
    order is the same again).

    Parameters
    ----------
    out : path
        The run folder, which records everything else.
    model_file, data
        As for `open_run`.
    objective : objective, optional
        The one that the run was started with, where its record is not enough: a callable.
    **changes
        What leaves the steps that were taken as they are.
    """
    folder = RunFolder.open(out)
    job = Job.again(folder, model_file, data, objective, changes)
    return _trained(job, out, Shown(callbacks, progress, tensorboard))


def _trained(job: Job, out: str | Path | None, shown: Shown) -> Run:
    """Train, as the only process or as one of several, of which the first alone writes and tells."""
    bound = make_bound(job.program, job.record)
    job.start(bound)
    engine = job.engine(bound)
    if engine.rank:
        try:
            return _Session(job, bound, engine, None, Shown(progress=False)).run()
        except PplVaeError as error:  # the first process meets it too, and tells it
            raise SystemExit(error.exit_code) from None
    folder = job.earlier
    if folder is None and out is not None:
        folder = _new_folder(out, job)
    try:
        if folder is not None and job.earlier is None:
            folder.write(job.files())
        return _Session(job, bound, engine, folder, shown).run()
    except Exception:
        if folder is not None and job.earlier is None:
            _remove_refused(folder, shown.tensorboard)
        raise


def _remove_refused(folder: RunFolder, tensorboard: bool) -> None:
    """Leave nothing of a run that was refused before its first step; a run that was begun stays."""
    with suppress(RunError, OSError), folder.lock():
        if folder.metrics() or POSITION in folder.names():
            return
        if tensorboard:
            shutil.rmtree(folder.path / board.FOLDER, ignore_errors=True)
        folder.remove()


def _earlier_folder(out: str | Path) -> RunFolder | None:
    """Return the folder of a run to go on with, where it got as far as its first write."""
    if not (Path(out) / "manifest.json").exists():
        return None
    folder = RunFolder.open(out)
    return folder if CONFIG in folder.names() else None


def _new_folder(out: str | Path, job: Job) -> RunFolder:
    """Start a run folder for a job, whose sources are kept."""
    sources.keep(job.sources, out, ", or train without a run folder")
    return RunFolder.create(out, "go on with it with resume=True, or ")


@dataclass(frozen=True)
class _Session:
    """One process of a training, from its start to its end."""

    job: Job
    bound: Any
    engine: Engine
    folder: RunFolder | None  # where this process writes
    shown: Shown

    def run(self) -> Run:
        """Train, and return the run as far as it got."""
        callbacks = list(self.shown.callbacks)
        with nullcontext() if self.folder is None else self.folder.lock():
            self.engine.start()
            refuse_other_data(self.job.data.sha256, self.engine.agree)
            if self.shown.tensorboard:
                callbacks.append(board.writer_to(self.folder.path / board.FOLDER))
            position, rows = self._begun()
            if self.folder is not None and self.job.earlier is not None:
                LOG.info("going on from step %d", position.step)
                # Once the checkpoint is known to be whole.
                self.folder.write(self.job.files())
                self.folder.truncate_metrics(position.step)
            given = self.job.data if isinstance(self.job.data, Data) else None
            run = Run(
                self.bound, given, self.job.record, rows, self.folder,
                earlier_seconds=position.seconds, rank=self.engine.rank, position=position,
                sources=self.job.sources,
            )  # fmt: skip
            return self._looped(run, position, callbacks)

    def _begun(self) -> tuple[Position, list[dict[str, Any]]]:
        """Return where training begins, and the history up to there; the engine goes on from a checkpoint."""
        folder = self.job.earlier
        if folder is None or POSITION not in folder.names():
            return Position(), []
        position = Position.read(folder.read(POSITION))
        if position.step:
            sources.refuse_without_checkpoint(folder)
            folder.refuse_lost_metrics()
        rows = [row for row in history(folder) if row["step"] <= position.step]
        self.engine.restore(folder.read)
        return position.going_on(self.job.total, self.job.record.training.patience), rows

    def _looped(self, run: Run, position: Position, callbacks: list[Callback]) -> Run:
        job, engine, first = self.job, self.engine, position.step
        with (
            stop_request(engine.agree) as stop,
            bars.training(job.total, first, self.shown.progress) as bar,
            heard_by(None),
        ):
            options = job.record.training
            Loop(
                engine,
                job.source,
                options,
                job.plan,
                emit=_told(run, bar, callbacks),
                stop=stop,
                save=None if self.folder is None else self._save,
                levels=job.data.levels,
                position=position,
                history=run.history,
            ).run()
            folder = self.folder or job.earlier
            if position.step == first and folder is not None and WEIGHTS in folder.names():
                # Nothing was left to do: the chosen weights are those of the folder.
                self.bound.load_weights(load_tensors(folder.read(WEIGHTS)))
                self.bound.eval()
            self.bound.start_scalars(run.program, max(0, position.chosen(options.keep) - 1))
            engine.agree(0)  # what a script does next finds everything written
        run.record = self._record()
        run.stopped_by = stop.signal.name if stop.signal is not None and not position.done else None
        return run

    def _record(self) -> RunRecord:
        """Return the record with what was decided about compilation."""
        return replace(self.job.record, compile=self.engine.compile)

    def _save(self, files: Mapping[str, Any]) -> None:
        own = {CONFIG: self._record().content(), WEIGHTS: save_tensors(self.engine.chosen())}
        self.folder.write(dict(files) | own)


def _told(
    run: Run, bar: bars.Told, callbacks: list[Callback]
) -> Callable[[str, Position, dict[str, Any]], None]:
    """Return what the loop tells of a run, for its folder, the bar and the callbacks."""
    bits = run.record.data.binarize == "dynamic" and not run.history

    def emit(event: str, position: Position, row: dict[str, Any]) -> None:
        nonlocal bits
        if bits and not run.rank:
            LOG.info("grey levels of x are the chances of bits, drawn anew at every step (binarize=...)")
        bits = False
        if event == "log":
            Present.compiling = False  # there are steps to save
        if run.folder is not None and row:
            run.folder.append_metrics(row)
        bar(position.step, row)
        for callback in callbacks:
            callback(event, {"position": position, "row": row, "run": run})

    return emit
