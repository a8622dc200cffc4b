"""Finding, downloading and verifying the files of a named data set."""

import gzip
import hashlib
import logging
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae import reading
from ppl_vae.data.registry import SOURCES, named
from ppl_vae.data.sources import Source
from ppl_vae.errors import DataError

VARIABLE = "PPL_VAE_DATA"
HOUR = 3600.0


class Folder:
    """A folder with the files of a source; hands out content only after it is verified."""

    def __init__(self, path: Path, source: Source):
        self.path, self.source = Path(path), source

    def file(self, name: str) -> Path | None:
        """Path of a file, compressed or not; None if it is not there."""
        for candidate in (self.path / name, self.path / name.removesuffix(".gz")):
            if candidate.is_file():
                return candidate
        return None

    def complete(self) -> bool:
        """True if every file lies here."""
        return all(self.file(name) for name in self.source.files)

    def payload(self, name: str, check: bool = True) -> bytes:
        """The uncompressed content of a file, verified by its md5."""
        path = self.file(name)
        if path is None:
            raise DataError(f"{self.path / name} is missing: put it there or fetch {self.source.name} again")
        try:
            with reading.opened(path) as file:
                unpacked = gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file
                content = unpacked.read(self.source.largest + 1)
        except (OSError, EOFError, gzip.zlib.error) as error:
            raise DataError(f"{path} cannot be read ({error}): remove it and fetch it again") from error
        if (
            len(content) > self.source.largest
        ):  # before it is hashed: a small .gz may hold any number of zeros
            raise DataError(
                f"{path} is too large: it is another file; remove it and fetch {self.source.name} again"
            )
        if check:
            self.check(name, content)
        return content

    @contextmanager
    def damage_named(self, name: str) -> Iterator[None]:
        """Say which file a reader stumbled over, and what to do about it."""
        try:
            yield
        except DataError as error:
            remedy = f"remove {self.path / name} and fetch {self.source.name} again"
            raise DataError(f"{error}: it is damaged; {remedy}") from error

    def check(self, key: str, content: bytes):
        """Refuse content whose md5 is not the registered one."""
        digest, wanted = hashlib.md5(content, usedforsecurity=False).hexdigest(), self.source.md5[key]
        if digest != wanted:
            in_file = key not in self.source.files
            what = f"{key} in {self.path / self.source.files[0]}" if in_file else self.path / key
            raise DataError(
                f"{what} has the wrong content (md5 {digest}, expected {wanted}): it is damaged or another "
                f"data set; remove it and fetch {self.source.name} again"
            )

    def array(self, arrays: dict, key: str) -> np.ndarray:
        """One array of an .npz, of 2-d rows of the source's size."""
        columns = int(np.prod(self.source.shape))
        if key not in arrays or arrays[key].ndim != 2 or arrays[key].shape[1] != columns:
            path = self.path / self.source.files[0]
            raise DataError(f"{path} has no array {key} with rows of {columns} numbers")
        return arrays[key]


def cache_folder() -> Path:
    """The folder for downloads: `PPL_VAE_DATA` where it can be written, else the user's cache."""
    given = _given_folder()
    if given is not None and os.access(given, os.W_OK):
        return given
    import pooch

    return Path(pooch.os_cache("ppl_vae"))


def _given_folder() -> Path | None:
    given = os.environ.get(VARIABLE)
    if not given:
        return None
    if not Path(given).is_dir():
        raise DataError(f"{VARIABLE}={given} is not a folder: correct it or unset it")
    return Path(given)


def find(source: Source) -> Folder | None:
    """The first folder that holds all files of a source: `PPL_VAE_DATA`, the system's, then the cache."""
    if not source.files:
        return None
    given = _given_folder()
    places = [given / source.folder] if given else []
    places += [Path(place) for place in source.system] + [cache_folder() / source.folder]
    return next((folder for folder in (Folder(place, source) for place in places) if folder.complete()), None)


