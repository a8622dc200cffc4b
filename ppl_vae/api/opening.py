"""A run folder as a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.numpy import load as load_tensors

from ppl_vae import gallery
from ppl_vae.api import sources
from ppl_vae.api.record import RunRecord, history
from ppl_vae.api.run import Run
from ppl_vae.api.saving import WEIGHTS
from ppl_vae.api.signatures import hinting
from ppl_vae.backends import backend as backend_named
from ppl_vae.backends.common.engine import understood
from ppl_vae.data import Data
from ppl_vae.store import RunFolder
from ppl_vae.training import POSITION, Position


@hinting
def open_run(
    path: str | Path,
    *,
    program: Any = None,
    model_file: str | Path | None = None,
    data: Any = None,
    device: str = "cpu",
) -> Run:
    """Open a run folder.

    Parameters
    ----------
    path : path
    program : Program, (model, guide), or name or path of a model file, optional
        To take in place of the recorded one; fields that it leaves open (of a class, all) are as recorded.
    model_file : path, optional
        The model file to execute, where the recorded one is gone or has changed.
    data : Data or arrays, optional
        The data, where it cannot be loaded by its recorded name.
    device : str
        For the weights.

    Raises
    ------
    RunError
        For a damaged or missing run, and weights that do not fit the program.
    """
    folder = RunFolder.open(path)
    record = RunRecord.open(folder)
    given = {}
    if program is None:
        program = record.made_program(folder.path, model_file)
    else:
        program = sources.given_program(program, record.stated, record.backend)
        record, given = record.moved(program), {"model": gallery.source_of(program)}
    bound = make_bound(program, record, device)
    with understood(str(folder.path / WEIGHTS)):
        bound.load_weights(load_tensors(folder.read(WEIGHTS)))
    bound.start_scalars(program, _kept_step(folder, record))
    bound.eval()
    return Run(bound, _data(record, data), record, history(folder), folder, sources=given)


def _kept_step(folder: RunFolder, record: RunRecord) -> int:
    """Return the step that made the chosen weights, from 0 on."""
    if POSITION not in folder.names():
        return 0
    return max(0, Position.read(folder.read(POSITION)).chosen(record.training.keep) - 1)


def _data(record: RunRecord, given: Any) -> Data | Callable[[], Data] | None:
    if given is not None:
        return record.data.as_given(given)
    # Loaded when it is needed: a run can be sampled from without its data.
    return record.data.again if record.data.options else None


def make_bound(program: Any, record: RunRecord, device: str = "cpu") -> Any:
    """Bind a program as a run records it."""
    verbs, rows, seed = backend_named(record.backend), record.data.rows["train"], record.training.seed
    if program.declared:
        return verbs.bind(program, num_data=rows, seed=seed, device=device)
    # A loader's batches are passed on whole, whatever the parameters are called.
    fields = None if record.data.is_loader else tuple(record.data.shapes)
    return verbs.PlainBound(program, fields, rows, seed, device)
