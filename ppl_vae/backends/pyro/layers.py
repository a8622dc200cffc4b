"""The layers that networks are built from. The NumPyro backend has the same names."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as nnf
from torch import Tensor, nn
from torch.nn import Embedding, Linear, Module

from ppl_vae.backends.common.networks import deviation
from ppl_vae.shapes import Shape, as_shape

__all__ = [
    "GRU",
    "LSTM",
    "Buffer",
    "Conv1d",
    "Conv2d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "Embedding",
    "GroupNorm",
    "LayerNorm",
    "Linear",
    "Module",
    "Parameter",
    "WeightNormConv1d",
    "WeightNormConv2d",
    "normal",
]


def Parameter(shape: Shape, init: Any = 0.0) -> nn.Parameter:
    """Return a learned array, at first `init` everywhere, values that broadcast to `shape`, or draws from
    N(0, 1) or N(0, 0.02^2) where it is the text `normal` or `normal:0.02`.

    Within a network it is an array, `net.NAME`; as a network of a program, or in a list, it is called:
    `net.NAME()`.
    """
    return nn.Parameter(_filled(shape, init))


def Buffer(shape: Shape, init: Any = 0.0) -> nn.Buffer:
    """Return an array that no gradient reaches and that its network may change with `net.keep`."""
    return nn.Buffer(_filled(shape, init))


def normal(shape: Shape, std: float = 1.0) -> Tensor:
    """Draw first values from N(0, std^2)."""
    return torch.randn(as_shape(shape)) * std


def _filled(shape: Shape, init: Any) -> Tensor:
    if isinstance(init, str):
        return normal(shape, deviation(init))
    given = torch.as_tensor(init, dtype=torch.get_default_dtype())
    return given.detach().expand(as_shape(shape)).clone(memory_format=torch.contiguous_format)


class _Convolution(nn.Module):
    """A convolution over channels and `spatial` axes that takes any number of axes before them."""

    kind: type[nn.Module]
    spatial: int

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
        self._keep(self.kind(inputs, outputs, kernel, stride, padding, bias=bias, dilation=dilation))

    def _keep(self, layer: nn.Module) -> None:
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        lead = x.shape[: -self.spatial - 1]
        y = self.layer(x.reshape(-1, *x.shape[-self.spatial - 1 :]))
        return y.reshape(*lead, *y.shape[1:])


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


class _WeightNorm(_Convolution):
    """A convolution by g v / |v|, with one norm an output (Salimans & Kingma, arXiv:1602.07868, eq. 2)."""

    convolved: Callable[..., Tensor]

    def _keep(self, layer: nn.Module) -> None:
        self.weight_v, self.bias = layer.weight, layer.bias
        self.sizes = layer.stride, layer.padding, layer.dilation
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


class LayerNorm(nn.LayerNorm):
    """Normalize the last axis, [..., features] (Ba et al., arXiv:1607.06450)."""

    def __init__(self, features: int, epsilon: float = 1e-5):
        super().__init__(features, eps=epsilon)


class GroupNorm(nn.GroupNorm):
    """Normalize `groups` of channels over them and `spatial` axes behind (Wu & He, arXiv:1803.08494).

    [..., features, H, W] with `spatial=2`; without spatial axes [..., features].
    """

    def __init__(self, groups: int, features: int, spatial: int = 2, epsilon: float = 1e-5):
        super().__init__(groups, features, eps=epsilon)
        self.spatial = spatial

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.reshape(-1, *x.shape[x.ndim - 1 - self.spatial :])).reshape(x.shape)


class GRU(nn.GRU):
    """A gated recurrent unit (Cho et al., arXiv:1406.1078), [..., T, inputs] to [..., T, hidden].

    Also returns the last state [..., hidden], which a later call takes as `state` (None: zeros).
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        start = None if state is None else _flat(state, x)
        out, last = super().forward(x.reshape(-1, *x.shape[-2:]), start)
        return out.reshape(*x.shape[:-1], -1), last.reshape(*x.shape[:-2], -1)


class LSTM(nn.LSTM):
    """A long short-term memory (Hochreiter & Schmidhuber 1997), [..., T, inputs] to [..., T, hidden].

    Also returns the last state, (output, cell) of [..., hidden] each, which a later call takes as `state`.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None):
        start = None if state is None else tuple(_flat(part, x) for part in state)
        out, last = super().forward(x.reshape(-1, *x.shape[-2:]), start)
        return out.reshape(*x.shape[:-1], -1), tuple(part.reshape(*x.shape[:-2], -1) for part in last)


def _flat(state: Tensor, x: Tensor) -> Tensor:
    return state.expand(*x.shape[:-2], -1).reshape(1, -1, state.shape[-1])
