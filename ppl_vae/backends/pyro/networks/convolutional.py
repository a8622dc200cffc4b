"""Convolutional networks over [..., C, H, W]: residual blocks, and the way down to a vector and up to an
image.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

from ppl_vae.backends.pyro.networks.basic import Conv2d, ConvTranspose2d, Linear, named_activation
from ppl_vae.shapes import as_shape, halved, image_shape


class ResidualBlock(nn.Module):
    """x + conv1x1(act(conv3x3(act(x)))) (He et al., arXiv:1603.05027), [..., C, H, W] to the same shape."""

    def __init__(self, channels: int, hidden: int, activation: str = "relu"):
        super().__init__()
        self.act = named_activation(activation)
        self.conv3, self.conv1 = Conv2d(channels, hidden, 3, padding=1), Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv1(self.act(self.conv3(self.act(x))))


class ConvDown(nn.Module):
    """Two 3x3 convolutions of stride 2, a hidden layer, `out_shape`: [..., C, H, W] to [..., *out_shape]."""

    def __init__(self, in_shape, hidden, out_shape, activation: str = "relu"):
        super().__init__()
        channels, height, width = image_shape(in_shape)
        first, last = as_shape(hidden)[0], as_shape(hidden)[-1]
        self.out_shape = as_shape(out_shape)
        self.conv1 = Conv2d(channels, max(1, first // 8), 3, stride=2, padding=1)
        self.conv2 = Conv2d(max(1, first // 8), max(1, first // 4), 3, stride=2, padding=1)
        self.dense = Linear(max(1, first // 4) * halved(height, 2) * halved(width, 2), last)
        self.out = Linear(last, math.prod(self.out_shape))
        self.act = named_activation(activation)

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.conv2(self.act(self.conv1(x))))
        h = self.act(self.dense(h.flatten(-3)))
        return self.out(h).reshape(*x.shape[:-3], *self.out_shape)


class ConvUp(nn.Module):
    """The way back: a hidden layer, two transposed 4x4 convolutions of stride 2, cropped: [..., D] to [...,
    C, H, W].
    """

    def __init__(self, in_shape, hidden, out_shape, activation: str = "relu"):
        super().__init__()
        (self.inputs,) = as_shape(in_shape)
        channels, self.height, self.width = image_shape(out_shape)
        first, last = as_shape(hidden)[0], as_shape(hidden)[-1]
        self.start = (max(1, first // 4), halved(self.height, 2), halved(self.width, 2))
        self.dense = Linear(self.inputs, last)
        self.spread = Linear(last, self.start[0] * self.start[1] * self.start[2])
        self.up1 = ConvTranspose2d(self.start[0], max(1, first // 8), 4, stride=2, padding=1)
        self.up2 = ConvTranspose2d(max(1, first // 8), channels, 4, stride=2, padding=1)
        self.act = named_activation(activation)

    def forward(self, z: Tensor) -> Tensor:
        h = self.act(self.spread(self.act(self.dense(z)))).reshape(*z.shape[:-1], *self.start)
        h = self.act(self.up1(h))[..., : halved(self.height, 1), : halved(self.width, 1)]
        return self.up2(h)[..., : self.height, : self.width]


class ConvGrid(nn.Module):
    """Encoder of a VQ-VAE (arXiv:1711.00937, section 4.1): [..., C, H, W] to a grid of vectors [..., H/4,
    W/4, D].
    """

    def __init__(self, in_shape, hidden: int, code_dim: int, residual_hidden: int = 32, blocks: int = 2):
        super().__init__()
        channels, _, _ = image_shape(in_shape)
        self.down1 = Conv2d(channels, hidden // 2, 4, stride=2, padding=1)
        self.down2 = Conv2d(hidden // 2, hidden, 4, stride=2, padding=1)
        self.conv = Conv2d(hidden, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, residual_hidden) for _ in range(blocks))
        self.out = Conv2d(hidden, code_dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv(F.relu(self.down2(F.relu(self.down1(x)))))
        for block in self.blocks:
            h = block(h)
        return self.out(F.relu(h)).movedim(-3, -1)


class GridConv(nn.Module):
    """Decoder of a VQ-VAE: a grid of vectors [..., h, w, D] to an image [..., C, 4h, 4w]."""

    def __init__(self, code_dim: int, hidden: int, out_shape, residual_hidden: int = 32, blocks: int = 2):
        super().__init__()
        channels, _, _ = image_shape(out_shape, multiple=4)
        self.conv = Conv2d(code_dim, hidden, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(hidden, residual_hidden) for _ in range(blocks))
        self.up1 = ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1)
        self.up2 = ConvTranspose2d(hidden // 2, channels, 4, stride=2, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        h = self.conv(z.movedim(-1, -3))
        for block in self.blocks:
            h = block(h)
        return self.up2(F.relu(self.up1(F.relu(h))))