def locate(source: Source, offline: bool = False) -> Folder | None:
    """Find a source, or download it; None for one that needs no files.

    Raises
    ------
    DataError
        If it is not on this machine and `offline`, or no mirror gives the right content.
    """
    folder = find(source)
    if folder is not None or not source.files:
        return folder
    if offline:
        raise DataError(
            f"{source.name} is not on this machine ({_missing(source)} not found) and offline forbids the "
            f"download: set {VARIABLE} to the folder that holds {source.folder}/"
        )
    return download(source)


def _missing(source: Source) -> Path:
    """The first file that is sought in vain, in `PPL_VAE_DATA` or else in the cache."""
    folder = Folder((_given_folder() or cache_folder()) / source.folder, source)
    return folder.path / next(name for name in source.files if folder.file(name) is None)


def download(source: Source) -> Folder:
    """Download a source into the cache; nothing stays there unless all of it is verified."""
    target = cache_folder() / source.folder
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{target} cannot be made ({error.strerror}): set {VARIABLE} to a folder of your own"
        ) from error
    with tempfile.TemporaryDirectory(dir=target, prefix=".download-") as scratch:
        try:
            _fill(Path(scratch), source)
        except DataError as error:
            raise DataError(
                f"{source.name} could not be downloaded ({error}): put its files into {source.folder}/ "
                f"in a folder of your own and set {VARIABLE} to that folder"
            ) from error
        for path in Path(scratch).iterdir():
            path.chmod(0o644)
            os.replace(path, target / path.name)
    return Folder(target, source)


def _fill(folder: Path, source: Source):
    for name in source.downloads:
        _retrieve(source, name, folder)
    if source.unpack is not None:
        source.unpack(folder, source)
    source.read(Folder(folder, source), source)


def _retrieve(source: Source, name: str, folder: Path):
    """Download one file from the first address that gives it."""
    import pooch

    pooch.get_logger().setLevel(logging.WARNING)
    known = f"md5:{source.archives[name]}" if name in source.archives else None
    problems = []
    for address in source.downloads[name]:
        print(f"downloading {address}", file=sys.stderr)
        try:
            pooch.retrieve(
                address, known, fname=name, path=folder, downloader=partial(_bounded, source.largest)
            )
            return
        except ValueError:  # of pooch, for another hash
            problems.append(f"{address}: not the published file")
        except OSError as error:  # requests' exceptions are of this kind
            status = error if isinstance(error, _Beyond) else type(error).__name__
            status = getattr(getattr(error, "response", None), "status_code", status)
            problems.append(f"{address}: {status}")
    raise DataError("; ".join(problems))


class _Beyond(OSError):
    """A download that is larger or takes longer than any of its kind."""


def _bounded(most: int, address: str, path: str, _: Any) -> None:
    """Download at most so many bytes in at most HOUR seconds: pooch, which checks the file, has no bounds."""
    import requests

    until = time.monotonic() + HOUR
    with requests.get(address, stream=True, timeout=30) as response, open(path, "wb") as file:
        response.raise_for_status()
        for part in response.iter_content(2**16):
            file.write(part)
            if file.tell() > most:
                raise _Beyond("larger than the published file")
            if time.monotonic() > until:
                raise _Beyond("it takes more than an hour")


def fetch(name: str, *, offline: bool = False) -> dict:
    """Make sure that a named data set lies on this machine, and verify it.

    Returns
    -------
    dict
        name, folder (None for one that a dependency ships), files and verified, for JSON.
    """
    source = named(name)
    folder = locate(source, offline)
    source.read(folder, source)
    place = None if folder is None else str(folder.path)
    return {"name": source.name, "folder": place, "files": list(source.files), "verified": True}


def catalogue() -> list[dict]:
    """One row for each named data set, for JSON.

    Returns
    -------
    list of dict
        name, kind, shape (of one x), rows, licence, where: a folder, "built in" or "download".
    """
    rows = []
    for source in SOURCES.values():
        folder = find(source)
        where = str(folder.path) if folder else ("download" if source.files else "built in")
        rows.append(
            {
                "name": source.name,
                "kind": source.kind,
                "shape": list(source.shape),
                "rows": source.num_rows,
                "licence": source.licence,
                "where": where,
            }
        )
    return rows
