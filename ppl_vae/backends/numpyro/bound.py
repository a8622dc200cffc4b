"""A declared program whose `model` and `guide` are ordinary NumPyro functions."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from flax import nnx
from jax import Array

from ppl_vae.backends.common import primitives as common
from ppl_vae.backends.common.bound import DeclaredBound
from ppl_vae.backends.common.calls import NetworkCall, flat
from ppl_vae.backends.common.networks import networks_of
from ppl_vae.backends.common.primitives import DATA
from ppl_vae.backends.numpyro import weights
from ppl_vae.backends.numpyro.devices import find_devices
from ppl_vae.backends.numpyro.distributions import dist
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.library import OnNumPyro
from ppl_vae.backends.numpyro.modules import Part
from ppl_vae.backends.numpyro.networks import Seeded
from ppl_vae.faults import told
from ppl_vae.networks import Network
from ppl_vae.program import Program


class Primitives(common.Primitives):
    """See `ppl_vae.backends.common.primitives.Primitives`."""

    sample, plate, deterministic = map(staticmethod, (numpyro.sample, numpyro.plate, numpyro.deterministic))
    factor = staticmethod(numpyro.factor)
    dist, F = dist, F

    def _rows(self, rows: int) -> numpyro.plate:
        if self._num_data is None:
            return numpyro.plate(DATA, rows, dim=-1)
        # The indices are given: NumPyro would permute the whole data set at every call.
        with numpyro.handlers.substitute(data={DATA: jnp.arange(rows)}):
            return numpyro.plate(DATA, self._num_data, subsample_size=rows, dim=-1)

    def array(self, value: Any) -> Array:
        array = jnp.asarray(value)
        return array.astype(self._like.dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array

    @staticmethod
    def mask(mask: Array) -> Any:
        return numpyro.handlers.mask(mask=mask)


class Bound(DeclaredBound, OnNumPyro):
    """A program bound to NumPyro; see `ppl_vae.backends.common.bound.DeclaredBound`. Set `params` to use
    others than those that it keeps.
    """

    F = F

    def __init__(self, program: Program, num_data: int | None = None, seed: int = 0):
        super().__init__(program, num_data)
        nn = Seeded(seed)
        with told("the method networks"):
            made = networks_of(program, nn)
            self.parts = {name: _parts(nn, name, network) for name, network in made.items()}
        self._keep(self._all())

    def _all(self) -> list[Part]:
        return [part for name, parts in self.parts.items() for _, part in flat(name, parts)]

    def _keep(self, parts: list[Part]) -> None:
        self.params = {part.params_site: part.params for part in parts if part.params}
        self.state = {part.state_site: {"state": part.state} for part in parts if part.state}

    @property
    def device(self) -> Any:
        arrays = jax.tree.leaves((self.params, self.state))
        return next(iter(arrays[0].devices())) if arrays else jax.devices()[0]

    def to(self, device: Any) -> "Bound":
        self.params, self.state = jax.device_put((self.params, self.state), device)
        return self

    def trainable(self) -> dict[str, Any]:
        return dict(self.params)

    def load_trainable(self, params: Mapping[str, Any]) -> None:
        self.params = dict(params)

    def constrained(self, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return params

    def _run(self, role: str, args: tuple, data: dict[str, Any], n: int | None) -> Any:
        # A GPU may take TF32 for products of matrices in single precision, which torch does not unasked.
        with jax.default_matmul_precision("highest"):
            return super()._run(role, args, data, n)

    def primitives(self, draws: int | None, num_data: int | None) -> Primitives:
        like = np.empty(0, jnp.result_type(float))
        return Primitives(like, draws, num_data, self.scalars)

    def network_call(self, part: Part, frozen: bool) -> NetworkCall:
        params, state = self.params.get(part.params_site), self.state.get(part.state_site)
        state = None if state is None else state["state"]
        call = part.registered(params, state, self.training, not frozen, self.autocast)
        return NetworkCall(call, bool(part.state), part.foreign)

    def _modules(self) -> dict[str, nnx.Module]:
        states = {part.name: self.state.get(part.state_site, {"state": {}})["state"] for part in self._all()}
        return {p.name: p.module(self.params.get(p.params_site, {}), states[p.name]) for p in self._all()}

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by torch's names and in torch's layout, as copies on the host."""
        return weights.to_torch(self._modules())

    def declared_networks(self) -> Iterator[tuple[str, Network]]:
        return weights.declared(self._modules())

    def load_weights(self, arrays: Mapping[str, np.ndarray]) -> None:
        modules = self._modules()
        weights.from_torch(modules, self.completed(arrays, self.weights))
        self._keep([Part(name, module) for name, module in modules.items()])


def _parts(nn: Seeded, name: str, network: Any) -> Any:
    if isinstance(network, (list, tuple)):
        return [_parts(nn, f"{name}.{index}", item) for index, item in enumerate(network)]
    return Part(name, nn.module(network, name))


def bind(program: Program, *, num_data: int | None = None, seed: int = 0, device: str = "cpu") -> Bound:
    """Make the program's networks, with weights that depend on `seed` alone, and bind it to NumPyro."""
    (where,) = find_devices(device)
    with jax.default_device(where):
        return Bound(program, num_data, seed).to(where)
