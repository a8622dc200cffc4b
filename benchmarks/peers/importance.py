"""The importance weighted bound by hand: the encoder once per row, samples in chunks, a running logsumexp."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from peers.mlp import HandWrittenVAE


class ImportanceWeights(torch.nn.Module):
    """log p(x, z) - log q(z | x) of samples z of the guide, for a VAE on bits."""

    def __init__(self, model: HandWrittenVAE):
        super().__init__()
        self.decoder = model.decoder

    def forward(self, x: Tensor, loc: Tensor, scale: Tensor, samples: int) -> Tensor:
        """Return log weights [samples, B] of rows x [B, dims] with loc, scale [B, z_dim]."""
        noise = torch.randn(samples, *loc.shape)
        z = loc + scale * noise
        logits = self.decoder(z)
        # log p(x | z) of bits is x . logits - sum of softplus(logits).
        likelihood = torch.einsum("bd,sbd->sb", x, logits) - F.softplus(logits).sum(-1)
        # The normals' constants cancel.
        ratio = 0.5 * (noise.square() - z.square()).sum(-1) + scale.log().sum(-1)
        return likelihood + ratio


@torch.inference_mode()
def bound(
    model: HandWrittenVAE,
    x: Tensor,
    samples: int,
    at_once: int = 100,
    rows: int = 40,
    weights: torch.nn.Module | None = None,
) -> Tensor:
    """Return log 1/k sum_k p(x, z_k) / q(z_k | x) of every row in nats, [N].

    Parameters
    ----------
    model : HandWrittenVAE
    x : Tensor
        Rows of bits, [N, ...].
    samples : int
        k.
    at_once, rows : int
        Samples and rows of one chunk.
    weights : module, optional
        `ImportanceWeights` of the model, or its compiled form.
    """
    weights = ImportanceWeights(model) if weights is None else weights
    x = x.flatten(1)
    locs, raw = model.encoder(x).chunk(2, -1)
    scales, found = F.softplus(raw) + 1e-4, []
    for start in range(0, len(x), rows):
        part = slice(start, start + rows)
        total = torch.full((len(x[part]),), -math.inf, dtype=torch.float64)
        for first in range(0, samples, at_once):
            count = min(at_once, samples - first)
            chunk = weights(x[part], locs[part], scales[part], count).double()
            total = torch.logaddexp(total, chunk.logsumexp(0))
        found.append(total - math.log(samples))
    return torch.cat(found)
