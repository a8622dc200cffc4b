"""A run in memory, or another folder's, as a run folder."""

from pathlib import Path
from typing import Any

from safetensors.numpy import save as save_tensors

from ppl_vae.api import sources
from ppl_vae.api.record import CONFIG
from ppl_vae.position import POSITION
from ppl_vae.store import RunFolder, metrics

WEIGHTS = "weights.safetensors"


def save(run: Any, path: str | Path) -> RunFolder:
    """Write a run into a new folder; see `Run.save`."""
    files = {} if run.folder is None else {name: run.folder.read(name) for name in run.folder.names()}
    if run.folder is None or run.sources:
        sources.keep(run.sources, path)
        files |= {CONFIG: run.record.content()} | sources.texts(run.sources)
    if run.folder is None:
        files[WEIGHTS] = save_tensors(run.bound.weights())
        if run.position is not None:
            files[POSITION] = run.position.to_bytes()
    folder = RunFolder.create(path)
    with folder.lock():
        try:
            metrics.write(folder.path / metrics.NAME, run.history)
            folder.write(files)
        except BaseException:
            folder.remove()
            raise
    return folder
