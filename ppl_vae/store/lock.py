"""One writer at a time: an advisory lock that the kernel drops when its process dies."""

import errno
import os
import socket
import time
from pathlib import Path

from ppl_vae import reading
from ppl_vae.errors import RunError

try:
    import fcntl
except ImportError:  # Windows: runs are not locked there
    fcntl = None

NAME = ".lock"
_BUSY = (errno.EWOULDBLOCK, errno.EACCES)
_held: set[int] = set()


def acquire(folder: Path, wait: float) -> int:
    """Lock a run folder for writing and return the handle that `release` takes.

    File systems without locks (some network mounts) give an unlocked handle: there, nothing is refused.

    Raises
    ------
    RunError
        Another process (or another part of this one) holds it after `wait` seconds, or it cannot be made.
    """
    try:
        handle = reading.handle(folder / NAME, os.O_RDWR | os.O_CREAT, follow=False)
    except OSError as error:
        raise RunError(
            f"cannot lock {folder / NAME} to write there ({error.strerror or error}): "
            "check that the folder exists and its permissions"
        ) from error
    if _taken(handle, time.monotonic() + wait):
        _held.add(handle)
        _sign(handle)
        return handle
    holder = os.pread(handle, 200, 0).decode(errors="replace").strip() or "unknown"
    os.close(handle)
    raise RunError(
        f"{folder} is in use by process {holder}: wait until it ends or stop it, or choose another folder"
    )


def release(handle: int) -> None:
    """Give back what `acquire` gave."""
    if handle in _held:
        _held.remove(handle)
        os.close(handle)


def _forget() -> None:
    for handle in list(_held):
        release(handle)


def _taken(handle: int, deadline: float) -> bool:
    while fcntl is not None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError as error:
            if error.errno not in _BUSY:
                return True
            if time.monotonic() >= deadline:
                return False
            time.sleep(0.02)
    return True


def _sign(handle: int) -> None:
    """Leave a name for the message of whoever comes second; a full disk must not matter here."""
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    except OSError:
        pass


if hasattr(os, "register_at_fork"):  # a worker that outlives a killed training must not keep the lock
    os.register_at_fork(after_in_child=_forget)
