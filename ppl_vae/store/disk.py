"""Files that are whole or absent: `write` for one, and what a run folder's groups of them are made of."""

import errno
import hashlib
import io
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

from ppl_vae import reading
from ppl_vae.errors import RunError, UsageError

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


def stage(part: Path, content: Content) -> Entry:
    """Write content to a temporary name, down to the disk, and return its size and hash; what bore that name
    is removed, not followed.
    """
    part.unlink(missing_ok=True)
    with open(part, "xb") as file:
        out = HashingFile(file)
        _fill(out, content)
        file.flush()
        os.fsync(file.fileno())
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
    """Replace one file of a locked folder atomically: after a crash it has the old or the new content, never
    a part.
    """
    stage(staged(path), content)
    publish(staged(path), path, overwrite=True)


def append(path: Path, content: bytes) -> None:
    """Add to the end of a file, which no link leads to."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with open(reading.handle(path, flags, follow=False), "ab") as file:
        file.write(content)


def write(path: str | os.PathLike, content: Content, overwrite: bool = False) -> Path:
    """Write one file atomically: what is read meanwhile has the old content or the new.

    Raises
    ------
    UsageError
        As `refuse_place`, also for a file that another process has made meanwhile.
    RunError
        The disk is full or fails. What was there before is intact.
    """
    path = Path(path)
    refuse_place(path, overwrite)
    part = path.with_name(f".{secrets.token_hex(8)}.part")  # a name that is as long as can be has no room
    try:
        stage(part, content)
        publish(part, path, overwrite)
    except FileExistsError:
        raise _occupied(path) from None
    except OSError as error:
        raise failed(path, error, "or name another file") from error
    finally:
        part.unlink(missing_ok=True)
    return path


def refuse_place(path: str | os.PathLike, overwrite: bool) -> None:
    """Refuse a place where no file can be made, or where one lies that is not to be overwritten.

    Raises
    ------
    UsageError
    """
    path = Path(path)
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name a file")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it first")
    if path.exists() and not overwrite:
        raise _occupied(path)
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no ordinary file and is not replaced: name another file")
    if not os.access(path.parent, os.W_OK):
        raise UsageError(
            f"nothing can be written to the folder {path.parent}: name a file in another one (--out)"
        )


def _occupied(path: Path) -> UsageError:
    return UsageError(f"{path} exists and is not overwritten: name another file, or add overwrite=True")


def failed(path: Path, error: OSError, remedy: str) -> RunError:
    """Return what is raised where the operating system does not write a file."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    first = "free space" if full else "check the disk and permissions"
    return RunError(f"cannot write {path} ({error.strerror or error}): {first}, {remedy}")


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
    """Size and hash of a file as it lies on the disk; None where there is none, or something else."""
    if path.is_symlink() or not path.is_file():
        return None
    digest, size = hashlib.sha256(), 0
    try:
        with reading.opened(path, follow=False) as file:
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
