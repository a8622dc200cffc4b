"""The VAE of fully connected networks in NumPyro alone: its own `svi.update` in one `lax.scan`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import Array, lax, random
from numpyro.infer import SVI, TraceMeanField_ELBO

from peers.jax_vae import Layers, apply


def story(x: Array, weights: dict[str, Layers], z_dim: int) -> None:
    """Tell how a row came about."""
    decoder = numpyro.param("decoder", weights["decoder"])
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(np.zeros(z_dim, np.float32), 1.0).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=apply(decoder, z)).to_event(1), obs=x)


def guide(x: Array, weights: dict[str, Layers], z_dim: int) -> None:
    """Approximate the posterior."""
    loc, raw = jnp.split(apply(numpyro.param("encoder", weights["encoder"]), x), 2, -1)
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(loc, jax.nn.softplus(raw) + 1e-4).to_event(1))


def steps_of(
    weights: dict[str, Layers], x: np.ndarray, items: Sequence[np.ndarray], lr: float = 1e-3
) -> Callable[[], float]:
    """Return chunks of optimizer steps on batches of rows `items`; each returns its mean loss per row."""
    z_dim, data = weights["decoder"][0][0].shape[0], jax.device_put(x.reshape(len(x), -1))
    svi = SVI(story, guide, numpyro.optim.Adam(lr), TraceMeanField_ELBO(), z_dim=z_dim)
    rows = jax.device_put(np.stack(items).astype(np.int32))
    # Initial values are taken when the state is made, and not looked at afterwards.
    state = svi.init(random.key(0), data[rows[0]], weights=weights)

    def step(state: Any, index: Array) -> tuple[Any, Array]:
        return svi.update(state, data[index], weights=weights)

    chunk = jax.jit(lambda state, rows: lax.scan(step, state, rows), donate_argnums=0)
    size = len(items[0])

    def steps() -> float:
        nonlocal state
        state, values = chunk(state, rows)
        return float(jax.block_until_ready((state, values))[1].mean()) / size

    return steps
