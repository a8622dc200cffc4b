"""The signals that ask a process to stop, and what may not wait: a compilation, which has nothing to save."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

# Ctrl-C, then what a system, a terminal that closes and a batch system send; Windows has the first two.
STOPPING = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1") if hasattr(signal, name)
)
SAID = 10.0  # seconds of a compilation that is announced


class Present:
    """What this process does now, for whoever takes its signals.

    Attributes
    ----------
    training : bool
        A signal is a request, to be met after the present step.
    compiling : bool
        Ctrl-C ends the process, whatever else it does; true until the first steps are there to save.
    cut : bool
        A compilation was interrupted: its threads are still at work.
    heard : float
        When the main thread last took a signal, monotonic; it takes none while a compiler holds it.
    """

    training = False
    compiling = False
    cut = False
    heard = 0.0


@contextmanager
def compiling(really: bool = True) -> Iterator[None]:
    """Note that code is compiled within: Ctrl-C is not to wait for it."""
    before, Present.compiling = Present.compiling, really
    try:
        yield
    finally:
        Present.compiling = before
