"""Two plain NumPyro functions as a bound program: their parameters and mutable state are held here."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from jax.tree_util import keystr, tree_flatten_with_path
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from ppl_vae.backends.common import plain as common
from ppl_vae.backends.numpyro.devices import find_devices
from ppl_vae.backends.numpyro.library import OnNumPyro
from ppl_vae.errors import RunError


class PlainBound(common.PlainBound, OnNumPyro):
    """See `ppl_vae.backends.common.plain.PlainBound`."""

    registered = "register it with numpyro.contrib.module.nnx_module"

    def _set_up(self, device: str) -> None:
        self.free: dict[str, Any] | None = None
        self._transforms: dict[str, Any] = {}
        (self.device,) = find_devices(device)

    def to(self, device: Any) -> "PlainBound":
        self.device = device
        self.free, self.state = jax.device_put((self.free, self.state), device)
        return self

    @property
    def params(self) -> dict[str, Any]:
        return self.constrained(self.free or {})

    def constrained(self, params: Mapping[str, Any]) -> dict[str, Any]:
        return {name: self._transforms[name](value) for name, value in params.items()}

    def trainable(self) -> dict[str, Any]:
        return dict(self.free or {})

    def load_trainable(self, params: Mapping[str, Any]) -> None:
        self.free = dict(params)

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
        self.free, self.state = jax.device_put((free, self.state), self.device)
        if self._loaded is not None:
            try:
                self.load_weights(self._loaded)
            except RunError:  # the next call is refused as well
                self.free = None
                raise

    def weights(self) -> dict[str, np.ndarray]:
        """Return unconstrained parameters and mutable state by name and place in their tree, as copies."""
        leaves, _ = tree_flatten_with_path((self.free or {}, self.state))
        return {_name(path): np.array(value) for path, value in leaves}

    def load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Set parameters and state; held until they exist."""
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
        self.free, self.state = jax.device_put(tree.unflatten(values), self.device)
        self._loaded = None


def _noting(state: dict[str, Any]) -> Any:
    """Return a substitution that notes in `state` what each mutable site starts from."""

    def note(site: Mapping[str, Any]) -> None:
        if site["type"] == "mutable" and isinstance(site["value"], dict):
            state.setdefault(site["name"], dict(site["value"]))

    return note


def _name(path: tuple) -> str:
    first = path[1].key
    return first + keystr(path[2:])
