"""Files that verbs write: whole or absent, and never over one that a person named."""

import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppl_vae.api import Run
from ppl_vae.cli import page
from ppl_vae.cli.running import plain
from ppl_vae.errors import RunError, UsageError


def refuse(path: str | Path | None, overwrite: bool) -> None:
    """Refuse a file that exists, or that cannot be made, before any work is done."""
    if path is None:
        return
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists and is not overwritten: name another file, or add --overwrite")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it first")


def write_npz(path: str | Path, arrays: Mapping[str, np.ndarray]) -> str:
    """Write named arrays as a compressed .npz."""
    return write(path, npz(arrays))


def npz(arrays: Mapping[str, np.ndarray]) -> Callable[[BinaryIO], None]:
    """Return a writer of named arrays."""
    return lambda file: np.savez_compressed(file, **arrays)


def write(path: str | Path, content: Callable[[BinaryIO], Any]) -> str:
    """Write a file under a temporary name and put it into place when it is whole."""
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
        try:
            with os.fdopen(handle, "wb") as file:
                content(file)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise RunError(f"cannot write {path} ({error.strerror or error}): free space or name another file") from error
    return str(path)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_evaluation(run: Run, result: dict[str, Any], per_row: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Keep an evaluation and its bounds of every row in the run's folder, and write its report anew."""
    name = f"evaluation-{result['split']}" + (f"-k{result['k']}" if result["k"] else "")
    if result["data_sha256"] != run.config["data"]["sha256"]:
        name = f"evaluation-{Path(result['data']).stem}-{name.removeprefix('evaluation-')}"
    written = {f"{name}.json": json.dumps(plain(result), indent=1).encode(), f"{name}.npz": npz(per_row)}
    report = page.write(run, written)
    return result | {"out": str(run.folder.path / f"{name}.json"), "report": report}
