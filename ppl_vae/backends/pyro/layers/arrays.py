"""Arrays that a network keeps: learned ones, and those that it changes itself."""

from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.shapes import Shape, as_shape


def Parameter(shape: Shape, init: Any = 0.0) -> nn.Parameter:
    """Return a learned array.

    Within a network it is an array, `net.NAME`; as a network of a program, or in a list, it is called:
    `net.NAME()`.

    Parameters
    ----------
    shape : int or tuple of int
    init : float or array
        One number everywhere, or values that broadcast to `shape`, as from `nn.normal(shape, 0.02)`.
    """
    return nn.Parameter(_filled(shape, init))


def Buffer(shape: Shape, init: Any = 0.0) -> nn.Buffer:
    """Return an array that no gradient reaches and that its network may change with `net.keep`."""
    return nn.Buffer(_filled(shape, init))


def normal(shape: Shape, std: float = 1.0) -> Tensor:
    """Draw first values from N(0, std^2)."""
    return torch.randn(as_shape(shape)) * std


def _filled(shape: Shape, init: Any) -> Tensor:
    given = torch.as_tensor(init, dtype=torch.get_default_dtype())
    return given.detach().expand(as_shape(shape)).clone(memory_format=torch.contiguous_format)
