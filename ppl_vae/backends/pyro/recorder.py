"""The calls of a program's networks, seen by hooks."""

from typing import Any

from torch import Tensor, nn

from ppl_vae.backends.common import calls as common
from ppl_vae.contract.probe import Call


class Recorder(common.Recorder):
    """See `ppl_vae.backends.common.calls.Recorder`."""

    def __init__(self, bound: nn.Module):
        self._hooks: list[Any] = []
        super().__init__(bound)

    def close(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()

    def _watch(self, name: str, part: nn.Module) -> None:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._running.append(name)

        def leave(_module: nn.Module, inputs: Any, outputs: Any) -> None:
            self._running.pop()
            self.calls.append(Call(name, _arrays(inputs), _arrays(outputs)))

        self._hooks += [part.register_forward_pre_hook(enter), part.register_forward_hook(leave)]


def _arrays(tree: Any) -> tuple[Tensor, ...]:
    if isinstance(tree, Tensor):
        return (tree.detach().clone(),)
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return tuple(array for part in parts for array in _arrays(part))
