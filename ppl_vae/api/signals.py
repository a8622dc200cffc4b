"""Ctrl-C and SIGTERM as a request: the present step is finished and everything is saved."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


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
        """Note the first signal; the second Ctrl-C stops at once."""
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number)


@contextmanager
def stop_request(agree: Callable[[int], int]) -> Iterator[Request]:
    """Turn the first SIGINT or SIGTERM into a request while the block runs (in the main thread; elsewhere
    signals stay as they are).
    """
    request = Request(agree)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
