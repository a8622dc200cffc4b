"""Files of other programs that hold arrays or tables: MATLAB's, Parquet, and AnnData's of single cells."""

import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.data.fields import dense, of_arrays
from ppl_vae.data.roles import ROW_LABELS, Classes, Roles, Table
from ppl_vae.data.tables import of_frame
from ppl_vae.errors import DataError, UsageError
from ppl_vae.reading import memory, refuse_beyond_memory

_NUMBER = 8  # bytes
_BEYOND, _ELSEWHERE = 9, 10  # exit codes
_MATLAB = f"""
import math, os, sys
from scipy.io import loadmat, whosmat

bits = {{kind: int(kind.lstrip("uint")) for kind in ("int8", "uint8", "int16", "uint16", "int32", "uint32")}}
bits |= {{"logical": 8, "single": 32}}
size = sum(math.prod(shape) * bits.get(kind, 8 * {_NUMBER}) // 8 for _, shape, kind in whosmat(sys.argv[1]))
if size > int(sys.argv[2]):
    os._exit({_BEYOND})
loadmat(sys.argv[1])
"""
_HDF5 = f"""
import os, sys
import h5py

left = int(sys.argv[2])

def read(name, held):
    global left
    dict(held.attrs)
    if isinstance(held, h5py.Dataset):
        if held.external or held.is_virtual:
            os._exit({_ELSEWHERE})
        left -= held.nbytes
        if left < 0:
            os._exit({_BEYOND})
        for part in held.iter_chunks() if held.chunks else [()]:
            held[part]

def links(name, link):
    if isinstance(link, h5py.ExternalLink):
        os._exit({_ELSEWHERE})

with h5py.File(sys.argv[1], "r") as file:
    file.visititems_links(links)
    file.visititems(read)
"""


def read_parquet(path: Path, roles: Roles, classes: Classes) -> Table:
    """Read a table as pandas writes it; an index that has names is the names of its rows."""
    return of_frame(frame_of(path), roles, classes)


def frame_of(path: Path) -> Any:
    """Return the DataFrame that a file of Parquet holds."""
    import pandas as pd

    try:
        from pyarrow.parquet import read_metadata

        about = read_metadata(path)
        refuse_beyond_memory(about.num_rows * about.num_columns * _NUMBER, path)
        return pd.read_parquet(path, engine="pyarrow")
    except ImportError:
        raise UsageError(f"{path}: .parquet needs pyarrow: pip install 'ppl-vae[tables]'") from None
    except OSError:
        raise
    except Exception as error:
        raise _damaged(path, "Parquet", error) from error


def read_mat(path: Path, roles: Roles, classes: Classes) -> Table:
    """Read the arrays of a MATLAB file, of version 7.3 (HDF5) too: rows first, columns of one number as [N].

    What is no array of numbers or of truth values is left out.
    """
    from scipy.io import loadmat

    try:
        try:
            _refuse_fatal(path, _MATLAB)
            held = loadmat(path)
        except NotImplementedError:
            held = _hdf5(path)
    except (OSError, DataError):
        raise
    except Exception as error:
        raise _damaged(path, "MATLAB", error) from error
    held = {name: _texts(values) for name, values in held.items() if not name.startswith("__")}
    arrays = {
        name: dense(values).reshape(-1) if values.ndim == 2 and 1 in values.shape else values
        for name, values in held.items()
        if _numeric(values) or getattr(values, "dtype", "") == "O"
    }
    if not any(map(_numeric, arrays.values())):
        structs = [name for name, values in held.items() if getattr(values, "dtype", np.dtype(int)).names]
        hint = f" (of {structs[0]!r} save the fields: save -struct)" if structs else ""
        raise DataError(f"{path} holds no arrays of numbers{hint}")
    if "x" not in arrays and roles.x is None:
        numbers = {name: values for name, values in arrays.items() if _numeric(values)}
        tables = [name for name, values in numbers.items() if values.ndim > 1 or len(numbers) == 1]
        if len(tables) == 1:
            roles = replace(roles, x=tables)
    table = of_arrays(arrays, roles, classes, text_left_out=True)
    if roles.x and "x" not in arrays:
        table.notes.append(f"{roles.x[0]!r} as x (x=...)")
    left = [name for name in held if name not in arrays]
    table.notes += [f"{', '.join(map(repr, left))} left out, as no arrays of numbers"] if left else []
    return table


