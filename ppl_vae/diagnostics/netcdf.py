"""A posterior's tree for ArviZ, and as a NetCDF file."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ppl_vae.store.disk import refuse_place, write

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
    RunError
        If the file cannot be written.
    """
    refuse_place(path, overwrite)
    content = tree.to_netcdf(engine="h5netcdf", encoding=_compression(tree))
    return write(path, content, overwrite)  # HDF5 itself takes the process down where the disk is full


def _compression(tree: "xr.DataTree") -> dict[str, dict[str, dict[str, Any]]]:
    how = {"zlib": True, "complevel": 1, "shuffle": True}
    groups = {node.path: node.data_vars.items() for node in tree.subtree if node.data_vars}
    return {
        path: {name: how for name, v in variables if v.size >= 1024} for path, variables in groups.items()
    }
