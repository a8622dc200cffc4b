"""Convolutional networks over [..., C, H, W]: residual blocks, down to a vector, up to an image."""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from ppl_vae.backends.numpyro.networks.basic import Conv2d, ConvTranspose2d, Linear, named_activation
from ppl_vae.shapes import as_shape, halved, image_shape


class ResidualBlock(nnx.Module):
    """x + conv1x1(act(conv3x3(act(x)))) (He et al., arXiv:1603.05027), [..., C, H, W] to the same shape."""

    def __init__(self, channels: int, hidden: int, activation: str = "relu", *, rngs: nnx.Rngs):
        self.act = named_activation(activation)
        self.conv3 = Conv2d(channels, hidden, 3, padding=1, rngs=rngs)
        self.conv1 = Conv2d(hidden, channels, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        return x + self.conv1(self.act(self.conv3(self.act(x))))


class ConvDown(nnx.Module):
    """Two 3x3 convolutions of stride 2, a hidden layer, `out_shape`: [..., C, H, W] to [..., *out_shape]."""

    def __init__(self, in_shape, hidden, out_shape, activation: str = "relu", *, rngs: nnx.Rngs):
        channels, height, width = image_shape(in_shape)
        first, last = as_shape(hidden)[0], as_shape(hidden)[-1]
        self.out_shape = as_shape(out_shape)
        self.conv1 = Conv2d(channels, max(1, first // 8), 3, stride=2, padding=1, rngs=rngs)
        self.conv2 = Conv2d(max(1, first // 8), max(1, first // 4), 3, stride=2, padding=1, rngs=rngs)
        self.dense = Linear(max(1, first // 4) * halved(height, 2) * halved(width, 2), last, rngs=rngs)
        self.out = Linear(last, math.prod(self.out_shape), rngs=rngs)
        self.act = named_activation(activation)

    def __call__(self, x: Array) -> Array:
        h = self.act(self.conv2(self.act(self.conv1(x))))
        h = self.act(self.dense(h.reshape(*x.shape[:-3], -1)))
        return self.out(h).reshape(*x.shape[:-3], *self.out_shape)


class ConvUp(nnx.Module):
    """The way back, [..., D] to [..., C, H, W]: a hidden layer, two transposed convolutions of stride 2."""

    def __init__(self, in_shape, hidden, out_shape, activation: str = "relu", *, rngs: nnx.Rngs):
        (self.inputs,) = as_shape(in_shape)
        channels, self.height, self.width = image_shape(out_shape)
        first, last = as_shape(hidden)[0], as_shape(hidden)[-1]
        self.start = (max(1, first // 4), halved(self.height, 2), halved(self.width, 2))
        self.dense = Linear(self.inputs, last, rngs=rngs)
        self.spread = Linear(last, math.prod(self.start), rngs=rngs)
        self.up1 = ConvTranspose2d(self.start[0], max(1, first // 8), 4, stride=2, padding=1, rngs=rngs)
        self.up2 = ConvTranspose2d(max(1, first // 8), channels, 4, stride=2, padding=1, rngs=rngs)
        self.act = named_activation(activation)

    def __call__(self, z: Array) -> Array:
        h = self.act(self.spread(self.act(self.dense(z)))).reshape(*z.shape[:-1], *self.start)
        h = self.act(self.up1(h))[..., : halved(self.height, 1), : halved(self.width, 1)]
        return self.up2(h)[..., : self.height, : self.width]


class ConvGrid(nnx.Module):
    """Encoder of a VQ-VAE (arXiv:1711.00937, section 4.1): [..., C, H, W] to vectors [..., H/4, W/4, D]."""

    def __init__(self, in_shape, hidden: int, code_dim: int, residual_hidden=32, blocks=2, *, rngs: nnx.Rngs):
        channels, _, _ = image_shape(in_shape)
        self.down1 = Conv2d(channels, hidden // 2, 4, stride=2, padding=1, rngs=rngs)
        self.down2 = Conv2d(hidden // 2, hidden, 4, stride=2, padding=1, rngs=rngs)
        self.conv = Conv2d(hidden, hidden, 3, padding=1, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(hidden, residual_hidden, rngs=rngs) for _ in range(blocks))
        self.out = Conv2d(hidden, code_dim, 1, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        h = self.conv(jax.nn.relu(self.down2(jax.nn.relu(self.down1(x)))))
        for block in self.blocks:
            h = block(h)
        return jnp.moveaxis(self.out(jax.nn.relu(h)), -3, -1)


class GridConv(nnx.Module):
    """Decoder of a VQ-VAE: a grid of vectors [..., h, w, D] to an image [..., C, 4h, 4w]."""

    def __init__(
        self, code_dim: int, hidden: int, out_shape, residual_hidden=32, blocks=2, *, rngs: nnx.Rngs
    ):
        channels, _, _ = image_shape(out_shape, multiple=4)
        self.conv = Conv2d(code_dim, hidden, 3, padding=1, rngs=rngs)
        self.blocks = nnx.List(ResidualBlock(hidden, residual_hidden, rngs=rngs) for _ in range(blocks))
        self.up1 = ConvTranspose2d(hidden, hidden // 2, 4, stride=2, padding=1, rngs=rngs)
        self.up2 = ConvTranspose2d(hidden // 2, channels, 4, stride=2, padding=1, rngs=rngs)

    def __call__(self, z: Array) -> Array:
        h = self.conv(jnp.moveaxis(z, -1, -3))
        for block in self.blocks:
            h = block(h)
        return self.up2(jax.nn.relu(self.up1(jax.nn.relu(h))))
