"""The user's files: arrays, tables and folders of images."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppl_vae import reading
from ppl_vae.data import tables
from ppl_vae.data.containers import frame_of, read_h5ad, read_mat, read_parquet
from ppl_vae.data.dataset import SPLITS
from ppl_vae.data.delimited import AS_IT_LOOKS, Layout
from ppl_vae.data.fields import Objects, of_arrays
from ppl_vae.data.roles import NO_CLASSES, NO_ROLES, ROW_LABELS, Classes, Roles, Table
from ppl_vae.data.tables import read_csv
from ppl_vae.errors import DataError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # what these hold, by Pillow's names
OTHERS = 10_000  # how many more things than images a folder of images may hold
TABLES = (".csv", ".tsv", ".txt")
CONTAINERS = {".parquet": read_parquet, ".mat": read_mat, ".h5ad": read_h5ad}


def read(
    path: Path, roles: Roles = NO_ROLES, layout: Layout = AS_IT_LOOKS, classes: Classes = NO_CLASSES
) -> Table:
    """Read a file or a folder of images.

    Parameters
    ----------
    path : Path
    roles : Roles
        What the columns of a table, or the arrays of an .npz, are for.
    layout : Layout
        How a table that is text is to be read.
    classes : dict
        Names of classes by field, where their codes are settled already.

    Returns
    -------
    Table
        Named arrays as `arrays.of` takes them, with the names of columns or of classes by field.

    Raises
    ------
    DataError
        If there is no such file, its type is unknown, or its content is wrong.
    """
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            return read_images(path, classes.get("y"))
        if not path.exists():
            raise DataError(f"{path} does not exist: correct the path")
        if suffix not in (".npz", ".npy", *TABLES, *CONTAINERS):
            raise DataError(
                f"{path} is of no known type: give .npz, .npy, .csv, .tsv, .parquet, .mat, .h5ad or a folder "
                "of images (a spreadsheet saved as CSV, an archive unpacked)"
            )
        if suffix in CONTAINERS:
            with reading.opened(path):  # an ordinary file
                return CONTAINERS[suffix](path, roles, classes)
        if suffix in TABLES:
            return read_csv(path, roles, layout, classes)
        return of_arrays(
            read_npz(path) if suffix == ".npz" else read_npy(path), roles, classes, text_left_out=True
        )
    except OSError as error:
        where = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else path
        raise DataError(f"{where} cannot be read ({error.strerror or error})") from error


def columns(path: Path) -> dict[str, Any]:
    """Return the columns of a table, or the arrays of a file, by name and as they are.

    Raises
    ------
    DataError
        As `read`.
    """
    suffix = path.suffix.lower()
    if path.is_file() and suffix in TABLES:
        return tables.columns(path)
    if path.is_file() and suffix == ".parquet":
        return {str(name): values for name, values in frame_of(path).items()}
    if path.is_file() and suffix == ".npz":
        return read_npz(path)
    held = read(path, Roles(index="none")).fields
    return {name: values for name, values in held.items() if name != ROW_LABELS}


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Named arrays; an only array without a name is x."""
    arrays = _loaded(path)
    if not isinstance(arrays, dict):
        raise DataError(f"{path} is a single array, no .npz: rename it to .npy")
    if set(arrays) >= {"format", "shape", "data"}:
        return {"x": _sparse(path)}
    return {"x": arrays["arr_0"]} if list(arrays) == ["arr_0"] else arrays


def _sparse(path):
    """A matrix that `scipy.sparse.save_npz` wrote."""
    from scipy.sparse import load_npz

    try:
        return load_npz(path)
    except Exception as error:
        raise DataError(f"{path} is a damaged sparse matrix ({error}): write it again") from error


def read_npy(path: Path) -> dict[str, np.ndarray]:
    """One array, x."""
    array = _loaded(path)
    if isinstance(array, dict):
        raise DataError(f"{path} holds several arrays: rename it to .npz")
    return {"x": array}


def _loaded(path):
    try:
        with reading.opened(path) as file:
            reading.refuse_beyond_memory(_size(file), path)
            loaded = np.load(file, allow_pickle=False)
            if isinstance(loaded, np.ndarray):
                return loaded
            return {name: _array(loaded, name, path) for name in loaded.files}
    except OSError:
        raise
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as arrays: it is damaged, holds objects or is not NumPy's; write "
            "it with numpy.save (.npy) or numpy.savez (.npz)"
        ) from error


def _array(archive: Any, name: str, path: Path) -> Any:
    """Return an array of an .npz, or what stands for one of objects."""
    try:
        return archive[name]
    except ValueError as error:
        if "Object arrays" not in str(error):
            raise
        return Objects(path)


def _size(file: BinaryIO) -> int:
    """Return how many bytes a file holds, unpacked."""
    try:
        if not zipfile.is_zipfile(file):
            return os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            return sum(part.file_size for part in archive.infolist())
    finally:
        file.seek(0)


