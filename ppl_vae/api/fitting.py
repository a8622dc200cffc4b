"""`fit`: from a program, data and an objective to a run, in memory or in a folder."""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from tqdm import tqdm

from ppl_vae import data as data_sets
from ppl_vae import gallery
from ppl_vae.api import board, recorded
from ppl_vae.api.folders import CHANGES, earlier_folder, recorded_compile, run_folder
from ppl_vae.api.loaders import Loader, described, is_loader
from ppl_vae.api.run import CONFIG, WEIGHTS, Run, make_bound
from ppl_vae.api.signals import stop_request
from ppl_vae.backends import backend as backend_named
from ppl_vae.data import Data
from ppl_vae.errors import PplVaeError, ProgramError, UsageError
from ppl_vae.objectives import ELBO
from ppl_vae.options import Training
from ppl_vae.program import PlainProgram, Program
from ppl_vae.store import RunFolder, read_config, write_config
from ppl_vae.training import Loop, Position, Rows

LOG = logging.getLogger(__name__)
Callback = Callable[[str, Mapping[str, Any]], None]


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
        A progress bar; by default on a terminal.
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
    options = Training(**_known(training))
    program = program_of(program)
    backend = backend or program.backends[0]
    recorded.check_backend(program, backend)
    recorded.check_compile(compile, backend)
    objective = recorded.make_objective(ELBO() if objective is None else objective, backend)
    loader = Loader(data) if is_loader(data) else None
    found = described(loader) if loader else data_of(data)
    found, program = _fitted(program, found, loader)
    source = loader or Rows(found.num_rows("train"), options.batch_size, options.seed)
    if not loader:
        options.batches(found.num_rows("train"))
    earlier = earlier_folder(out) if resume and out is not None else None
    compile = recorded_compile(earlier, compile)
    config = recorded.configuration(program, found, objective, options, backend, compile)
    run = Run(make_bound(program, config), found, config)
    loop = _loop(run, source, objective, options)
    made, run.rank = False, loop.engine.rank
    if out is None and (resume or tensorboard):
        raise UsageError("resume and tensorboard need a run folder: give out=...")
    if run.rank:
        return _follows(run, loop, earlier)
    if out is not None:
        run.folder, made = run_folder(Path(out), config, program, earlier)
    try:
        return _trained(run, loop, resume, list(callbacks), progress, tensorboard)
    except Exception:
        if made and not loop.position.step:
            run.folder.clear()
        raise


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
        epochs, max_steps, patience, checkpoint_every, device, devices or log_every: what leaves the steps as
        they are.
    """
    fixed = sorted(set(_known(changes)) - {*CHANGES, "log_every"})
    if fixed:
        raise UsageError(f"{fixed[0]} of a run cannot change: start another one, in another folder")
    folder = RunFolder.open(out)
    config = read_config(folder.read(CONFIG))
    program = recorded.program_of(config, folder.path, model_file)
    options = recorded.training_of(config, _known(changes))
    loader = Loader(data) if is_loader(data) else None
    given = described(loader) if loader else data
    found = recorded.data_of(config) if given is None else recorded.same_data(config, data_sets.of(given))
    objective = recorded.objective_of(config, folder.path, objective)
    config["training"] |= changes
    run = Run(make_bound(program, config), found, config)
    source = loader or Rows(found.num_rows("train"), options.batch_size, options.seed)
    loop = _loop(run, source, objective, options)
    run.rank = loop.engine.rank
    if run.rank:
        return _follows(run, loop, folder)
    run.folder = folder
    return _trained(run, loop, True, list(callbacks), progress, tensorboard)


def _known(training: Mapping[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(Training)}
    unknown = sorted(set(training) - known)
    if unknown:
        raise UsageError(f"fit has no option {unknown[0]!r}: it takes {', '.join(sorted(known))}")
    return dict(training)


def program_of(given: Any) -> Program | PlainProgram:
    """Return a program from what a user may give: itself, its class, (model, guide), a name or a path."""
    if isinstance(given, (str, Path)):
        return gallery.load(given)
    if isinstance(given, tuple) and len(given) == 2:
        return PlainProgram(*given)
    if isinstance(given, type) and issubclass(given, Program):
        return given()
    if not isinstance(given, (Program, PlainProgram)):
        raise ProgramError(
            f"{given!r} is no program: give a Program, a pair (model, guide), or a name or path"
        )
    return given


def data_of(given: Any) -> Data:
    """Return data from what a user may give: itself, arrays, a table, a name or a path."""
    return data_sets.load(given) if isinstance(given, (str, Path)) else data_sets.of(given)


def _fitted(program: Any, found: Data, loader: Loader | None) -> tuple[Data, Any]:
    if isinstance(program, PlainProgram):
        return recorded.settle_binarize(program, found), program
    if loader is not None:
        # Shapes come from a first batch; the loader's own order is not touched by looking at it.
        found, adapted = replace(found, binarize="none"), program.adapted_to(loader.shapes(program))
    else:
        found, adapted = recorded.settle_binarize(program, found), program.adapted_to(found)
    adapted.refuse_open()
    return found, adapted


def _loop(run: Run, source: Any, objective: Any, options: Training) -> Loop:
    found, in_memory = run.data, isinstance(source, Rows)
    if options.patience is not None and not (in_memory and found.num_rows("valid")):
        raise UsageError("patience needs validation rows: hold some out with valid=..., or leave it away")
    engine = backend_named(run.config["backend"]).Engine(
        run.bound,
        objective,
        options,
        train=found.train_rows() if in_memory else None,
        valid=found.rows("valid") if in_memory and found.num_rows("valid") else None,
        num_data=found.num_rows("train") if in_memory else source.rows,
        dynamic=found.binarize == "dynamic",
        compile=run.config["compile"],
        steps=options.total_steps(len(source)),
    )
    return Loop(engine, source, objective, run.program, options, emit=lambda *_: None, levels=found.levels)


def _trained(
    run: Run, loop: Loop, resume: bool, callbacks: list[Callback], progress: bool | None, tensorboard: bool
) -> Run:
    folder = run.folder
    if folder is None:
        loop.engine.start()
        return _run_loop(run, loop, callbacks, progress)
    with folder.lock():
        loop.engine.start()
        if tensorboard:
            callbacks.append(board.writer_to(folder.path / "tensorboard"))
        if resume:
            step = _resumed(loop, folder)
            LOG.info("going on from step %d", step)
            folder.write({CONFIG: write_config(run.config)})  # once the checkpoint is known to be whole
            folder.truncate_metrics(step)

        def save(files: Mapping[str, Any]) -> None:
            run.config["compile"] = loop.engine.compile
            own = {CONFIG: write_config(run.config), WEIGHTS: save_tensors(loop.engine.kept())}
            folder.write(dict(files) | own)

        loop.save = save
        return _run_loop(run, loop, callbacks, progress)


def _follows(run: Run, loop: Loop, earlier: RunFolder | None) -> Run:
    """Train as one of several processes of which another one writes."""
    loop.engine.start()
    try:
        if earlier is not None:
            _resumed(loop, earlier)
        return _run_loop(run, loop, [], progress=False, earlier=earlier)
    except PplVaeError as error:  # the first process meets it too, and tells it
        raise SystemExit(error.exit_code) from None


def _resumed(loop: Loop, folder: RunFolder) -> int:
    """Go on from a folder's checkpoint, if it has one; returns the step."""
    return loop.resume(folder.read, folder.metrics()) if "position.json" in folder.names() else 0


