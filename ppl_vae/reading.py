"""The one door to files that others may have written: ordinary files alone, none larger than memory."""

import errno
import os
import stat
from functools import cache
from pathlib import Path
from typing import BinaryIO

_CGROUP = Path("/sys/fs/cgroup/memory.max")


def handle(path: str | os.PathLike, flags: int = os.O_RDONLY, *, follow: bool = True) -> int:
    """Open an ordinary file with the flags of `os.open`, and return its handle.

    Raises
    ------
    OSError
        Also for a link that is not to be followed, nor a file of several names written through one of them,
        and for a pipe or a device, which may never end.
    """
    for name in ("O_NONBLOCK", "O_NOCTTY", "O_BINARY", "O_CLOEXEC", *(() if follow else ("O_NOFOLLOW",))):
        flags |= getattr(os, name, 0)
    if not follow and os.path.islink(path):
        raise OSError(errno.ELOOP, "it is a link, which is not followed", os.fspath(path))
    made = os.open(path, flags, 0o666)
    about = os.fstat(made)
    mode, written = about.st_mode, flags & (os.O_WRONLY | os.O_RDWR)
    shared = not follow and written and about.st_nlink > 1
    if stat.S_ISREG(mode) and not shared:
        return made
    os.close(made)
    if shared:
        raise OSError(errno.EMLINK, "it is a hard link, which is not written: copy it", os.fspath(path))
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", os.fspath(path))
    raise OSError(errno.EINVAL, "it is no ordinary file", os.fspath(path))


def opened(path: str | os.PathLike, *, follow: bool = True) -> BinaryIO:
    """Open an ordinary file for reading; raises OSError as `handle`."""
    return open(handle(path, follow=follow), "rb")


def whole(path: str | os.PathLike, *, follow: bool = True) -> bytes:
    """Return the content of an ordinary file.

    Raises
    ------
    OSError
        As `opened`, and for a file that is larger than memory.
    """
    with opened(path, follow=follow) as file:
        refuse_beyond_memory(os.fstat(file.fileno()).st_size, path)
        return file.read()


def refuse_beyond_memory(size: int, path: str | os.PathLike) -> None:
    """Raise OSError for so many bytes that they cannot be held."""
    if size > memory():
        held = f"it holds {size / 2**30:.1f} GiB, this machine has {memory() / 2**30:.1f} GiB of memory"
        raise OSError(errno.ENOMEM, held, os.fspath(path))


@cache
def memory() -> int:
    """Return how many bytes this process may hold: the machine's, or those of its container."""
    try:
        held = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # Windows does not tell
        held = 2**40
    try:
        return min(held, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return held
