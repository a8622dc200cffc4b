"""The calls of a program's networks, seen where they are registered."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax.nnx.tracers import current_jax_trace
from jax import Array

from ppl_vae.backends.common import calls as common
from ppl_vae.backends.numpyro.modules import Part
from ppl_vae.contract.probe import Call


class Recorder(common.Recorder):
    """See `ppl_vae.backends.common.calls.Recorder`.

    Calls within a scan, a map or a gradient, which no array can leave, are not seen. Within a function that
    is being compiled the arrays are tracers.
    """

    def start(self) -> None:
        super().start()
        self._level = current_jax_trace()

    def _watch(self, name: str, part: Part) -> None:
        registered = part.registered

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

        part.registered = register


def _arrays(tree: Any) -> tuple[Any, ...]:
    return tuple(leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, (Array, np.ndarray)))
