"""Networks for tables of counts with a batch covariate and a size factor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl_vae.backends.pyro.networks.basic import MLP
from ppl_vae.backends.pyro.networks.heads import NormalHead, NormalParameters
from ppl_vae.shapes import vector_shape


class CountEncoder(nn.Module):
    """log(1 + counts) [..., x_dim] and the batch [...] to a diagonal normal over [..., z_dim]."""

    def __init__(self, x_shape, num_batches: int, hidden, z_dim: int):
        super().__init__()
        (x_dim,), self.num_batches = vector_shape(x_shape), num_batches
        self.head = NormalHead(x_dim + num_batches, hidden, z_dim)

    def forward(self, x: Tensor, batch: Tensor) -> NormalParameters:
        one_hot = F.one_hot(batch, self.num_batches).to(x.dtype)
        return self.head(torch.cat([x.log1p(), one_hot], -1))


class CountMean(nn.Module):
    """Mean counts size * exp(f(z) + effect[batch]), [..., x_dim].

    The effect has shape [..., num_batches, x_dim]. Without a batch the first one is meant, without a size
    factor 1.
    """

    def __init__(self, z_dim: int, hidden, x_shape):
        super().__init__()
        self.body = MLP(z_dim, hidden, x_shape)

    def forward(
        self, z: Tensor, effect: Tensor, batch: Tensor | None = None, size: Tensor | None = None
    ) -> Tensor:
        if batch is None:
            shift = effect[..., 0, :]
        else:
            # A matrix product, so that leading axes of the effect (particles) broadcast against rows.
            one_hot = F.one_hot(batch, effect.shape[-2]).to(effect.dtype)
            shift = (one_hot.unsqueeze(-2) @ effect).squeeze(-2)
        mean = (self.body(z) + shift).exp()
        return mean if size is None else mean * size.unsqueeze(-1)
