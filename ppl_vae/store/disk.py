"""The few operations on files that a safe write is made of."""

import hashlib
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

STAGED = ".new"
CHUNK = 1 << 20

Content = bytes | bytearray | memoryview | Callable[[BinaryIO], object]


class Entry(NamedTuple):
    """What the manifest knows of one file."""

    size: int
    sha256: str


class HashingFile(io.RawIOBase):
    """A binary file for writing that hashes what passes through, so it cannot seek back.

    `zipfile`, `numpy.savez` and `torch.save` write to such a file as to a pipe.
    """

    def __init__(self, file: BinaryIO):
        super().__init__()
        self._file, self._hash, self._size = file, hashlib.sha256(), 0
        self.failure: OSError | None = None  # serialisers wrap or swallow a full disk

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        try:
            self._file.write(view)
        except OSError as error:
            self.failure = error
            raise
        self._hash.update(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    @property
    def entry(self) -> Entry:
        return Entry(self._size, self._hash.hexdigest())


def staged(path: Path) -> Path:
    """The name under which a file waits for its group to be committed."""
    return path.with_name(path.name + STAGED)


def stage(path: Path, content: Content) -> Entry:
    """Write content beside `path` under its staged name, down to the disk, and return its size and hash."""
    try:
        with open(staged(path), "wb") as file:
            out = HashingFile(file)
            _fill(out, content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        error.filename = os.fspath(path)
        raise
    return out.entry


def _fill(out: HashingFile, content: Content) -> None:
    if not callable(content):
        out.write(content)
        return
    try:
        content(out)
    except Exception as error:
        raise out.failure or error from None
    if out.failure:
        raise out.failure


def replace(path: Path, content: Content) -> None:
    """Replace one file atomically: after a crash it has the old or the new content, never a part."""
    stage(path, content)
    os.replace(staged(path), path)
    sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Make renames in a folder durable (Windows cannot, and needs it not)."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def entry_of(path: Path) -> Entry | None:
    """Size and hash of a file as it lies on the disk; None where there is none."""
    digest, size = hashlib.sha256(), 0
    try:
        with open(path, "rb") as file:
            while chunk := file.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except FileNotFoundError:
        return None
    return Entry(size, digest.hexdigest())


def publish(part: Path, path: Path, overwrite: bool) -> None:
    """Put a written file into its place atomically.

    Raises
    ------
    FileExistsError
        Where there is a file already, be it from this very moment, and `overwrite` is false.
    """
    with open(part, "rb") as file:
        os.fsync(file.fileno())
    if overwrite:
        os.replace(part, path)
    else:
        try:
            os.link(part, path)  # unlike a rename it fails where another process has just written
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.rename(part, path)
    sync_folder(path.parent)
