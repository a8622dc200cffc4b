"""What bound programs of both kinds have on NumPyro."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self

import jax
import numpy as np
from flax import nnx
from jax import random
from jax.interpreters.partial_eval import dce_jaxpr
from numpyro.distributions import biject_to

from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.numpyro.passes import Passes, at_rest
from ppl_vae.backends.numpyro.sites import broken_plate
from ppl_vae.backends.numpyro.tracing import Tracer
from ppl_vae.closures import named_by
from ppl_vae.errors import DataError


class OnNumPyro(Bound):
    """A bound program that keeps its parameters and its networks' state, for tools that bring no values.

    Attributes
    ----------
    params : dict
        Parameters by NumPyro's site names (within their constraints), as `SVI.get_params` returns them.
    state : dict
        Values of the `mutable` sites, as `SVIState.mutable_state` holds them; may be set.
    training : bool
        Train mode, in which statistics and codebooks move.
    compiled : dict
        Compiled functions of this program, by name.
    device : jax.Device
        Where the parameters lie.
    """

    backend = "numpyro"
    broken_plate = staticmethod(broken_plate)

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.training, self.state = True, {}
        self.compiled: dict[Any, Any] = {}

    @property
    def state(self) -> dict[str, Any]:
        return self._state

    @state.setter
    def state(self, values: Mapping[str, Any] | None) -> None:
        self._state = dict(values or {})

    def trainable(self) -> dict[str, Any]:
        """Return the parameters that an optimizer should see (unconstrained), once they exist."""
        raise NotImplementedError

    def load_trainable(self, params: Mapping[str, Any]) -> None:
        """Set what `trainable` returns."""
        raise NotImplementedError

    def constrained(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the parameters' values at their sites."""
        raise NotImplementedError

    def to(self, device: Any) -> Self:
        """Move parameters and state to a JAX device."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Self:
        """Set train mode, or with False evaluation mode: statistics and codebooks rest."""
        self.training = mode
        return self

    def eval(self) -> Self:
        """Set evaluation mode."""
        return self.train(False)

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        return at_rest(self, seed, name)

    def tracer(self, seed: int = 0) -> Tracer:
        return Tracer(self, random.key(seed))

    def reached(self, function: Callable[..., Any], rows: Mapping[str, Any]) -> Any:
        program, shape = jax.make_jaxpr(lambda rows: function(self.tracer(), rows), return_shape=True)(rows)
        names, places = sorted(rows), range(len(program.out_avals))
        used = [dce_jaxpr(program.jaxpr, [place == one for one in places])[1] for place in places]
        reached = [{name for name, one in zip(names, of, strict=True) if one} for of in used]
        return jax.tree.unflatten(jax.tree.structure(shape), reached)

    def unregistered(self) -> list[str]:
        mine = {value.tobytes() for value in self.weights().values()}
        named = named_by(self.program.model, self.program.guide)
        return [name for name, one in named if isinstance(one, nnx.Module) and not _all_in(mine, one)]

    def put(self, arrays: Any) -> Any:
        return jax.device_put(arrays, self.device)

    def transform(self, fn: Any) -> Any:
        return biject_to(fn.support)

    def precision(self) -> np.dtype:
        """Return the floating point type of the parameters; without any JAX's own."""
        kinds = (np.dtype(v.dtype) for v in jax.tree.leaves(self.trainable()) if v.dtype.kind == "f")
        return next(kinds, np.dtype(jax.numpy.result_type(float)))

    def _array(self, value: Any) -> np.ndarray:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            raise DataError(f"a loader's batch holds {type(value).__name__}: NumPyro takes arrays of numbers")
        return array


def _all_in(weights: set[bytes], module: nnx.Module) -> bool:
    leaves = jax.tree.leaves(nnx.state(module, nnx.Param))
    return all(np.asarray(leaf).tobytes() in weights for leaf in leaves)
