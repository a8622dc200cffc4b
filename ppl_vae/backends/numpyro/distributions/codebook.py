"""The two distributions of a VQ-VAE: the guide that picks the nearest code, and the prior over codes."""

import jax
import jax.numpy as jnp
from jax import Array, lax, random
from jax.scipy.special import entr
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.kl import kl_divergence

from ppl_vae.backends.numpyro.functions import F
from ppl_vae.networks.codebook import nearest


class VectorQuantized(Distribution):
    """All mass on the code nearest to the encoder's output; its draw passes the gradient straight through.

    Parameters
    ----------
    z_e : [..., D]
        The encoder's output.
    codes : [...]
        Index of the nearest code.
    codebook : [K, D]
    """

    arg_constraints = {}
    support = constraints.real_vector
    pytree_data_fields = ("z_e", "codes", "codebook")
    has_rsample = True
    deterministic = True

    def __init__(self, z_e: Array, codes: Array, codebook: Array, *, validate_args=None):
        self.z_e, self.codes, self.codebook = z_e, codes, codebook
        super().__init__(z_e.shape[:-1], z_e.shape[-1:], validate_args=False)

    def expand(self, batch_shape: tuple[int, ...]) -> "VectorQuantized":
        """Return the same distribution with a larger batch shape."""
        z_e = jnp.broadcast_to(self.z_e, (*batch_shape, *self.event_shape))
        return VectorQuantized(z_e, jnp.broadcast_to(self.codes, batch_shape), self.codebook)

    @property
    def quantized(self) -> Array:
        """The chosen codes' vectors, [..., D]."""
        return self.codebook[self.codes]

    mean = quantized

    def sample(self, key, sample_shape=()) -> Array:
        value = self.z_e + lax.stop_gradient(self.quantized - self.z_e)
        return jnp.broadcast_to(value, (*sample_shape, *value.shape))

    rsample = sample

    def commitment_error(self) -> Array:
        """Return |z_e - sg(code)|^2, [...]: it pulls the encoder towards its codes."""
        return jnp.square(self.z_e - lax.stop_gradient(self.quantized)).sum(-1)

    def codebook_error(self) -> Array:
        """Return |sg(z_e) - code|^2, [...]: it pulls the codes towards the encoder."""
        return jnp.square(lax.stop_gradient(self.z_e) - self.quantized).sum(-1)

    def log_prob(self, value: Array, intermediates=None) -> Array:
        """Return log 1 = 0: the draw is certain."""
        return jnp.zeros(value.shape[:-1], value.dtype)

    def metrics(self) -> dict[str, Array]:
        """Return the perplexity of the chosen codes and the share of the codebook in use."""
        counts = jnp.zeros(self.codebook.shape[0], self.codebook.dtype).at[self.codes.reshape(-1)].add(1.0)
        return {"perplexity": jnp.exp(entr(counts / counts.sum()).sum()), "usage": (counts > 0).mean()}


class Codebook(Distribution):
    """Prior over the vectors of a codebook.

    Parameters
    ----------
    codebook : [K, D]
    logits : [K]
        Unnormalised log probabilities of the codes.
    """

    arg_constraints = {}
    support = constraints.real_vector
    pytree_data_fields = ("codebook", "logits")
    has_rsample = False

    def __init__(self, codebook: Array, logits: Array, batch_shape=(), *, validate_args=None):
        self.codebook, self.logits = codebook, logits
        super().__init__(tuple(batch_shape), codebook.shape[-1:], validate_args=False)

    def expand(self, batch_shape: tuple[int, ...]) -> "Codebook":
        """Return the same distribution with a larger batch shape."""
        return Codebook(self.codebook, self.logits, batch_shape)

    def sample(self, key, sample_shape=()) -> Array:
        index = random.categorical(key, self.logits, shape=tuple(sample_shape) + self.batch_shape)
        return lax.stop_gradient(self.codebook[index])

    @property
    def mean(self) -> Array:
        """The prior's mean vector."""
        return jnp.broadcast_to(jax.nn.softmax(self.logits) @ self.codebook, self.shape())

    def log_prob(self, value: Array, intermediates=None) -> Array:
        """Return the log prior of the code nearest to each vector, in nats."""
        index = nearest(F, lax.stop_gradient(self.codebook), lax.stop_gradient(value))
        return jax.nn.log_softmax(self.logits)[index]


@kl_divergence.register(VectorQuantized, Codebook)
def _kl_quantized_codebook(q: VectorQuantized, p: Codebook) -> Array:
    return -jax.nn.log_softmax(p.logits)[q.codes]
