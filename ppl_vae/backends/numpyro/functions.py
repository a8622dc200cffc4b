"""`F` of networks, distributions and objectives on JAX."""

import math
from functools import partial
from itertools import accumulate

import jax
import jax.numpy as jnp
from jax import lax, random

from ppl_vae.functions import Functions, along

HALF = (jnp.bfloat16, jnp.float16)


class JaxFunctions(Functions, modules=(jnp, jax.nn, lax)):
    """See `ppl_vae.functions.Functions`."""

    gelu = staticmethod(partial(jax.nn.gelu, approximate=False))
    lgamma = staticmethod(jax.scipy.special.gammaln)
    stop_gradient, tril = map(staticmethod, (lax.stop_gradient, jnp.tril))
    # Their arguments are the Array API's.
    sum, mean, var, max, min = map(staticmethod, (jnp.sum, jnp.mean, jnp.var, jnp.max, jnp.min))
    moveaxis, permute, broadcast_to = map(staticmethod, (jnp.moveaxis, jnp.transpose, jnp.broadcast_to))
    argmax, argmin, logsumexp = map(along, (jnp.argmax, jnp.argmin, jax.scipy.special.logsumexp))
    softmax, log_softmax, cumsum = map(along, (jax.nn.softmax, jax.nn.log_softmax, jnp.cumsum))
    expand_dims, flip = map(staticmethod, (jnp.expand_dims, jnp.flip))

    def clip(self, x, low=None, high=None):
        return jnp.clip(x, low, high)

    def _joined(self, parts, axis):
        return jnp.concatenate(tuple(parts), axis)

    def stack(self, parts, axis=0):
        return jnp.stack(tuple(parts), axis)

    def split(self, x, parts, axis=-1):
        return tuple(jnp.split(x, parts if isinstance(parts, int) else list(accumulate(parts))[:-1], axis))

    def pad(self, x, widths, value=0.0):
        return jnp.pad(x, [(0, 0)] * (x.ndim - len(widths)) + list(widths), constant_values=value)

    def take(self, x, index, axis=0):
        return jnp.take(x, index, axis)

    def take_along_axis(self, x, index, axis=-1):
        return jnp.take_along_axis(x, index, axis)

    def diagonal(self, x):
        return jnp.diagonal(x, axis1=-2, axis2=-1)

    def diag(self, x):
        return x[..., None] * jnp.eye(x.shape[-1], dtype=x.dtype)

    def _resized(self, x, size, method):
        # Of JAX's own, "nearest" rounds otherwise than torch's and "linear" smooths where an image shrinks.
        for axis, new in zip((-2, -1), size, strict=True):
            old = x.shape[axis]
            if method == "nearest":
                x = jnp.take(x, jnp.arange(new) * old // new, axis)
                continue
            place = jnp.clip((jnp.arange(new) + 0.5) * (old / new) - 0.5, 0, old - 1)
            low = jnp.floor(place).astype(int)
            part = (place - low).astype(x.dtype).reshape(-1, *[1] * (-1 - axis))
            high = jnp.minimum(low + 1, old - 1)
            x = jnp.take(x, low, axis) * (1 - part) + jnp.take(x, high, axis) * part
        return x

    def astype(self, x, like):
        return x.astype(like.dtype)

    def to_float(self, x):
        return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.float32)

    def to_whole(self, x):
        return x.astype(int)

    def to_single(self, x):
        return x.astype(jnp.float32) if x.dtype in HALF else x

    def asarray(self, value, like):
        return jnp.asarray(value, like.dtype)

    def full(self, shape, value, like):
        return jnp.full(tuple(shape), value, like.dtype)

    def arange(self, count, like):
        return jnp.arange(count)

    def one_hot(self, index, count, like):
        return jax.nn.one_hot(index, count, dtype=like.dtype)

    def bincount(self, index, count, like):
        return jnp.zeros(count, like.dtype).at[index].add(1)

    def attention(self, query, key, value, causal=False):
        scores = query @ key.mT / math.sqrt(query.shape[-1])
        if causal:
            rows, columns = scores.shape[-2:]
            scores = jnp.where(jnp.tri(rows, columns, columns - rows, dtype=bool), scores, -jnp.inf)
        return jax.nn.softmax(scores, -1) @ value

    def fork(self, noise, count):
        return tuple(random.split(noise, count))

    def uniform(self, noise, shape, like):
        info = jnp.finfo(like.dtype)
        return random.uniform(noise, tuple(shape), like.dtype).clip(info.tiny, 1 - info.eps)

    def normal(self, noise, shape, like):
        return random.normal(noise, tuple(shape), like.dtype)

    def gamma(self, noise, concentration):
        return random.gamma(noise, concentration)

    def poisson(self, noise, rate):
        return random.poisson(noise, lax.stop_gradient(rate)).astype(rate.dtype)

    def categorical(self, noise, logits, shape):
        return random.categorical(noise, lax.stop_gradient(logits), shape=tuple(shape))


F = JaxFunctions()
