"""A flax module within a NumPyro program: parameters are a `param` site, other arrays a `mutable` site.

The sites are named and shaped as those of `numpyro.contrib.module.nnx_module`. Unlike there, the mode is
chosen at each call (flax forbids changing a module within a trace), and a call may leave the state as it is.
"""

from collections.abc import Callable
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from flax import nnx
from jax import Array, lax
from numpyro.primitives import mutable

from ppl_vae.backends.common.folding import is_foreign

KEPT = nnx.Not(nnx.Param)


class Part:
    """One network of a program, taken apart.

    Parameters
    ----------
    name : str
        Unique in the program: `encoder`, `prior.0`.
    module : flax.nnx.Module

    Attributes
    ----------
    params_site, state_site : str
        Names of the NumPyro sites.
    params, state : dict
        The module's first parameters, and what else it keeps, as nested dicts of arrays.
    foreign : bool
        It holds modules that are none of ppl_vae.
    """

    def __init__(self, name: str, module: nnx.Module):
        self.name, self.params_site, self.state_site = name, f"{name}$params", f"{name}$state"
        self.params, self.state = (nnx.to_pure_dict(nnx.state(module, kind)) for kind in (nnx.Param, KEPT))
        nodes = [node for _, node in nnx.iter_graph(module) if isinstance(node, nnx.Module)]
        self.single_precision = any(getattr(node, "single_precision", False) for node in nodes)
        self.foreign = is_foreign(module, _children, (nnx.List,))
        self._graphs = _graphs(module, nodes)

    def module(self, params: Any, state: Any) -> nnx.Module:
        """Return the module with values."""
        return nnx.merge(self._graphs[False, False], params, state)

    def registered(
        self, params: Any, state: Any, training: bool, writes: bool, dtype: Any
    ) -> Callable[..., Any]:
        """Declare the sites within a NumPyro program and return the network as a function.

        Parameters
        ----------
        params, state : dict
            Values where no handler gives others.
        training : bool
            Train mode.
        writes : bool
            Keep what a call in train mode changes.
        dtype : dtype or None
            Precision of the products within the network.
        """
        graph = self._graphs[training, not writes]
        values = numpyro.param(self.params_site, params) if self.params else {}
        holder = mutable(self.state_site, {"state": state}) if self.state else {"state": {}}
        dtype = None if self.single_precision else dtype

        def call(*args: Any, **kwargs: Any) -> Any:
            inner, args, kwargs = _cast((values, args, kwargs), jnp.float32, dtype)
            module = nnx.merge(graph, inner, holder["state"])
            out = module(*args, **kwargs)
            if self.state and writes:
                holder["state"] = lax.stop_gradient(nnx.to_pure_dict(nnx.state(module, KEPT)))
            return _cast(out, dtype, jnp.float32)

        return call


def _children(module: nnx.Module) -> list[nnx.Module]:
    values = list(module) if isinstance(module, nnx.List) else vars(module).values()
    return [value for value in values if isinstance(value, (nnx.Module, nnx.List))]


def _graphs(module: nnx.Module, nodes: list[nnx.Module]) -> dict[tuple[bool, bool], Any]:
    """Return the module's structure by train mode and whether its buffers are frozen."""
    graphs = {}
    for training in (True, False):
        module.train() if training else module.eval()
        for frozen in (True, False):
            for node, (name, value) in product(nodes, (("training", training), ("frozen", frozen))):
                if hasattr(node, name):
                    setattr(node, name, value)
            graphs[training, frozen] = nnx.graphdef(module)
    return graphs


def _cast(tree: Any, old: Any, new: Any) -> Any:
    if old is None or new is None:
        return tree
    return jax.tree.map(lambda a: a.astype(new) if isinstance(a, Array) and a.dtype == old else a, tree)
