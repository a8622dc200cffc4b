"""Numbers too small for the normal range, which a CPU computes with many times slower than with zeros."""

import contextlib
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch

TASK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@contextmanager
def flushed() -> Iterator[None]:
    """Round denormal numbers to zero, in this thread and in torch's worker threads.

    exp(-|logit|) of a certain pixel is one: without this a Bernoulli likelihood takes five times as long. So
    is Adam's first moment of a weight 750 steps after its last gradient: a step then takes twice as long.
    """
    before = bool((torch.full((), 1e-38) * 1e-3).item() == 0)
    _set(True)
    try:
        yield
    finally:
        _set(before)


def _set(flush: bool) -> None:
    # Every thread has a setting of its own, and takes over that of the thread that starts it. torch's workers
    # may have been at work before: they are all in a parallel region of theirs.
    torch.set_flush_denormal(flush)
    threads, region = torch.get_num_threads(), _region()
    if threads > 1 and region is not None:
        region(TASK(lambda _: torch.set_flush_denormal(flush)), None, threads, 0)


@cache
def _region() -> Callable[..., Any] | None:
    """Return the function that runs a task on every thread of the OpenMP that torch is linked with; None for
    builds that have none of its name.
    """
    with contextlib.suppress(OSError, AttributeError):
        return ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so")).GOMP_parallel
    return None
