"""The two distributions of a VQ-VAE: the guide that picks the nearest code, and the prior over codes.

The two errors are the second and third terms of arXiv:1711.00937, eq. 3.
"""

from dataclasses import dataclass, replace
from typing import Any

from ppl_vae.distributions.base import Array, Distribution, closed_kl

Shape = tuple[int, ...]


def nearest(F: Any, vectors: Array, points: Array) -> Array:
    """Return the index of the nearest of vectors [K, D] for points [..., D]."""
    # Written out: torch.cdist would fix the number of rows in a captured graph.
    return F.argmin(F.square(vectors).sum(-1) - 2 * points @ vectors.mT)


@dataclass(frozen=True, eq=False)
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

    z_e: Array
    codes: Array
    codebook: Array

    event_dim = 1
    support = "real_vector"
    reparametrised = True
    deterministic = True

    def shapes(self, F: Any) -> tuple[Shape, Shape]:
        return tuple(self.z_e.shape[:-1]), tuple(self.z_e.shape[-1:])

    def expanded(self, F: Any, shape: Shape) -> "VectorQuantized":
        z_e = F.broadcast_to(self.z_e, (*shape, self.z_e.shape[-1]))
        return replace(self, z_e=z_e, codes=F.broadcast_to(self.codes, shape))

    def quantized(self, F: Any) -> Array:
        """Return the chosen codes' vectors, [..., D]."""
        return F.take(self.codebook, self.codes)

    def mean(self, F: Any) -> Array:
        return self.quantized(F)

    def draw(self, F: Any, noise: Any, shape: Shape) -> Array:
        return F.broadcast_to(self.z_e + F.stop_gradient(self.quantized(F) - self.z_e), shape)

    def log_prob(self, F: Any, value: Array) -> Array:
        """Return log 1 = 0: the draw is certain."""
        return F.zeros(value.shape[:-1], value)

    def commitment_error(self, F: Any) -> Array:
        """Return |z_e - sg(code)|^2, [...]: it pulls the encoder towards its codes."""
        return F.square(self.z_e - F.stop_gradient(self.quantized(F))).sum(-1)

    def codebook_error(self, F: Any) -> Array:
        """Return |sg(z_e) - code|^2, [...]: it pulls the codes towards the encoder."""
        return F.square(F.stop_gradient(self.z_e) - self.quantized(F)).sum(-1)

    def metrics(self, F: Any) -> dict[str, Array]:
        """Return the perplexity of the chosen codes and the share of the codebook in use."""
        counts = F.bincount(self.codes.reshape(-1), self.codebook.shape[0], self.codebook)
        (counts,) = F.totals(counts)
        share, used = counts / counts.sum(), counts > 0
        entropy = -F.where(used, share * F.log(F.where(used, share, 1.0)), 0.0).sum()
        return {"perplexity": F.exp(entropy), "usage": F.astype(used, share).mean()}


@dataclass(frozen=True, eq=False)
class Codebook(Distribution):
    """Prior over the vectors of a codebook.

    Parameters
    ----------
    codebook : [K, D]
    logits : [K]
        Unnormalised log probabilities of the codes.
    grid : tuple of int
        The batch shape: one vector at each place.
    """

    codebook: Array
    logits: Array
    grid: Shape = ()

    static = ("grid",)
    event_dim = 1
    support = "real_vector"

    def shapes(self, F: Any) -> tuple[Shape, Shape]:
        return tuple(self.grid), tuple(self.codebook.shape[-1:])

    def expanded(self, F: Any, shape: Shape) -> "Codebook":
        return replace(self, grid=shape)

    def nearest(self, F: Any, value: Array) -> Array:
        """Return the index of the code nearest to each vector, [..., D] to [...]."""
        return nearest(F, F.stop_gradient(self.codebook), F.stop_gradient(value))

    def draw(self, F: Any, noise: Any, shape: Shape) -> Array:
        return F.take(self.codebook, F.categorical(noise, self.logits, shape[:-1]))

    def mean(self, F: Any) -> Array:
        batch, event = self.shapes(F)
        return F.broadcast_to(F.softmax(self.logits) @ self.codebook, (*batch, *event))

    def log_prob(self, F: Any, value: Array) -> Array:
        """Return the log prior of the code nearest to each vector, in nats."""
        return F.take(F.log_softmax(self.logits), self.nearest(F, value))


@closed_kl(VectorQuantized, Codebook)
def _kl_quantized_codebook(F: Any, q: VectorQuantized, p: Codebook) -> Array:
    return -F.take(F.log_softmax(p.logits), q.codes)