def _texts(values: Any) -> Any:
    """Return rows of characters, or cells of text, as texts [N]; all else as it is."""
    if getattr(getattr(values, "dtype", None), "kind", "") not in ("O", "U"):
        return values
    cells = values.ravel().tolist()
    if values.dtype == object:
        cells = [one.item() if getattr(one, "size", 0) == 1 else one for one in cells]
        cells = ["" if getattr(one, "size", 1) == 0 else one for one in cells]
    if cells and values.ndim < 3 and all(isinstance(one, str) for one in cells):
        return np.array([one.strip() for one in cells], dtype=object)
    return None if values.dtype == object else values


def _numeric(values: Any) -> bool:
    return hasattr(values, "toarray") or (isinstance(values, np.ndarray) and values.dtype.kind in "biuf")


def _hdf5(path: Path) -> Mapping[str, Any]:
    """Return the arrays of a file of version 7.3, which holds their axes the other way round."""
    import h5py

    _refuse_fatal(path, _HDF5)
    found = {}
    with h5py.File(path, "r") as file:
        for name, held in file.items():
            kind = held.attrs.get("MATLAB_class", b"double")
            is_array = isinstance(held, h5py.Dataset) and held.dtype.kind in "biuf"
            if kind == b"cell" and all(_is_text(file, one) for one in held[()].ravel()):
                texts = ("".join(map(chr, file[one][()].ravel())) for one in held[()].ravel())
                found[name] = np.array(list(texts), dtype=object)
            elif is_array and kind != b"char":
                found[name] = held[()].T
            else:
                found[name] = None
    return {name: values for name, values in found.items() if not name.startswith("#")}


def _is_text(file: Any, place: Any) -> bool:
    return file[place].attrs.get("MATLAB_class") == b"char" and not file[place].attrs.get("MATLAB_empty")


def read_h5ad(path: Path, roles: Roles, classes: Classes) -> Table:
    """Read cells: X, or the layer that the role x names; columns of `obs` that have roles; names of cells and
    genes.
    """
    try:
        import anndata
    except ImportError:
        raise UsageError(f"{path}: .h5ad needs anndata: pip install 'ppl-vae[singlecell]'") from None
    _refuse_fatal(path, _HDF5)
    try:
        cells = anndata.read_h5ad(path)
    except Exception as error:
        raise _damaged(path, "AnnData", error) from error
    x = _layer(cells, roles.x[0] if roles.x else "X", path)
    columns = roles.among([*map(str, cells.obs.columns), *(roles.x or ())]).given
    named = {name for role, names in columns.items() if role not in ("x", "ignore") for name in names}
    arrays = {"x": x} | {name: cells.obs[name] for name in cells.obs.columns if name in named}
    table = of_arrays(arrays, replace(roles, x=None, ignore=None), classes)
    table.coords["x"] = [str(name) for name in cells.var_names]
    if ROW_LABELS not in table.fields and roles.index != "none":
        table.fields[ROW_LABELS] = np.array([str(name) for name in cells.obs_names], dtype=str)
    others = [str(name) for name in cells.layers if not roles.x]
    if others:
        table.notes.append(f"X as x; not taken: layers {', '.join(others)} (x=...)")
    left = [str(name) for name in cells.obs.columns if name not in named]
    if left:
        table.notes.append(f"of obs {', '.join(left)} left out (label=... or batch=... takes them)")
    return table


def _layer(cells: Any, name: str, path: Path) -> Any:
    if name != "X" and name not in cells.layers:
        raise UsageError(f"{path}: x={name}: there is X, and the layers {', '.join(cells.layers) or 'none'}")
    x = cells.X if name == "X" else cells.layers[name]
    if x is None:
        raise DataError(f"{path} has no X: name a layer as x, one of {', '.join(cells.layers) or 'none'}")
    values = x.data if hasattr(x, "toarray") else np.asarray(x)
    counts = values.dtype.kind == "f" and (values >= 0).all() and (values % 1 == 0).all()
    return x.astype(np.int64) if counts else x  # counts are kept as floats by most who write such files


def _refuse_fatal(path: Path, reader: str) -> None:
    """Refuse a file that memory does not hold, or that ends the process which reads it, as damaged ones do to
    readers in C: another process reads it first.
    """
    import subprocess  # which few need

    words = [sys.executable, "-I", "-c", reader, os.fspath(path), str(memory())]
    code = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False).returncode
    if code == _BEYOND:
        raise DataError(f"{path} holds more than this machine's memory: take fewer columns or rows")
    if code == _ELSEWHERE:
        raise DataError(f"{path} takes data of other files: copy what it needs into it")
    if not 0 <= code < 256:
        raise DataError(f"{path} is damaged: what reads it ends without a word; write it again")


def _damaged(path: Path, kind: str, error: Exception) -> DataError:
    told = " ".join(str(error).split())[:200]
    return DataError(f"{path} cannot be read as a file of {kind} ({type(error).__name__}: {told})")
