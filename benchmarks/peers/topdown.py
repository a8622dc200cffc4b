"""The top-down VAE of `models/topdown.py` by hand: one pass, in which priors and posteriors see one way
down.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Residual(nn.Module):
    """x + a 1x1, a 3x3 and a 1x1 convolution, each after an activation."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.narrow, self.mix, self.widen = (
            nn.Conv2d(width, inner, 1),
            nn.Conv2d(inner, inner, 3, padding=1),
            nn.Conv2d(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape [B, C, H, W]."""
        return x + self.widen(F.gelu(self.mix(F.gelu(self.narrow(F.gelu(x))))))


class HandWrittenTopDown(nn.Module):
    """A top-down VAE whose output is its negative ELBO, in nats per row.

    Its parameters come in the order of the declared program's, so that weights carry over.

    Parameters
    ----------
    shape : tuple of int
        C, H, W of an image.
    latents, z_channels, width, inner : int
        As in the declared program.
    """

    def __init__(self, shape: tuple[int, ...], latents: int, z_channels: int, width: int, inner: int):
        super().__init__()
        (channels, high, wide), self.low = shape, (latents + 1) // 2
        every, z = range(latents), 2 * z_channels
        self.stem, self.full = nn.Conv2d(channels, inner, 3, padding=1), Residual(inner, inner)
        self.halve, self.middle = nn.Conv2d(inner, width, 4, 2, 1), blocks(width, inner)
        self.quarter, self.last = nn.Conv2d(width, width, 4, 2, 1), blocks(width, inner)
        # In a list, as a module's own parameters come before those of its parts.
        self.start = nn.ParameterList([torch.zeros(1, width, high // 4, wide // 4)])
        self.prior = nn.ModuleList(nn.Conv2d(width, z, 1) for _ in every)
        self.posterior = nn.ModuleList(
            nn.ModuleList([nn.Conv2d(width, z, 1), nn.Conv2d(width, z, 1, bias=False)]) for _ in every
        )
        self.down = nn.ModuleList()
        for layer in every:
            parts = [nn.Conv2d(z_channels, width, 1), Residual(width, inner)]
            grow = [nn.ConvTranspose2d(width, width, 4, 2, 1)] if layer + 1 == self.low else []
            self.down.append(nn.ModuleList(parts + grow))
        self.out = nn.Sequential(
            nn.GELU(),
            nn.ConvTranspose2d(width, inner, 4, 2, 1),
            nn.GELU(),
            nn.Conv2d(inner, channels, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the loss of a batch [B, C, H, W]."""
        high = self.middle(self.halve(F.gelu(self.full(self.stem(x)))))
        low = self.last(self.quarter(F.gelu(high)))
        # What is below every posterior enters through the same activation: it is taken once.
        low, high, h, rate = F.gelu(low), F.gelu(high), self.start[0], x.new_zeros(())
        for layer, (take, block, *grow) in enumerate(self.down):
            features, (above, below) = F.gelu(h), self.posterior[layer]
            p_loc, p_scale = normal(self.prior[layer](features))
            q_loc, q_scale = normal(above(features) + below(low if layer < self.low else high))
            z = q_loc + q_scale * torch.randn_like(q_loc)
            rate = rate + divergence(q_loc, q_scale, p_loc, p_scale).sum()
            h = block(h + take(z))
            for one in grow:
                h = one(h)
        distortion = F.binary_cross_entropy_with_logits(self.out(h), x, reduction="sum")
        return (distortion + rate) / len(x)


def blocks(width: int, inner: int) -> nn.Sequential:
    """Return two residual blocks."""
    return nn.Sequential(Residual(width, inner), Residual(width, inner))


def normal(out: Tensor) -> tuple[Tensor, Tensor]:
    """Return location and scale from twice as many channels."""
    loc, raw = out.chunk(2, 1)
    return loc, F.softplus(raw) + 1e-4


def divergence(q_loc: Tensor, q_scale: Tensor, p_loc: Tensor, p_scale: Tensor) -> Tensor:
    """Return KL(q || p) of two normals, elementwise."""
    ratio, shift = q_scale / p_scale, (q_loc - p_loc) / p_scale
    return 0.5 * (ratio.square() + shift.square() - 1) - ratio.log()
