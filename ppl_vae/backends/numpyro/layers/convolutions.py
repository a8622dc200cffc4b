"""Convolutions with channels first and any number of axes before them."""

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from ppl_vae.backends.numpyro.layers.arrays import within


class _LeadingAxes(nnx.Module):
    """A layer over channels and `spatial` axes that takes any number of axes before them."""

    spatial: int

    def __call__(self, x: Array) -> Array:
        axes = self.spatial + 1
        y = self._flat(x.reshape(-1, *x.shape[-axes:]))
        return y.reshape(*x.shape[:-axes], *y.shape[1:])


class _Convolution(_LeadingAxes):
    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        dilation: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        init, edge = within(self._fan_in(inputs, outputs, kernel)), self._edge(kernel, padding, dilation)
        self.layer = self.kind(
            inputs,
            outputs,
            (kernel,) * self.spatial,
            (stride,) * self.spatial,
            padding=((edge, edge),) * self.spatial,
            kernel_dilation=(dilation,) * self.spatial,
            use_bias=bias,
            kernel_init=init,
            bias_init=init,
            rngs=rngs,
        )

    def _flat(self, x: Array) -> Array:
        return jnp.moveaxis(self.layer(jnp.moveaxis(x, 1, -1)), -1, 1)


class _Forward(_Convolution):
    kind = nnx.Conv

    def _fan_in(self, inputs: int, outputs: int, kernel: int) -> int:
        return inputs * kernel**self.spatial

    def _edge(self, kernel: int, padding: int, dilation: int) -> int:
        return padding


class _Transposed(_Convolution):
    kind = nnx.ConvTranspose

    def _fan_in(self, inputs: int, outputs: int, kernel: int) -> int:
        return outputs * kernel**self.spatial  # torch counts the outputs here

    def _edge(self, kernel: int, padding: int, dilation: int) -> int:
        return dilation * (kernel - 1) - padding


class Conv1d(_Forward):
    """Convolution over [..., C, T]."""

    spatial = 1


class Conv2d(_Forward):
    """Convolution over [..., C, H, W]."""

    spatial = 2


class ConvTranspose1d(_Transposed):
    """Transposed convolution over [..., C, T], of output size (T - 1) stride - 2 padding + kernel."""

    spatial = 1


class ConvTranspose2d(_Transposed):
    """Transposed convolution over [..., C, H, W], of output size (H - 1) stride - 2 padding + kernel."""

    spatial = 2


class _WeightNorm(_LeadingAxes):
    """A convolution by g v / |v|, with one norm an output (Salimans & Kingma, arXiv:1602.07868, eq. 2).

    Its weights have torch's layout, [outputs, inputs, *kernel].
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        dilation: int = 1,
        *,
        rngs: nnx.Rngs,
    ):
        init, n = within(inputs * kernel**self.spatial), self.spatial
        self.sizes = ((stride,) * n, ((padding, padding),) * n, (1,) * n, (dilation,) * n)
        self.weight_v = nnx.Param(init(rngs.params(), (outputs, inputs, *(kernel,) * n)))
        self.weight_g = nnx.Param(self._norms())
        self.bias = nnx.Param(init(rngs.params(), (outputs,))) if bias else None

    def _flat(self, x: Array) -> Array:
        weight = self.weight_v[...] * (self.weight_g[...] / self._norms())
        out = lax.conv_general_dilated(x, weight, *self.sizes)
        return out if self.bias is None else out + self.bias[...].reshape(-1, *(1,) * self.spatial)

    def _norms(self) -> Array:
        v = self.weight_v[...]
        return jnp.sqrt(jnp.square(v).sum(tuple(range(1, v.ndim)), keepdims=True))


class WeightNormConv1d(_WeightNorm):
    """Weight-normalised convolution over [..., C, T]."""

    spatial = 1


class WeightNormConv2d(_WeightNorm):
    """Weight-normalised convolution over [..., C, H, W]."""

    spatial = 2
