"""Top-down variational autoencoder with bidirectional inference (Kingma et al. 2016, arXiv:1606.04934).

h_1 is learned;   z_l | z_<l ~ N(prior_l(h_l));   h_(l+1) = down_l(h_l, z_l);   x | z ~ Bernoulli(out(h)).
q(z_l | z_<l, x) = N(posterior_l(h_l, up(x))), with up(x) at the resolution of h_l.
The first half of the latents lies at a quarter of the image's resolution, the others at half of it. Guide and
model share the way down.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_vae import Program
from ppl_vae.backends.pyro.networks import Conv2d, ConvTranspose2d


@dataclass(frozen=True)
class TopDown(Program):
    backends = ("pyro",)

    x_shape: tuple[int, ...] | None = None  # filled in from the data; height and width in fours
    latents: int = 10
    z_channels: int = 8
    width: int = 32
    inner: int = 16  # channels within a residual block, and at full resolution

    def networks(self, _):
        channels, height, width = self.x_shape
        grows = [layer + 1 == self.low for layer in range(self.latents)]
        return {
            "up": Up(channels, self.width, self.inner),
            "start": Start((self.width, height // 4, width // 4)),
            "prior": [Prior(self.width, self.z_channels) for _ in grows],
            "posterior": [Posterior(self.width, self.z_channels) for _ in grows],
            "down": [Down(self.width, self.inner, self.z_channels, grow) for grow in grows],
            "out": Out(channels, self.width, self.inner),
        }

    @property
    def low(self):
        return (self.latents + 1) // 2

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            h = net.start()
            for layer in range(self.latents):
                loc, scale = net.prior[layer](h)
                z = ppl.sample(f"z_{layer + 1}", ppl.dist.Normal(loc, scale).to_event(3))
                h = net.down[layer](h, z)
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.out(h)).to_event(3), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            low, high = net.up(x)
            h = net.start()
            for layer in range(self.latents):
                loc, scale = net.posterior[layer](h, low if layer < self.low else high)
                z = ppl.sample(f"z_{layer + 1}", ppl.dist.Normal(loc, scale).to_event(3))
                if layer + 1 < self.latents:
                    h = net.down[layer](h, z)


class Residual(nn.Module):
    """x + a 1x1, a 3x3 and a 1x1 convolution, each after an activation: [..., C, H, W] to the same shape."""

    def __init__(self, width: int, inner: int):
        super().__init__()
        self.narrow, self.mix, self.widen = (
            Conv2d(width, inner, 1),
            Conv2d(inner, inner, 3, padding=1),
            Conv2d(inner, width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.widen(F.gelu(self.mix(F.gelu(self.narrow(F.gelu(x))))))


class Up(nn.Module):
    """Images to features at a quarter and at half of their resolution."""

    def __init__(self, channels: int, width: int, inner: int):
        super().__init__()
        self.stem, self.full = Conv2d(channels, inner, 3, padding=1), Residual(inner, inner)
        self.halve, self.middle = Conv2d(inner, width, 4, 2, 1), blocks(width, inner)
        self.quarter, self.last = Conv2d(width, width, 4, 2, 1), blocks(width, inner)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        high = self.middle(self.halve(F.gelu(self.full(self.stem(x)))))
        return self.last(self.quarter(F.gelu(high))), high


def blocks(width: int, inner: int) -> nn.Sequential:
    """Return two residual blocks."""
    return nn.Sequential(Residual(width, inner), Residual(width, inner))


class Start(nn.Module):
    """The learned features that the way down starts from, [C, H, W]."""

    def __init__(self, shape: tuple[int, ...]):
        super().__init__()
        self.value = nn.Parameter(torch.zeros(shape))

    def forward(self) -> Tensor:
        return self.value


def normal(out: Tensor) -> tuple[Tensor, Tensor]:
    """Return location and scale from twice as many channels."""
    loc, raw = out.chunk(2, -3)
    return loc, F.softplus(raw) + 1e-4


class Prior(nn.Module):
    """Features to location and scale, each [..., Z, H, W]."""

    def __init__(self, width: int, z_channels: int):
        super().__init__()
        self.out = Conv2d(width, 2 * z_channels, 1)

    def forward(self, h: Tensor) -> tuple[Tensor, Tensor]:
        return normal(self.out(F.gelu(h)))


class Posterior(nn.Module):
    """Features from above and from below to location and scale: a 1x1 convolution of both."""

    def __init__(self, width: int, z_channels: int):
        super().__init__()
        self.above, self.below = (
            Conv2d(width, 2 * z_channels, 1),
            Conv2d(width, 2 * z_channels, 1, bias=False),
        )

    def forward(self, h: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        return normal(self.above(F.gelu(h)) + self.below(F.gelu(up)))


class Down(nn.Module):
    """Take in a latent, [..., Z, H, W]; where it grows, go on at twice the resolution."""

    def __init__(self, width: int, inner: int, z_channels: int, grow: bool):
        super().__init__()
        self.take, self.block = Conv2d(z_channels, width, 1), Residual(width, inner)
        self.grow = ConvTranspose2d(width, width, 4, 2, 1) if grow else nn.Identity()

    def forward(self, h: Tensor, z: Tensor) -> Tensor:
        return self.grow(self.block(h + self.take(z)))


class Out(nn.Module):
    """Features at half resolution to the logits of an image."""

    def __init__(self, channels: int, width: int, inner: int):
        super().__init__()
        self.grow, self.last = (
            ConvTranspose2d(width, inner, 4, 2, 1),
            Conv2d(inner, channels, 3, padding=1),
        )

    def forward(self, h: Tensor) -> Tensor:
        return self.last(F.gelu(self.grow(F.gelu(h))))
