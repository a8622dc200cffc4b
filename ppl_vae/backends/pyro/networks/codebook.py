"""The codebook of a VQ-VAE, learned by moving averages or by gradients."""

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro import across
from ppl_vae.backends.pyro.functions import F
from ppl_vae.distributions.codebook import nearest
from ppl_vae.errors import UsageError


class Codes(NamedTuple):
    """What a codebook answers.

    Attributes
    ----------
    vectors : [K, D]
        The codebook that the codes refer to.
    logits : [K]
        Unnormalised log prior of the codes.
    index : [...] or None
        The nearest code of every vector that was asked for.
    """

    vectors: Tensor
    logits: Tensor
    index: Tensor | None


def _single_precision(device: str) -> AbstractContextManager:
    return torch.autocast(device, enabled=False) if device in ("cpu", "cuda") else nullcontext()


class CodebookState(nn.Module):
    """K vectors of D dimensions and a factorised prior over them (van den Oord et al., arXiv:1711.00937;
    moving averages: appendix A.1).

    With `learning="ema"` the vectors are buffers, moved in train mode by the points that chose them; the
    first batch (the one that several devices share) places them on points of its own. With
    `learning="gradient"` they are parameters. Distances and vectors are always single precision or better.

    Parameters
    ----------
    size, dim : int
        K and D.
    learning : {"ema", "gradient"}
    decay : float
        Of the moving averages.
    learned_prior : bool
        Learn one categorical prior for all positions; else it is uniform.
    """

    def __init__(
        self, size: int, dim: int, learning: str = "ema", decay: float = 0.99, learned_prior: bool = False
    ):
        super().__init__()
        if learning not in ("ema", "gradient"):
            raise UsageError(f"unknown codebook learning {learning!r}: choose ema or gradient")
        self.ema, self.decay, self.frozen = learning == "ema", decay, False
        self.register_buffer("placed", torch.zeros(()))
        vectors = torch.randn(size, dim)
        if self.ema:
            self.register_buffer("vectors", vectors)
            self.register_buffer("sums", vectors.clone())
            self.register_buffer("counts", torch.ones(size))
        else:
            self.vectors = nn.Parameter(vectors / size)
        if learned_prior:
            self.logits = nn.Parameter(torch.zeros(size))
        else:
            self.register_buffer("logits", torch.zeros(size))

    def forward(self, points: Tensor | None = None) -> Codes:
        if points is None:
            return Codes(self.vectors.clone(), self.logits, None)
        with _single_precision(points.device.type):
            flat = points.detach().reshape(-1, points.shape[-1]).to(self.vectors.dtype)
            vectors = self.vectors if not self.ema else self.vectors.clone()
            learns = self.ema and self.training and not self.frozen
            if learns:
                vectors = self._placed_on(flat, vectors)
            index = nearest(F, vectors.detach(), flat)
            if learns:
                self._learn(flat, index, vectors)
        return Codes(vectors, self.logits, index.reshape(points.shape[:-1]))

    def _placed_on(self, flat: Tensor, vectors: Tensor) -> Tensor:
        return torch.where(self.placed > 0, vectors, across.spread(flat, vectors.shape[0]))

    def _learn(self, flat: Tensor, index: Tensor, vectors: Tensor) -> None:
        chosen = F.one_hot(index, vectors.shape[0], flat)
        before = torch.where(self.placed > 0, self.sums, vectors)
        number, total = across.totals(chosen.sum(0), chosen.mT @ flat)
        counts = torch.lerp(number, self.counts, self.decay)
        sums = torch.lerp(total, before, self.decay)
        # Each buffer is computed out of place and written once: chained in-place updates are miscompiled on
        # CPU.
        self.counts.copy_(counts)
        self.sums.copy_(sums)
        self.vectors.copy_(sums / counts.clamp_min(1e-5).unsqueeze(-1))
        self.placed.copy_(torch.ones_like(self.placed))
