"""The calls of a program's networks: who was asked what, and where one failed."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.nnx.tracers import current_jax_trace
from jax import Array

from ppl_vae.backends.numpyro.bound import flat
from ppl_vae.contract.probe import Call


class Recorder:
    """Watches the networks of a declared program; a plain program has none that could be named.

    Attributes
    ----------
    calls : list of Call
        Since the last `start`, without those within a scan, a map or a gradient, which no array can leave.
        Within a function that is being compiled the arrays are tracers.
    """

    def __init__(self, bound: Any):
        self.calls: list[Call] = []
        self._running: list[str] = []
        self._level = current_jax_trace()
        for part in flat(getattr(bound, "parts", {}).values()):
            part.registered = self._watched(part.name, part.registered)

    @property
    def running(self) -> str | None:
        """The network that was entered and not left."""
        return self._running[-1] if self._running else None

    def start(self) -> None:
        """Forget what was seen."""
        self.calls, self._running, self._level = [], [], current_jax_trace()

    def _watched(self, name: str, registered: Callable[..., Any]) -> Callable[..., Any]:
        def register(*args: Any) -> Callable[..., Any]:
            network = registered(*args)

            def call(*inputs: Any, **named: Any) -> Any:
                self._running.append(name)
                outputs = network(*inputs, **named)
                self._running.pop()
                if self._level == current_jax_trace():
                    self.calls.append(Call(name, _arrays((inputs, named)), _arrays(outputs)))
                return outputs

            return call

        return register


def _arrays(tree: Any) -> tuple[Any, ...]:
    return tuple(leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, (Array, np.ndarray)))
