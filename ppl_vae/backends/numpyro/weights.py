"""Weights by torch's names and in torch's layout, from networks of flax and back."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from ppl_vae.backends.numpyro.networks import BoundNetwork, Sequential
from ppl_vae.errors import RunError
from ppl_vae.networks import Network

_NAMES = {"kernel": "weight", "embedding": "weight"}


def to_torch(networks: Mapping[str, nnx.Module]) -> dict[str, np.ndarray]:
    """Return parameters and buffers of networks by torch's names, as copies on the host."""
    return {name: _out(owner, np.array(variable[...])) for name, owner, variable in _variables(networks)}


def from_torch(networks: Mapping[str, nnx.Module], weights: Mapping[str, np.ndarray]) -> None:
    """Set parameters and buffers of networks.

    Raises
    ------
    RunError
        Where names or shapes are not the networks'.
    """
    variables = list(_variables(networks))
    names = {name for name, _, _ in variables}
    _check_names(names, set(weights))
    for name, owner, variable in variables:
        value, old = _in(owner, np.asarray(weights[name])), variable[...]
        if value.shape != old.shape:
            shapes = f"{np.shape(weights[name])}, not {_out(owner, np.empty(old.shape)).shape}"
            raise RunError(f"the weights do not fit the program: {name} has shape {shapes}")
        variable.set_value(jax.device_put(value.astype(old.dtype), old.sharding))


def declared(networks: Mapping[str, nnx.Module]) -> Iterator[tuple[str, Network]]:
    """Yield every declared network with what its weights' names begin with."""
    for root, module in networks.items():
        nodes = dict(nnx.iter_graph(module))
        for path, node in nodes.items():
            if isinstance(node, BoundNetwork):
                yield ".".join([root, *_named(nodes, path)]), node.network


def _check_names(expected: set[str], given: set[str]) -> None:
    for words, names in (("lack", expected - given), ("have no place for", given - expected)):
        if names:
            who, listed = "weights" if words == "lack" else "networks", ", ".join(sorted(names))
            raise RunError(f"the weights do not fit the program: the {who} {words} {listed}")


def _variables(networks: Mapping[str, nnx.Module]) -> Iterator[tuple[str, Any, nnx.Variable]]:
    """Yield (torch's name, the layer, the variable) of every array but the states of random streams."""
    for root, module in networks.items():
        yield from _of_module(root, module)


def _of_module(root: str, module: nnx.Module) -> Iterator[tuple[str, Any, nnx.Variable]]:
    nodes = dict(nnx.iter_graph(module))
    for path in sorted(path for path, node in nodes.items() if isinstance(node, nnx.Variable)):
        if isinstance(nodes[path], nnx.RngState):
            continue
        own = _NAMES.get(path[-1], str(path[-1]))
        yield ".".join([root, *_named(nodes, path[:-1]), own]), nodes.get(path[:-1]), nodes[path]


def _named(nodes: Mapping[tuple, Any], path: tuple) -> list[str]:
    """Return the parts of torch's name of a module: a list of layers in a row is not among them."""
    return [str(path[i]) for i in range(len(path)) if not _is_list_of_sequential(nodes, path[: i + 1])]


def _is_list_of_sequential(nodes: Mapping[tuple, Any], path: tuple) -> bool:
    return path[-1] == "layers" and isinstance(nodes.get(path[:-1]), (Sequential, nnx.Sequential))


def _out(owner: Any, value: np.ndarray) -> np.ndarray:
    """From flax's layout to torch's."""
    if value.ndim < 2:
        return value
    if isinstance(owner, nnx.ConvTranspose):  # (h, w, I, O) -> (I, O, h, w), flipped in space
        spatial = tuple(range(value.ndim - 2))
        return np.ascontiguousarray(np.moveaxis(np.flip(value, spatial), (-2, -1), (0, 1)))
    if isinstance(owner, nnx.Conv):  # (h, w, I, O) -> (O, I, h, w)
        return np.ascontiguousarray(np.moveaxis(value, (-1, -2), (0, 1)))
    return np.ascontiguousarray(value.T) if isinstance(owner, nnx.Linear) else value


def _in(owner: Any, value: np.ndarray) -> np.ndarray:
    """From torch's layout to flax's."""
    if value.ndim < 2:
        return value
    if isinstance(owner, nnx.ConvTranspose):
        moved = np.moveaxis(value, (0, 1), (-2, -1))
        return np.flip(moved, tuple(range(moved.ndim - 2)))
    if isinstance(owner, nnx.Conv):
        return np.moveaxis(value, (0, 1), (-1, -2))
    return value.T if isinstance(owner, nnx.Linear) else value
