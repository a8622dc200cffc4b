"""The two distributions of a VQ-VAE: the guide that picks the nearest code, and the prior over codes."""

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import Categorical, constraints, register_kl

from ppl_vae.backends.pyro import across
from ppl_vae.backends.pyro.functions import F
from ppl_vae.networks.codebook import nearest


class VectorQuantized(TorchDistribution):
    """All mass on the code nearest to the encoder's output; its draw passes the gradient straight through to
    the encoder.

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
    has_rsample = True
    deterministic = True

    def __init__(self, z_e: Tensor, codes: Tensor, codebook: Tensor, validate_args=None):
        self.z_e, self.codes, self.codebook = z_e, codes, codebook
        super().__init__(z_e.shape[:-1], z_e.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        shape = torch.Size(batch_shape)
        return VectorQuantized(self.z_e.expand(*shape, -1), self.codes.expand(shape), self.codebook)

    @property
    def quantized(self) -> Tensor:
        """The chosen codes' vectors, [..., D]."""
        return self.codebook[self.codes]

    mean = quantized

    def rsample(self, sample_shape=torch.Size()) -> Tensor:
        value = self.z_e + (self.quantized - self.z_e).detach()
        return value.expand(self._extended_shape(sample_shape))

    def commitment_error(self) -> Tensor:
        """Return |z_e - sg(code)|^2, [...]: it pulls the encoder towards its codes."""
        return (self.z_e - self.quantized.detach()).square().sum(-1)

    def codebook_error(self) -> Tensor:
        """Return |sg(z_e) - code|^2, [...]: it pulls the codes towards the encoder."""
        return (self.z_e.detach() - self.quantized).square().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log 1 = 0: the draw is certain."""
        return value.new_zeros(()).expand(value.shape[:-1])

    def metrics(self) -> dict[str, Tensor]:
        """Return the perplexity of the chosen codes and the share of the codebook in use."""
        chosen = self.codes.reshape(-1)
        counts = self.codebook.new_zeros(self.codebook.shape[0]).scatter_add(
            0, chosen, self.codebook.new_ones(chosen.shape)
        )
        (counts,) = across.totals(counts)
        share = counts / counts.sum()
        return {
            "perplexity": torch.special.entr(share).sum().exp(),
            "usage": (counts > 0).to(share.dtype).mean(),
        }


class Codebook(TorchDistribution):
    """Prior over the vectors of a codebook.

    Parameters
    ----------
    codebook : [K, D]
    logits : [K]
        Unnormalised log probabilities of the codes.
    """

    arg_constraints = {}
    support = constraints.real_vector

    def __init__(self, codebook: Tensor, logits: Tensor, batch_shape=torch.Size(), validate_args=None):
        self.codebook, self.logits = codebook, logits
        super().__init__(torch.Size(batch_shape), codebook.shape[-1:], validate_args=False)

    def expand(self, batch_shape, _instance=None):
        return Codebook(self.codebook, self.logits, batch_shape)

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        with torch.no_grad():
            index = Categorical(logits=self.logits, validate_args=False).sample(
                torch.Size(sample_shape) + self.batch_shape
            )
            return self.codebook[index]

    @property
    def mean(self) -> Tensor:
        """The prior's mean vector."""
        return (self.logits.softmax(-1) @ self.codebook).expand(*self.batch_shape, -1)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log prior of the code nearest to each vector, in nats."""
        return self.logits.log_softmax(-1)[nearest(F, self.codebook.detach(), value.detach())]


@register_kl(VectorQuantized, Codebook)
def _kl_quantized_codebook(q: VectorQuantized, p: Codebook) -> Tensor:
    return -p.logits.log_softmax(-1)[q.codes]
