"""What one training step hands on to the next, and that as bytes from which a run goes on bit by bit."""

from collections.abc import Collection
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ppl_vae.backends.common.engine import understood
from ppl_vae.errors import RunError

STATE = "state.safetensors"
BEST = "['best']"


class Carry(NamedTuple):
    """What one step hands on to the next."""

    params: Any
    optimizer: Any
    state: Any
    average: Any
    key: Array


class Kept(NamedTuple):
    """Weights that a run may end with."""

    params: Any
    state: Any

    @classmethod
    def of(cls, carry: Carry) -> "Kept":
        """Return the weights to evaluate: the averaged ones where there are any."""
        return cls(carry.params if carry.average is None else carry.average, carry.state)


@jax.jit
def copied(tree: Any) -> Any:
    """Return arrays that share no memory with the given ones: a step takes over the memory of its carry."""
    return jax.tree.map(jnp.copy, tree)


def to_bytes(carry: Carry, best: Kept | None) -> bytes:
    """Return the content of the file STATE."""
    leaves = _named({"carry": carry} | ({"best": best} if best else {}))
    return save_tensors({name: _plain(value) for name, value in leaves.items()})


def from_bytes(
    content: bytes, carry: Carry, best: Kept, added: Collection[str] = ()
) -> tuple[Carry, Kept | None]:
    """Return what `to_bytes` was given, placed as the given arrays are; None where no weights were selected.
    Weights of these names may be lacking, in files of earlier versions: they are as given.

    Raises
    ------
    RunError
        For a file that cannot be read, or is of other arrays than the given ones.
    """
    with understood(STATE):
        tensors = load_tensors(content)
    template: dict[str, Any] = {"carry": carry}
    if any(name.startswith(BEST) for name in tensors):
        template["best"] = best
    given = _named(template)
    ends = tuple(f"['{one.rpartition('.')[2]}']" for one in added)
    lacking = {name: _plain(value) for name, value in given.items() if ends and name.endswith(ends)}
    tensors = lacking | tensors
    arrays = {name: _plain(value).shape for name, value in given.items()}
    if arrays != {name: value.shape for name, value in tensors.items()}:
        raise RunError(f"{STATE} is of another program or optimizer: go on with the run's own settings")
    filled = jax.tree_util.tree_map_with_path(lambda path, old: _filled(tensors[_key(path)], old), template)
    return filled["carry"], filled.get("best")


_key = jax.tree_util.keystr


def _named(tree: Any) -> dict[str, Array]:
    return {_key(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _is_key(value: Array) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _plain(value: Array) -> np.ndarray:
    return np.asarray(random.key_data(value) if _is_key(value) else value)


def _filled(value: np.ndarray, old: Array) -> Array:
    # A copy: the next step must not take over memory of the file's.
    new = random.wrap_key_data(jnp.array(value)) if _is_key(old) else jnp.array(value, old.dtype)
    return jax.device_put(new, old.sharding)