def read_images(folder: Path, known: Sequence[str] | None = None) -> Table:
    """Images of one size as x, rows called by their files; subfolders are classes y (those known, where they
    are settled); folders train, valid, test give the splits.
    """
    subfolders = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if "train" in subfolders and set(subfolders) <= set(SPLITS):
        files = {split: _image_files(folder / split) for split in subfolders}
    else:
        files = {"all": _image_files(folder)}
    everything = [path for paths in files.values() for path, _ in paths]
    classes = sorted({label for paths in files.values() for _, label in paths if label is not None})
    if classes and any(label is None for paths in files.values() for _, label in paths):
        raise DataError(f"{folder}: some images lie in subfolders (classes) and some do not: move them")
    if known and set(classes) - set(known):
        new = sorted(set(classes) - set(known))
        raise DataError(f"{folder}: {', '.join(new)} are no classes trained on: {', '.join(known)}")
    classes = list(known or classes) if classes else []
    size, mode = _size_and_mode(everything)
    reading.refuse_beyond_memory(
        len(everything) * size[0] * size[1] * (2 if mode == "I;16" else len(mode)), folder
    )
    by_split = {}
    for split, paths in files.items():
        by_split[split] = {"x": np.stack([_pixels(path, size, mode) for path, _ in paths])}
        names = [_text(path.relative_to(folder).as_posix()) for path, _ in paths]
        by_split[split][ROW_LABELS] = np.array(names, dtype=str)
        if classes:
            by_split[split]["y"] = np.array([classes.index(label) for _, label in paths], np.int64)
    return Table(by_split.get("all", by_split), {"y": classes} if classes else {})


def _image_files(folder: Path) -> list[tuple[Path, str | None]]:
    """Image files below a folder in the order of their names, each with its class."""
    found, others = [], 0
    for entry in _entries(folder):
        if entry.name.lower().endswith(IMAGES) and not entry.is_dir():
            if not entry.is_file():
                raise DataError(f"{entry.path} is no ordinary file: remove or replace it")
            found.append(Path(entry.path))
        else:
            others += 1
        if others - len(found) > OTHERS:
            raise DataError(
                f"{folder} holds {len(found)} images among {others} other files and folders: name a folder "
                "of images"
            )
    if not found:
        raise DataError(f"{folder} holds no images ({', '.join(IMAGES)})")
    parts = {path: path.relative_to(folder).parts for path in sorted(found)}
    return [(path, _text(names[0]) if len(names) > 1 else None) for path, names in parts.items()]


def _entries(folder: Path) -> Iterator[os.DirEntry]:
    """Yield what lies below a folder, links to folders followed; nothing hidden."""
    waiting, known = [os.fspath(folder)], set()
    while waiting:
        place = waiting.pop()
        inside = os.stat(place)
        if (inside.st_dev, inside.st_ino) in known:
            raise DataError(f"{place} links to a folder that is read already: remove the link")
        known.add((inside.st_dev, inside.st_ino))
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    waiting.append(entry.path)
                yield entry


def _text(name: str) -> str:
    """Return a name of the file system with the bytes that are no text written out."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _size_and_mode(paths) -> tuple[tuple[int, int], str]:
    """The common size, and "L" if all images are grey, "I;16" if of 16 bits, else "RGB"."""
    size, modes = None, set()
    for path in paths:
        with _opened(path) as image:
            if size is not None and image.size != size:
                raise DataError(
                    f"{path} is {image.width}x{image.height} pixels, but {paths[0].name} is "
                    f"{size[0]}x{size[1]}: all images must have one size"
                )
            if getattr(image, "n_frames", 1) > 1:
                raise DataError(f"{path} holds {image.n_frames} pictures: write each into a file of its own")
            if image.mode in ("I", "F"):
                raise DataError(f"{path} has 32 bits per pixel (mode {image.mode}): save it with 8 or 16")
            mode = {"L": "L", "1": "L", "LA": "L"}.get(image.mode, "RGB")
            size = image.size
            modes.add("I;16" if image.mode.startswith("I;16") else mode)
    if "I;16" in modes and len(modes) > 1:
        raise DataError(f"{paths[0].parent}: some images have 16 bits per pixel and some 8: save all alike")
    return size, min(modes, key=("I;16", "RGB", "L").index)


def _pixels(path, size, mode) -> np.ndarray:
    """uint8 `[C, H, W]`, of grey images of 16 bits uint16."""
    with _opened(path) as image:
        try:
            if image.has_transparency_data and np.asarray(image.convert("RGBA"))[..., 3].min() < 255:
                raise DataError(
                    f"{path} is transparent in places, which has no meaning here: lay it over a ground"
                )
            if mode == "I;16":
                return np.asarray(image).astype(np.uint16)[None]
            pixels = np.asarray(image.convert(mode), np.uint8)
        except DataError:
            raise
        except Exception as error:  # of any kind: Pillow's readers trust what a file says of itself
            raise DataError(f"{path} is damaged ({error}): remove or replace it") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _opened(path):
    from PIL import Image

    try:
        return Image.open(path, formats=FORMATS)  # no others: some of Pillow's start programs
    except Exception as error:
        raise DataError(f"{path} cannot be read as an image ({error}): remove or replace it") from error
