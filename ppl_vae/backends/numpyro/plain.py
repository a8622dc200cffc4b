"""Two plain NumPyro functions as a bound program: their parameters and mutable state are held here."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.tree_util import keystr, tree_flatten_with_path
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from ppl_vae.backends.common.bound import Scalars
from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.numpyro.bound import as_array, precision_of
from ppl_vae.backends.numpyro.devices import find_devices
from ppl_vae.backends.numpyro.passes import Passes, at_rest
from ppl_vae.backends.numpyro.tracing import Tracer
from ppl_vae.errors import RunError
from ppl_vae.program import Arguments, PlainProgram, arguments


class PlainBound(Scalars):
    """`model` and `guide` as they are; their parameters come to exist when they first run on data.

    Parameters
    ----------
    program : PlainProgram
    fields : tuple of str, or None
        The data's fields; None where a loader's batches are passed on whole.

    Attributes
    ----------
    params, state : dict
        Values of the `numpyro.param` sites (within their constraints) and of the `mutable` sites.
    """

    backend, declared = "numpyro", False

    def __init__(
        self,
        program: PlainProgram,
        fields: tuple[str, ...] | None = None,
        num_data: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ):
        self.program, self.num_data, self._seed = program, num_data, seed
        self.arguments = arguments(program, fields) if fields else Arguments()
        self.fields = self.arguments.positional + self.arguments.named
        self.autocast, self.training, self.compiled, self.layouts = None, True, {}, {}
        self.start_scalars(program)
        self.free: dict[str, Any] | None = None
        self.state: dict[str, Any] = {}
        self._transforms: dict[str, Any] = {}
        self._loaded: Mapping[str, np.ndarray] | None = None
        (self._device,) = find_devices(device)

    @property
    def device(self) -> Any:
        """Where the parameters lie."""
        return self._device

    def to(self, device: Any) -> "PlainBound":
        """Move parameters and state to a JAX device."""
        self._device = device
        self.free, self.state = jax.device_put((self.free, self.state), device)
        return self

    @property
    def params(self) -> dict[str, Any]:
        """Parameters by site name, within their constraints."""
        return self.constrained(self.free or {})

    def constrained(self, free: Mapping[str, Any]) -> dict[str, Any]:
        """Return the sites' values for unconstrained parameters."""
        return {name: self._transforms[name](value) for name, value in free.items()}

    def trainable(self) -> dict[str, Any]:
        """Return the unconstrained parameters, once they exist."""
        return dict(self.free or {})

    def load_trainable(self, free: Mapping[str, Any]) -> None:
        """Set the unconstrained parameters."""
        self.free = dict(free)

    def model(self, *args: Array, **batch: Array) -> Any:
        """Run the user's model."""
        return self._run(self.program.model, args, batch)

    def guide(self, *args: Array, **batch: Array) -> Any:
        """Run the user's guide."""
        return self._run(self.program.guide, args, batch)

    def _run(self, function: Any, args: tuple, batch: Mapping[str, Array]) -> Any:
        # JAX sorts a dict by its keys, so the order of the arguments is not that of the dict.
        positional = [name for name in self.arguments.positional if name in batch] or sorted(batch)
        named = {name: batch[name] for name in self.arguments.named if name in batch}
        return function(*args, *(batch[name] for name in positional if name not in named), **named)

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Do nothing: a plain program scales its sites itself."""
        yield

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        """Run as it is: parameters are given by handlers."""
        yield

    def passes(self, seed: int, name: str | None = None) -> AbstractContextManager[Passes]:
        """Return passes over rows in evaluation mode."""
        return at_rest(self, seed, name)

    def tracer(self, seed: int = 0) -> Tracer:
        """Return a Tracer of the present weights."""
        return Tracer(self, random.key(seed))

    def put(self, arrays: Any) -> Any:
        """Return nested dicts of arrays of the host on the program's device."""
        return jax.device_put(arrays, self.device)

    def transform(self, fn: Any) -> Any:
        """Return the bijection from unconstrained numbers to a distribution's support."""
        return biject_to(fn.support)

    def precision(self) -> np.dtype:
        """Return the floating point type of the parameters."""
        return precision_of(self.free)

    def train(self, mode: bool = True) -> "PlainBound":
        """Record the mode: plain functions have none that could be set."""
        self.training = mode
        return self

    def eval(self) -> "PlainBound":
        """Record evaluation mode."""
        return self.train(False)

    def ensure_parameters(self, batch: Mapping[str, Array]) -> None:
        """Run guide and model once, if their parameters do not exist yet; then set those loaded before."""
        if self.free is not None:
            return
        model_key, guide_key = random.split(random.key(self._seed))
        # A run moves the state that its trace shows, so what it starts from is noted on the way.
        with handlers.substitute(substitute_fn=_noting(self.state)):
            guide = handlers.trace(handlers.seed(self.guide, guide_key)).get_trace(**batch)
            model = handlers.replay(handlers.seed(self.model, model_key), trace=guide)
            sites = handlers.trace(model).get_trace(**batch) | guide
        free = {}
        for name, site in sites.items():
            if site["type"] == "param":
                self._transforms[name] = biject_to(site["kwargs"].get("constraint", constraints.real))
                free[name] = jax.tree.map(jnp.asarray, self._transforms[name].inv(site["value"]))
        self.free, self.state = jax.device_put((free, self.state), self._device)
        if self._loaded is not None:
            self.load_weights(self._loaded)

    def weights(self) -> dict[str, np.ndarray]:
        """Return unconstrained parameters and mutable state by name and place in their tree, as copies."""
        leaves, _ = tree_flatten_with_path((self.free or {}, self.state))
        return {_name(path): np.array(value) for path, value in leaves}

    def load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set parameters and state; kept until they exist.

        Raises
        ------
        RunError
            Where names or shapes are not the program's.
        """
        if self.free is None:
            self._loaded = dict(arrays)
            return
        leaves, tree = tree_flatten_with_path((self.free, self.state))
        names = {_name(path): value.shape for path, value in leaves}
        other = {name: np.shape(value) for name, value in arrays.items()}
        if names != other:
            listed = ", ".join(sorted(name for name, _ in set(names.items()) ^ set(other.items())))
            raise RunError(f"the weights do not fit {self.program.name}: {listed} differ")
        values = [jnp.asarray(arrays[_name(path)], value.dtype) for path, value in leaves]
        self.free, self.state = jax.device_put(tree.unflatten(values), self._device)
        self._loaded = None

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return what a loader yields as the positional arguments of model and guide."""
        parts = (
            item.values()
            if isinstance(item, Mapping)
            else item
            if isinstance(item, (tuple, list))
            else (item,)
        )
        return {f"argument {number:03}": as_array(part) for number, part in enumerate(parts)}


def _noting(state: dict[str, Any]) -> Any:
    """Return a substitution that notes in `state` what each mutable site starts from."""

    def note(site: Mapping[str, Any]) -> None:
        if site["type"] == "mutable" and isinstance(site["value"], dict):
            state.setdefault(site["name"], dict(site["value"]))

    return note


def _name(path: tuple) -> str:
    first = path[1].key
    return first + keystr(path[2:])
