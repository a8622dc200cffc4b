"""Ctrl-C, SIGTERM, SIGHUP and SIGUSR1 as a request: the present step is finished and everything is saved."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from ppl_vae.stopping import STOPPING, Present


class Request:
    """Whether to stop, and the signal that asked for it.

    Parameters
    ----------
    agree : callable
        Makes one number, the same for all processes of a run, of that of each.
    """

    def __init__(self, agree: Callable[[int], int]) -> None:
        self.signal: signal.Signals | None = None
        self.agree = agree

    def __call__(self) -> bool:
        number = self.agree(self.signal or 0)
        if number:
            self.signal = signal.Signals(number)
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note the first signal; the second Ctrl-C stops at once, as does the first in a compilation."""
        Present.heard = time.monotonic()
        if number == signal.SIGINT and (self.signal is not None or Present.compiling):
            Present.cut = Present.compiling
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def stop_request(agree: Callable[[int], int]) -> Iterator[Request]:
    """Turn the first signal to stop into a request while the block runs (in the main thread; elsewhere, and
    where nohup ignores SIGHUP, signals stay as they are).
    """
    request = Request(agree)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    ignored = [number for number in STOPPING[1:] if signal.getsignal(number) is signal.SIG_IGN]
    before = {n: signal.signal(n, request.handle) for n in STOPPING if n not in ignored}
    Present.training = Present.compiling = True  # the first step, which the others wait for
    try:
        yield request
    finally:
        Present.training = Present.compiling = False
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
