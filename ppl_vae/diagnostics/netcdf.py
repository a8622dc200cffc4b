"""A posterior's tree for ArviZ, and as a NetCDF file."""

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae.errors import DataError, UsageError
from ppl_vae.store.disk import publish

if TYPE_CHECKING:
    import xarray as xr


def to_arviz(tree: "xr.DataTree") -> Any:
    """Return the tree as ArviZ's `InferenceData`; the tree itself under ArviZ 1.x, which works on trees."""
    import arviz

    return arviz.InferenceData.from_datatree(tree) if hasattr(arviz, "InferenceData") else tree


def to_netcdf(tree: "xr.DataTree", path: str | os.PathLike, *, overwrite: bool = False) -> Path:
    """Write a tree to a NetCDF file, wholly or not at all.

    `arviz.from_netcdf` and `xarray.open_datatree` read it.

    Parameters
    ----------
    tree : xarray.DataTree
    path : path
    overwrite : bool
        Replace a file that lies there.

    Returns
    -------
    pathlib.Path
        Where it lies.

    Raises
    ------
    UsageError
        If there is something at `path` already, or no folder to write to.
    DataError
        If the file cannot be written.
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file to write")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it, or name another file")
    if path.exists() and not overwrite:
        raise _occupied(path)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        tree.to_netcdf(part, engine="h5netcdf", encoding=_compression(tree))
        publish(part, path, overwrite)
    except FileExistsError:
        raise _occupied(path) from None
    except OSError as error:
        raise DataError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def _occupied(path: Path) -> UsageError:
    return UsageError(f"{path} exists already: choose another name, or ask to overwrite it")


def _compression(tree: "xr.DataTree") -> dict[str, dict[str, dict[str, Any]]]:
    how = {"zlib": True, "complevel": 1, "shuffle": True}
    groups = {node.path: node.data_vars.items() for node in tree.subtree if node.data_vars}
    return {path: {name: how for name, v in found if v.size >= 1024} for path, found in groups.items()}
