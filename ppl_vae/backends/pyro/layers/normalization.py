"""Normalization of each row by its own statistics."""

import torch.nn.functional as nnf
from torch import Tensor, nn


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
        flat = x.reshape(-1, *x.shape[x.ndim - 1 - self.spatial :])
        return nnf.group_norm(flat, self.num_groups, self.weight, self.bias, self.eps).reshape(x.shape)
