"""The user's files: .npz, .npy, .csv and folders of images."""

import csv
import math
from pathlib import Path

import numpy as np

from ppl_vae.data.dataset import SPLITS
from ppl_vae.errors import DataError

IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".pgm", ".ppm")


def read(path: Path) -> tuple[dict, dict]:
    """Read a file or a folder of images.

    Returns
    -------
    (dict, dict)
        Named arrays as `arrays.of` takes them, and coords: names of columns or of classes by field.

    Raises
    ------
    DataError
        If there is no such file, its type is unknown, or its content is wrong.
    """
    if path.is_dir():
        return read_images(path)
    if not path.exists():
        raise DataError(f"{path} does not exist: correct the path")
    readers = {".npz": read_npz, ".npy": read_npy, ".csv": read_csv}
    if path.suffix.lower() not in readers:
        raise DataError(f"{path} is of no known type: give .npz, .npy, .csv or a folder of images")
    try:
        return readers[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror or error})") from error


def read_npz(path: Path) -> tuple[dict, dict]:
    """Named arrays; an only array without a name is x."""
    arrays = _loaded(path)
    if not isinstance(arrays, dict):
        raise DataError(f"{path} is a single array, no .npz: rename it to .npy")
    return ({"x": arrays["arr_0"]} if list(arrays) == ["arr_0"] else arrays), {}


def read_npy(path: Path) -> tuple[dict, dict]:
    """One array, x."""
    array = _loaded(path)
    if isinstance(array, dict):
        raise DataError(f"{path} holds several arrays: rename it to .npz")
    return {"x": array}, {}


def _loaded(path):
    try:
        with path.open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            return loaded if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except Exception as error:
        raise DataError(
            f"{path} cannot be read as arrays: it is damaged, holds objects or is not NumPy's; write "
            "it with numpy.save (.npy) or numpy.savez (.npz)"
        ) from error


def read_csv(path: Path) -> tuple[dict, dict]:
    """Numeric columns as x; the first line may name them."""
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(i, line) for i, line in enumerate(csv.reader(file), start=1) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} is no CSV text ({error})") from error
    if not lines:
        raise DataError(f"{path} is empty: it has no rows")
    names = [cell.strip() for cell in lines[0][1]]
    header = not any(_is_number(name) for name in names)
    columns = names if header else [str(i) for i in range(1, len(names) + 1)]
    rows = [_csv_row(path, number, cells, columns) for number, cells in lines[header:]]
    if not rows:
        raise DataError(f"{path} is empty: it has a header and no rows")
    whole = all(cell.strip().lstrip("+-").isdigit() for _, cells in lines[header:] for cell in cells)
    x = np.array(rows, np.int64 if whole else np.float64)
    return {"x": x}, {"x": columns} if header else {}


def _csv_row(path, number, cells, columns) -> list[float]:
    if len(cells) != len(columns):
        raise DataError(f"{path}, line {number}: {len(cells)} cells, but {len(columns)} in the first line")
    try:
        values = [float(cell) for cell in cells]
        if all(map(math.isfinite, values)):
            return values
    except ValueError:
        pass
    i = next(i for i, cell in enumerate(cells) if not _is_number(cell) or not math.isfinite(float(cell)))
    what = f"{cells[i]!r} is no finite number" if cells[i].strip() else "is empty"
    raise DataError(f"{path}, line {number}, column {columns[i]!r}: {what}; drop the column or fill it in")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def read_images(folder: Path) -> tuple[dict, dict]:
    """Images of one size as x; subfolders are classes y; folders train, valid, test give the splits."""
    subfolders = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    if "train" in subfolders and set(subfolders) <= set(SPLITS):
        files = {split: _image_files(folder / split) for split in subfolders}
    else:
        files = {"all": _image_files(folder)}
    everything = [path for paths in files.values() for path, _ in paths]
    classes = sorted({label for paths in files.values() for _, label in paths if label is not None})
    if classes and any(label is None for paths in files.values() for _, label in paths):
        raise DataError(f"{folder}: some images lie in subfolders (classes) and some do not: move them")
    size, mode = _size_and_mode(everything)
    by_split = {}
    for split, paths in files.items():
        by_split[split] = {"x": np.stack([_pixels(path, size, mode) for path, _ in paths])}
        if classes:
            by_split[split]["y"] = np.array([classes.index(label) for _, label in paths], np.int64)
    return by_split.get("all", by_split), {"y": classes} if classes else {}


def _image_files(folder: Path) -> list[tuple[Path, str | None]]:
    """Image files below a folder in the order of their names, each with its class."""
    files = []
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        hidden = any(part.startswith(".") for part in parts)
        if path.suffix.lower() in IMAGES and path.is_file() and not hidden:
            files.append((path, parts[0] if len(parts) > 1 else None))
    if not files:
        raise DataError(f"{folder} holds no images ({', '.join(IMAGES)})")
    return files


def _size_and_mode(paths) -> tuple[tuple[int, int], str]:
    """The common size, and "L" if all images are grey, else "RGB"."""
    size, mode = None, "L"
    for path in paths:
        with _opened(path) as image:
            if size is not None and image.size != size:
                raise DataError(
                    f"{path} is {image.width}x{image.height} pixels, but {paths[0].name} is "
                    f"{size[0]}x{size[1]}: all images must have one size"
                )
            if image.mode.startswith(("I", "F")):
                raise DataError(f"{path} has more than 8 bits per pixel (mode {image.mode}): convert it")
            size, mode = image.size, mode if image.mode in ("L", "1", "LA") else "RGB"
    return size, mode


def _pixels(path, size, mode) -> np.ndarray:
    """uint8 `[C, H, W]`."""
    with _opened(path) as image:
        try:
            pixels = np.asarray(image.convert(mode), np.uint8)
        except (OSError, SyntaxError) as error:
            raise DataError(f"{path} is damaged ({error}): remove or replace it") from error
    return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)


def _opened(path):
    from PIL import Image

    try:
        return Image.open(path)
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read as an image ({error}): remove or replace it") from error
