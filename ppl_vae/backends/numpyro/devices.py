"""The devices of a run: one, or several with the same weights, each with its share of the rows of a batch."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

from ppl_vae.backends.common.devices import parse
from ppl_vae.errors import DataError, UsageError

ROWS = "rows"
# JAX reads this before its first array, for which it would take three quarters of a GPU's memory: torch may
# need some too.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def find_devices(name: str, count: int = 1) -> list[Any]:
    """Return JAX devices by the name of the first: auto, cpu, cuda, cuda:1 ...

    Raises
    ------
    UsageError
        For an unknown name, or devices that this machine lacks.
    """
    kind, first = parse(name)
    try:
        devices = jax.devices(None if kind == "auto" else kind)
    except RuntimeError:
        devices = []
    if first >= len(devices):
        raise UsageError(f"device {name!r}: JAX sees {len(devices)} devices of this kind here")
    if first + count > len(devices):
        raise UsageError(f"devices={count}: {_lacking(name, count, devices[first:])}")
    return devices[first : first + count]


def narrow(arrays: Any) -> Any:
    """Return arrays as they are, once JAX holds their whole numbers: it takes those of NumPy modulo 2 ** 32.

    Raises
    ------
    DataError
        For greater ones.
    """
    for values in jax.tree.leaves(arrays):
        if isinstance(values, np.ndarray) and values.dtype.kind in "iu" and values.size:
            held = np.iinfo(jax.dtypes.canonicalize_dtype(values.dtype))
            if values.max() > held.max or values.min() < held.min:
                raise DataError(
                    f"JAX holds whole numbers of {held.bits} bits, the data has {values.max()}: "
                    "scale it down, give it with fractions, or use the backend pyro"
                )
    return arrays


def _lacking(name: str, count: int, devices: list[Any]) -> str:
    text = f"from {name!r} on JAX sees {len(devices)} here: ask for no more"
    if devices[0].platform == "cpu":
        text += f", or set XLA_FLAGS=--xla_force_host_platform_device_count={count} before Python starts"
    return text


class Devices:
    """Where the arrays of a run lie.

    Parameters
    ----------
    name : str
        The first device, as for `find_devices`.
    count : int

    Attributes
    ----------
    first : jax.Device
        Where the weights lie that others see: bounds are computed there.
    count : int
    """

    def __init__(self, name: str, count: int = 1):
        devices = find_devices(name, count)
        self.first, self.count = devices[0], count
        self._mesh = Mesh(np.array(devices), (ROWS,)) if count > 1 else None
        self._everywhere = self._sharding()

    def _sharding(self, *axes: str) -> Any:
        if self._mesh is None:
            return SingleDeviceSharding(self.first)
        return NamedSharding(self._mesh, PartitionSpec(*axes))

    def _by_rows(self, array: Any) -> Any:
        """Return how an array with rows first lies: whole on every device where shares would be unequal."""
        shared = np.ndim(array) > 0 and len(array) % self.count == 0
        return self._sharding(ROWS) if shared else self._everywhere

    def check_fits(self, batch_size: int) -> None:
        """Refuse batches that are not shared out: only the odd last one of an epoch is worked on by all."""
        if batch_size % self.count:
            raise UsageError(
                f"batch_size={batch_size} cannot be shared out over devices={self.count}: choose a multiple"
            )

    def put(self, tree: Any) -> Any:
        """Put arrays on every device."""
        return jax.device_put(tree, self._everywhere)

    def put_batch(self, batch: Mapping[str, Any]) -> dict[str, Array]:
        """Put on each device its share of the rows."""
        return {name: jax.device_put(array, self._by_rows(array)) for name, array in batch.items()}

    def batch(self, batch: Mapping[str, Array]) -> dict[str, Array]:
        """Within a compiled function, let each device work on its share of the rows."""
        if self._mesh is None:
            return dict(batch)
        return {n: lax.with_sharding_constraint(a, self._by_rows(a)) for n, a in batch.items()}

    def same(self, tree: Any) -> Any:
        """Within a compiled function, keep arrays the same on every device."""
        return tree if self._mesh is None else lax.with_sharding_constraint(tree, self._everywhere)

    def on_first(self, tree: Any) -> Any:
        """Return what the first device holds of arrays that are the same everywhere; the memory is shared."""
        return tree if self._mesh is None else jax.tree.map(lambda array: array.addressable_data(0), tree)
