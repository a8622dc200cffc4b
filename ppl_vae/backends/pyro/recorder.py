"""The calls of a program's networks: who was asked what, and where one failed."""

from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor, nn

from ppl_vae.contract.probe import Call


class Recorder:
    """Watches the networks of a declared program; a plain program has none that could be named.

    Attributes
    ----------
    calls : list of Call
        Since the last `start`.
    """

    def __init__(self, bound: nn.Module):
        self.calls: list[Call] = []
        self._running: list[str] = []
        networks = getattr(bound, "networks", {}).items()
        self._hooks = [hook for name, part in _parts(networks) for hook in self._watched(name, part)]

    @property
    def running(self) -> str | None:
        """The network that was entered and not left."""
        return self._running[-1] if self._running else None

    def start(self) -> None:
        """Forget what was seen."""
        self.calls, self._running = [], []

    def close(self) -> None:
        """Look no longer."""
        for hook in self._hooks:
            hook.remove()

    def _watched(self, name: str, module: nn.Module) -> list[Any]:
        def enter(_module: nn.Module, _inputs: Any) -> None:
            self._running.append(name)

        def leave(_module: nn.Module, inputs: Any, outputs: Any) -> None:
            self._running.pop()
            self.calls.append(Call(name, _arrays(inputs), _arrays(outputs)))

        return [module.register_forward_pre_hook(enter), module.register_forward_hook(leave)]


def _parts(modules: Iterable[tuple[str, nn.Module]]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the networks by name; those in a list by their number."""
    for name, module in modules:
        if isinstance(module, nn.ModuleList):
            yield from _parts((f"{name}.{index}", part) for index, part in enumerate(module))
        else:
            yield name, module


def _arrays(tree: Any) -> tuple[Tensor, ...]:
    if isinstance(tree, Tensor):
        return (tree.detach().clone(),)
    parts = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (tuple, list)) else ()
    return tuple(array for part in parts for array in _arrays(part))