def _run_loop(
    run: Run,
    loop: Loop,
    callbacks: list[Callback],
    progress: bool | None,
    earlier: RunFolder | None = None,
) -> Run:
    shown = sys.stderr.isatty() if progress is None else progress
    with (
        stop_request(loop.engine.agree) as stop,
        tqdm(total=loop.total, initial=loop.position.step, disable=not shown, unit="step") as bar,
    ):

        def emit(event: str, position: Position, row: dict[str, Any]) -> None:
            if run.folder is not None and row:
                run.folder.append_metrics(row)
            bar.update(position.step - bar.n)
            if row:
                bar.set_postfix_str(f"{row['split']} {row.get('elbo_nats', float('nan')):.2f} nats")
            for callback in callbacks:
                callback(event, {"position": position, "row": row, "run": run})

        loop.emit, loop.stop, run.history = emit, stop, loop.history
        run.earlier_seconds, first = loop.position.seconds, loop.position.step
        loop.run()
        folder = run.folder or earlier
        if loop.position.step == first and folder is not None and WEIGHTS in folder.names():
            # Nothing was left to do: the kept weights are those of the folder.
            run.bound.load_weights(load_tensors(folder.read(WEIGHTS)))
            run.bound.eval()
        run.bound.start_scalars(run.program, max(0, loop.position.kept(loop.options.keep) - 1))
        loop.engine.agree(0)  # what a script does next finds everything written
    run.history, run.config["compile"] = loop.history, loop.engine.compile
    run.stopped_by = stop.signal.name if stop.signal is not None and not loop.position.done else None
    return run
