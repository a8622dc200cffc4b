"""Networks whose output is the parameters of a normal distribution."""

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ppl_vae.functions import ActivationName
from ppl_vae.likelihoods.base import positive
from ppl_vae.networks.base import Network
from ppl_vae.networks.convolutional import ConvDown
from ppl_vae.networks.dense import MLP
from ppl_vae.shapes import Shape

Body = Literal["mlp", "conv"]
BODIES = {"mlp": MLP, "conv": ConvDown}


class NormalParameters(NamedTuple):
    """Location and scale, each [..., *shape]."""

    loc: Any
    scale: Any


def normal(F: Any, out: Any, axis: int = -1) -> NormalParameters:
    """Return location and scale from an output of twice the width along an axis."""
    loc, raw = F.split(out, 2, axis)
    return NormalParameters(loc, positive(F, raw))


@dataclass(frozen=True)
class NormalHead(Network):
    """[..., *in_shape] to the location and scale of a diagonal normal over [..., z_dim].

    Whole numbers (class labels) are taken as they are.
    """

    in_shape: Shape
    hidden: Shape
    z_dim: int
    body_kind: Body = "mlp"
    activation: ActivationName = "relu"

    def layers(self, nn):
        return {"body": BODIES[self.body_kind](self.in_shape, self.hidden, 2 * self.z_dim, self.activation)}

    def apply(self, F, net, x):
        return normal(F, net.body(F.to_float(x)))


@dataclass(frozen=True)
class FreeNormal(Network):
    """Location and scale of a diagonal normal that depends on nothing: the guide of a global latent of shape
    `shape`. The scale starts at `scale`.
    """

    shape: Shape
    scale: float = 0.1

    def layers(self, nn):
        return {
            "loc": nn.Parameter(self.shape),
            "raw": nn.Parameter(self.shape, math.log(math.expm1(self.scale))),
        }

    def apply(self, F, net):
        return NormalParameters(net.loc, positive(F, net.raw))


@dataclass(frozen=True)
class ScaleTril(Network):
    """A free lower triangular matrix [dim, dim] with a positive diagonal: the Cholesky factor of a
    covariance.
    """

    dim: int

    def layers(self, nn):
        return {"raw": nn.Parameter((self.dim, self.dim))}

    def apply(self, F, net):
        return F.tril(net.raw, -1) + F.diag(positive(F, F.diagonal(net.raw)))


@dataclass(frozen=True)
class MergedNormal(Network):
    """Precision-weighted product of a bottom-up normal, read off a deterministic path, and a top-down one.

    sigma^2 = 1 / (sigma_up^-2 + sigma_down^-2), mu = sigma^2 (mu_up sigma_up^-2 + mu_down sigma_down^-2).
    Without a top-down normal it is the bottom-up one.

    References
    ----------
    Sonderby et al., arXiv:1602.02282, eq. 18-19.
    """

    in_dim: int
    z_dim: int

    def layers(self, nn):
        return {"out": nn.Linear(self.in_dim, 2 * self.z_dim)}

    def apply(self, F, net, up, down=None):
        loc, scale = normal(F, net.out(up))
        if down is None:
            return NormalParameters(loc, scale)
        precision_up, precision_down = scale**-2, down.scale**-2
        precision = precision_up + precision_down
        return NormalParameters((loc * precision_up + down.loc * precision_down) / precision, precision**-0.5)
