"""Networks whose output is the parameters of a distribution."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ppl_vae import likelihoods
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.networks.basic import MLP
from ppl_vae.backends.pyro.networks.convolutional import ConvDown, ConvUp
from ppl_vae.errors import UsageError
from ppl_vae.likelihoods.base import positive
from ppl_vae.shapes import as_shape

DOWN = {"mlp": MLP, "conv": ConvDown}
UP = {"mlp": MLP, "conv": ConvUp}


def body(kinds: dict[str, type], kind: str) -> type:
    """Return the network class of a name."""
    if kind not in kinds:
        raise UsageError(f"unknown network {kind!r}: choose one of {', '.join(kinds)}")
    return kinds[kind]


class NormalParameters(NamedTuple):
    """Location and scale, each [..., *shape]."""

    loc: Tensor
    scale: Tensor


class LikelihoodParameters(NamedTuple):
    """The parameters of a likelihood, each [..., *x_shape] (class logits: [..., *x_shape, K]), and how many
    axes an observation has.
    """

    values: tuple[Tensor, ...]
    event_dim: int


class NormalHead(nn.Module):
    """[..., *in_shape] to the location and scale of a diagonal normal over [..., z_dim]."""

    def __init__(self, in_shape, hidden, z_dim: int, body_kind: str = "mlp", activation: str = "relu"):
        super().__init__()
        self.body = body(DOWN, body_kind)(in_shape, hidden, 2 * z_dim, activation)

    def forward(self, x: Tensor) -> NormalParameters:
        # Class labels are whole numbers.
        loc, raw = self.body(x if x.is_floating_point() else x.float()).chunk(2, -1)
        return NormalParameters(loc, positive(F, raw))


class FreeNormal(nn.Module):
    """Location and scale of a diagonal normal that depends on nothing: the guide of a global latent of shape
    `shape`.
    """

    def __init__(self, shape, scale: float = 0.1):
        super().__init__()
        self.loc = nn.Parameter(torch.zeros(as_shape(shape)))
        self.raw = nn.Parameter(torch.full(as_shape(shape), scale).expm1().log())

    def forward(self) -> NormalParameters:
        return NormalParameters(self.loc, positive(F, self.raw))


class ScaleTril(nn.Module):
    """A free lower triangular matrix [dim, dim] with a positive diagonal: the Cholesky factor of a
    covariance.
    """

    def __init__(self, dim: int):
        super().__init__()
        self.raw = nn.Parameter(torch.zeros(dim, dim))

    def forward(self) -> Tensor:
        return self.raw.tril(-1) + torch.diag_embed(positive(F, self.raw.diagonal()))


class MergedNormal(nn.Module):
    """Precision-weighted product of a bottom-up normal, read off a deterministic path, with a top-down
    normal.

    sigma^2 = 1 / (sigma_up^-2 + sigma_down^-2), mu = sigma^2 (mu_up sigma_up^-2 + mu_down sigma_down^-2):
    Sonderby et al., arXiv:1602.02282, eq. 18-19.
    """

    def __init__(self, in_dim: int, z_dim: int):
        super().__init__()
        self.out = nn.Linear(in_dim, 2 * z_dim)

    def forward(self, up: Tensor, down: NormalParameters | None = None) -> NormalParameters:
        loc, raw = self.out(up).chunk(2, -1)
        scale = positive(F, raw)
        if down is None:
            return NormalParameters(loc, scale)
        precision_up, precision_down = scale**-2, down.scale**-2
        precision = precision_up + precision_down
        return NormalParameters((loc * precision_up + down.loc * precision_down) / precision, precision**-0.5)


class Likelihood(nn.Module):
    """[..., z_dim] to the parameters of a named likelihood over [..., *x_shape]; shared sigmas are its
    parameters.
    """

    def __init__(
        self, likelihood: str, z_dim, hidden, x_shape, body_kind: str = "mlp", activation: str = "relu"
    ):
        super().__init__()
        self.kind, self.x_shape = likelihoods.parse(likelihood), as_shape(x_shape)
        out_shape = (self.kind.outputs * self.x_shape[0], *self.x_shape[1:])
        self.body = body(UP, body_kind)(z_dim, hidden, out_shape, activation)
        free = self.kind.free(self.x_shape)
        self.raw = None if free is None else nn.Parameter(torch.zeros(free))

    def forward(self, z: Tensor) -> LikelihoodParameters:
        flat = self.body(z)
        out = flat.reshape(*flat.shape[: flat.ndim - len(self.x_shape)], self.kind.outputs, *self.x_shape)
        out = F.to_single(out.movedim(-1 - len(self.x_shape), 0))
        return LikelihoodParameters(self.kind.parameters(F, out, self.raw), len(self.x_shape))
