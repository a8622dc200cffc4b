"""Convolutions with channels first and any number of axes before them."""

from collections.abc import Callable

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn


class _LeadingAxes(nn.Module):
    """A layer over channels and `spatial` axes that takes any number of axes before them."""

    spatial: int

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: -self.spatial - 1]
        y = self.layer(x.reshape(-1, *x.shape[-self.spatial - 1 :]))
        return y.reshape(*lead, *y.shape[1:])


class _Convolution(_LeadingAxes):
    kind: type[nn.Module]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        dilation: int = 1,
    ):
        super().__init__()
        self.layer = self.kind(inputs, outputs, kernel, stride, padding, bias=bias, dilation=dilation)


class Conv1d(_Convolution):
    """Convolution over [..., C, T]."""

    kind, spatial = nn.Conv1d, 1


class Conv2d(_Convolution):
    """Convolution over [..., C, H, W]."""

    kind, spatial = nn.Conv2d, 2


class ConvTranspose1d(_Convolution):
    """Transposed convolution over [..., C, T], of output size (T - 1) stride - 2 padding + kernel."""

    kind, spatial = nn.ConvTranspose1d, 1


class ConvTranspose2d(_Convolution):
    """Transposed convolution over [..., C, H, W], of output size (H - 1) stride - 2 padding + kernel."""

    kind, spatial = nn.ConvTranspose2d, 2


class _WeightNorm(_LeadingAxes):
    """A convolution by g v / |v|, with one norm an output (Salimans & Kingma, arXiv:1602.07868, eq. 2)."""

    kind: type[nn.Module]
    convolved: Callable[..., Tensor]

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int = 1,
        padding: int = 0,
        bias: bool = True,
        dilation: int = 1,
    ):
        super().__init__()
        made = self.kind(inputs, outputs, kernel, bias=bias)
        self.weight_v, self.bias, self.sizes = made.weight, made.bias, (stride, padding, dilation)
        self.weight_g = nn.Parameter(self._norms().detach())

    def layer(self, x: Tensor) -> Tensor:
        weight = self.weight_v * (self.weight_g / self._norms())
        return self.convolved(x, weight, self.bias, *self.sizes)

    def _norms(self) -> Tensor:
        return torch.linalg.vector_norm(self.weight_v, dim=tuple(range(1, self.spatial + 2)), keepdim=True)


class WeightNormConv1d(_WeightNorm):
    """Weight-normalised convolution over [..., C, T]."""

    kind, convolved, spatial = nn.Conv1d, staticmethod(nnf.conv1d), 1


class WeightNormConv2d(_WeightNorm):
    """Weight-normalised convolution over [..., C, H, W]."""

    kind, convolved, spatial = nn.Conv2d, staticmethod(nnf.conv2d), 2
