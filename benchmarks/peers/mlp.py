"""The VAE of fully connected networks as a careful person writes it in torch alone: one pass."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class HandWrittenVAE(nn.Module):
    """A VAE of fully connected networks whose output is its negative ELBO, in nats per row.

    Parameters
    ----------
    dims, z_dim : int
    hidden : tuple of int
        Of the encoder; the decoder has the same in reverse.
    autocast : torch.dtype, optional
        Of the networks; densities stay in single precision.
    """

    def __init__(self, dims: int, hidden: tuple[int, ...], z_dim: int, autocast: torch.dtype | None = None):
        super().__init__()
        self.encoder = layers((dims, *hidden, 2 * z_dim))
        self.decoder = layers((z_dim, *hidden[::-1], dims))
        self.autocast = autocast

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of a batch [B, ...]."""
        device, kind = x.device.type, self.autocast or torch.bfloat16
        with torch.autocast(device, kind, enabled=self.autocast is not None):
            loc, raw = self.encoder(x.flatten(1)).float().chunk(2, -1)
        scale = F.softplus(raw) + 1e-4
        z = loc + scale * torch.randn_like(loc)
        with torch.autocast(device, kind, enabled=self.autocast is not None):
            logits = self.decoder(z).float()
        distortion = F.binary_cross_entropy_with_logits(logits, x.flatten(1), reduction="sum")
        rate = 0.5 * (loc.square() + scale.square() - 1).sum() - scale.log().sum()
        return (distortion + rate) / len(x)


def layers(widths: tuple[int, ...]) -> nn.Sequential:
    """Return linear maps with rectifiers between them."""
    found: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        found += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*found[:-1])
