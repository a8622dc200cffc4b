"""Arrays that a network keeps, learned ones and those that it changes itself, and their first values.

First values follow torch's distributions.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import Array, random

from ppl_vae.backends.common.networks import deviation
from ppl_vae.shapes import Shape, as_shape


class Kept(nnx.Variable):
    """An array that a network keeps and no gradient reaches: statistics, moving averages."""


def Parameter(shape: Shape, init: Any = 0.0, *, rngs: nnx.Rngs) -> nnx.Param:
    """Return a learned array.

    Within a network it is an array, `net.NAME`; as a network of a program, or in a list, it is called:
    `net.NAME()`.

    Parameters
    ----------
    shape : int or tuple of int
    init : float, array or str
        One number everywhere, values that broadcast to `shape`, or `normal` and `normal:0.02`: draws from
        N(0, 1) and N(0, 0.02^2).
    """
    return nnx.Param(_first(shape, init, rngs))


def Buffer(shape: Shape, init: Any = 0.0, *, rngs: nnx.Rngs) -> Kept:
    """Return an array that no gradient reaches and that its network may change with `net.keep`."""
    return Kept(_first(shape, init, rngs))


def _first(shape: Shape, init: Any, rngs: nnx.Rngs) -> Array:
    return normal(shape, deviation(init), rngs=rngs) if isinstance(init, str) else filled(shape, init)


def normal(shape: Shape, std: float = 1.0, *, rngs: nnx.Rngs) -> Array:
    """Draw first values from N(0, std^2)."""
    return drawn(rngs.params(), as_shape(shape), np.random.Generator.standard_normal) * std


def filled(shape: Shape, init: Any = 0.0) -> Array:
    """Return single-precision values, broadcast to a shape."""
    return _put(np.broadcast_to(np.asarray(init, np.float32), as_shape(shape)))


def drawn(key: Array, shape: tuple[int, ...], draw: Callable[[Any, tuple[int, ...]], np.ndarray]) -> Array:
    """Return draws of NumPy's, in single precision."""
    rng = np.random.default_rng(np.asarray(random.key_data(key)))
    return _put(draw(rng, shape).astype(np.float32))


def _put(values: np.ndarray) -> Array:
    # NumPy's work, and moved: to make or to convert an array JAX compiles a program for every shape.
    return jax.device_put(values)


def within(fan_in: int) -> Callable[..., Array]:
    """Return torch's initialiser of weights and biases: uniform within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    return lambda key, shape, dtype=None: drawn(
        key, shape, lambda rng, sizes: rng.uniform(-bound, bound, sizes)
    )
