"""The VAE of fully connected networks in JAX alone: chunks of steps in one `lax.scan`, optax's Adam."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random

Layers = list[tuple[Array, Array]]


def init(key: Array, dims: int, hidden: tuple[int, ...], z_dim: int) -> dict[str, Layers]:
    """Return weights of encoder and decoder: kernels [inputs, outputs] and biases."""
    encoder, decoder = random.split(key)
    widths = {
        "encoder": (encoder, (dims, *hidden, 2 * z_dim)),
        "decoder": (decoder, (z_dim, *hidden[::-1], dims)),
    }
    return {name: _layers(part, sizes) for name, (part, sizes) in widths.items()}


def _layers(key: Array, sizes: Sequence[int]) -> Layers:
    keys = random.split(key, len(sizes) - 1)
    return [
        (random.normal(one, pair) / pair[0] ** 0.5, jnp.zeros(pair[1]))
        for one, pair in zip(keys, pairwise(sizes), strict=True)
    ]


def apply(layers: Layers, x: Array) -> Array:
    """Linear maps with rectifiers between them."""
    for kernel, bias in layers[:-1]:
        x = jax.nn.relu(x @ kernel + bias)
    kernel, bias = layers[-1]
    return x @ kernel + bias


def loss(params: dict[str, Layers], x: Array, noise: Array) -> Array:
    """Return the negative ELBO of rows x [B, dims] in nats per row, given normal noise [B, z_dim]."""
    loc, raw = jnp.split(apply(params["encoder"], x), 2, -1)
    scale = jax.nn.softplus(raw) + 1e-4
    logits = apply(params["decoder"], loc + scale * noise)
    distortion = (jax.nn.softplus(logits) - x * logits).sum()
    rate = 0.5 * (loc**2 + scale**2 - 1).sum() - jnp.log(scale).sum()
    return (distortion + rate) / len(x)


def steps_of(
    params: dict[str, Layers], x: np.ndarray, items: Sequence[np.ndarray], lr: float = 1e-3
) -> Callable[[], float]:
    """Return chunks of optimizer steps on batches of rows `items`; each returns its mean loss.

    The data lie on the device, and what a chunk hands on is donated to it.
    """
    optimizer = optax.adam(lr)
    # Its own copy: donated arrays are gone after the call.
    params = jax.tree.map(jnp.array, params)
    data, rows = jax.device_put(x.reshape(len(x), -1)), jax.device_put(np.stack(items).astype(np.int32))
    z_dim = params["decoder"][0][0].shape[0]

    def step(carry: Any, index: Array) -> tuple[Any, Array]:
        params, state, key = carry
        key, part = random.split(key)
        noise = random.normal(part, (len(index), z_dim))
        value, grads = jax.value_and_grad(loss)(params, data[index], noise)
        updates, state = optimizer.update(grads, state)
        return (optax.apply_updates(params, updates), state, key), value

    chunk = jax.jit(lambda carry, rows: lax.scan(step, carry, rows), donate_argnums=0)
    carry = (params, optimizer.init(params), random.key(0))

    def steps() -> float:
        nonlocal carry
        carry, values = chunk(carry, rows)
        return float(jax.block_until_ready((carry, values))[1].mean())

    return steps
