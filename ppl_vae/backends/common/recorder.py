"""The calls of a program's networks: who was asked what, and where one failed."""

from typing import Any

from ppl_vae.backends.common.calls import flat
from ppl_vae.contract.probe import Call


class Recorder:
    """Watches the networks of a declared program; a plain program has none that could be named.

    Parameters
    ----------
    bound : Bound or PlainBound

    Attributes
    ----------
    calls : list of Call
        Since the last `start`.
    """

    def __init__(self, bound: Any):
        self.start()
        for name, parts in getattr(bound, "parts", {}).items():
            for number, part in flat(name, parts):
                self._watch(number, part)

    def _watch(self, name: str, part: Any) -> None:
        """Note the calls of a network by `_running` and `calls`."""
        raise NotImplementedError

    @property
    def running(self) -> str | None:
        """The network that was entered and not left."""
        return self._running[-1] if self._running else None

    def start(self) -> None:
        """Forget what was seen."""
        self.calls: list[Call] = []
        self._running: list[str] = []
