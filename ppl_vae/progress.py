"""How far a pass over rows has come, for whoever listens: nobody by default."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

Listener = Callable[[int, int], None]
_listener: ContextVar[Listener | None] = ContextVar("listener", default=None)


@contextmanager
def heard_by(listener: Listener | None) -> Iterator[None]:
    """Let a function hear (done, total) of every pass within; None: nobody."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def tell(done: int, total: int) -> None:
    """Say how much of a pass is done."""
    listener = _listener.get()
    if listener is not None:
        listener(done, total)


def told(parts: Iterable[slice], total: int) -> Iterator[slice]:
    """Yield slices over `total` entries, and tell of each once it is worked on."""
    for part in parts:
        yield part
        tell(part.stop, total)
