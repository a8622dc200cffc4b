"""Convolutional networks over [..., C, H, W]: residual blocks, down to a vector or a grid, up to an image."""

import math
from dataclasses import dataclass
from typing import ClassVar

from ppl_vae.functions import ActivationName
from ppl_vae.networks.base import Network
from ppl_vae.shapes import Shape, as_shape, halved, image_shape


@dataclass(frozen=True)
class ResidualBlock(Network):
    """x + conv1x1(act(conv3x3(act(x)))) (He et al., arXiv:1603.05027), [..., C, H, W] to the same shape."""

    channels: int
    hidden: int
    activation: ActivationName = "relu"

    def layers(self, nn):
        return {
            "conv3": nn.Conv2d(self.channels, self.hidden, 3, padding=1),
            "conv1": nn.Conv2d(self.hidden, self.channels, 1),
        }

    def apply(self, F, net, x):
        act = F.activation(self.activation)
        return x + net.conv1(act(net.conv3(act(x))))


@dataclass(frozen=True)
class Bottleneck(Network):
    """x + a 1x1, a 3x3 and a 1x1 convolution, each after an activation, through `hidden` channels.

    [..., channels, H, W] to the same shape (He et al., arXiv:1603.05027; in ladders: arXiv:2011.10650).
    """

    channels: int
    hidden: int
    activation: ActivationName = "gelu"

    def layers(self, nn):
        return {
            "narrow": nn.Conv2d(self.channels, self.hidden, 1),
            "mix": nn.Conv2d(self.hidden, self.hidden, 3, padding=1),
            "widen": nn.Conv2d(self.hidden, self.channels, 1),
        }

    def apply(self, F, net, x):
        act = F.activation(self.activation)
        return x + net.widen(act(net.mix(act(net.narrow(act(x))))))


@dataclass(frozen=True)
class _Sized(Network):
    """What goes between an image and a vector takes the arguments of `MLP`.

    The first hidden width gives the channels, a fourth and an eighth of it; the last is that of the dense
    layer.
    """

    in_shape: Shape
    hidden: Shape
    out_shape: Shape
    activation: ActivationName = "relu"

    def __post_init__(self):
        super().__post_init__()
        self.require(as_shape(self.hidden) != (), "hidden=() names no width: give at least one")

    @property
    def channels(self) -> tuple[int, int]:
        """Channels at half and at a quarter of the resolution."""
        first = as_shape(self.hidden)[0]
        return max(1, first // 8), max(1, first // 4)

    def quarter(self, shape: Shape) -> tuple[int, int, int]:
        """The shape of the features at a quarter of an image's resolution."""
        _, height, width = image_shape(shape)
        return self.channels[1], halved(height, 2), halved(width, 2)


@dataclass(frozen=True)
class ConvDown(_Sized):
    """Two 3x3 convolutions of stride 2, a hidden layer, `out_shape`: [..., C, H, W] to [..., *out_shape]."""

    def layers(self, nn):
        (half, quarter), last = self.channels, as_shape(self.hidden)[-1]
        return {
            "conv1": nn.Conv2d(image_shape(self.in_shape)[0], half, 3, stride=2, padding=1),
            "conv2": nn.Conv2d(half, quarter, 3, stride=2, padding=1),
            "dense": nn.Linear(math.prod(self.quarter(self.in_shape)), last),
            "out": nn.Linear(last, math.prod(as_shape(self.out_shape))),
        }

    def apply(self, F, net, x):
        act, lead = F.activation(self.activation), x.shape[:-3]
        h = act(net.conv2(act(net.conv1(x))))
        return net.out(act(net.dense(h.reshape(*lead, -1)))).reshape(*lead, *as_shape(self.out_shape))


@dataclass(frozen=True)
class ConvUp(_Sized):
    """The way back, [..., D] to [..., C, H, W]: a hidden layer, two transposed 4x4 convolutions of stride 2.

    Each is cropped to the size that `ConvDown` meets there.
    """

    def layers(self, nn):
        (half, quarter), last = self.channels, as_shape(self.hidden)[-1]
        (inputs,), start = as_shape(self.in_shape), self.quarter(self.out_shape)
        return {
            "dense": nn.Linear(inputs, last),
            "spread": nn.Linear(last, math.prod(start)),
            "up1": nn.ConvTranspose2d(quarter, half, 4, stride=2, padding=1),
            "up2": nn.ConvTranspose2d(half, image_shape(self.out_shape)[0], 4, stride=2, padding=1),
        }

    def biases(self, outputs):
        """Return the weights, by name, with which outputs lie about the means of channels, [C, H, W]."""
        return {"up2.layer.bias": outputs.mean((-2, -1))}

    def apply(self, F, net, z):
        act, (_, height, width) = F.activation(self.activation), image_shape(self.out_shape)
        h = act(net.spread(act(net.dense(z)))).reshape(*z.shape[:-1], *self.quarter(self.out_shape))
        h = act(net.up1(h))[..., : halved(height, 1), : halved(width, 1)]
        return net.up2(h)[..., :height, :width]


@dataclass(frozen=True)
class ConvGrid(Network):
    """Encoder of a VQ-VAE (arXiv:1711.00937, section 4.1): [..., C, H, W] to vectors [..., H/4, W/4, D]."""

    from_zero: ClassVar[tuple[str, ...]] = ("blocks",)

    in_shape: Shape
    hidden: int
    code_dim: int
    residual_hidden: int = 32
    blocks: int = 2

    def layers(self, nn):
        channels, _, _ = image_shape(self.in_shape)
        return {
            "down1": nn.Conv2d(channels, self.hidden // 2, 4, stride=2, padding=1),
            "down2": nn.Conv2d(self.hidden // 2, self.hidden, 4, stride=2, padding=1),
            "conv": nn.Conv2d(self.hidden, self.hidden, 3, padding=1),
            "blocks": [nn.ResidualBlock(self.hidden, self.residual_hidden) for _ in range(self.blocks)],
            "out": nn.Conv2d(self.hidden, self.code_dim, 1),
        }

    def apply(self, F, net, x):
        h = net.conv(F.relu(net.down2(F.relu(net.down1(x)))))
        for block in net.blocks:
            h = block(h)
        return F.moveaxis(net.out(F.relu(h)), -3, -1)


@dataclass(frozen=True)
class GridConv(Network):
    """Decoder of a VQ-VAE: a grid of vectors [..., h, w, D] to an image [..., C, 4h, 4w]."""

    from_zero: ClassVar[tuple[str, ...]] = ("blocks",)

    code_dim: int
    hidden: int
    out_shape: Shape
    residual_hidden: int = 32
    blocks: int = 2

    def layers(self, nn):
        channels, _, _ = image_shape(self.out_shape, multiple=4)
        return {
            "conv": nn.Conv2d(self.code_dim, self.hidden, 3, padding=1),
            "blocks": [nn.ResidualBlock(self.hidden, self.residual_hidden) for _ in range(self.blocks)],
            "up1": nn.ConvTranspose2d(self.hidden, self.hidden // 2, 4, stride=2, padding=1),
            "up2": nn.ConvTranspose2d(self.hidden // 2, channels, 4, stride=2, padding=1),
        }

    def apply(self, F, net, z):
        h = net.conv(F.moveaxis(z, -1, -3))
        for block in net.blocks:
            h = block(h)
        return net.up2(F.relu(net.up1(F.relu(h))))
