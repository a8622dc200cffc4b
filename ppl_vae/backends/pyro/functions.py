"""`F` of networks, distributions and objectives on torch."""

import math

import torch
import torch.nn.functional as nnf

from ppl_vae.backends.pyro import across
from ppl_vae.functions import Functions, along

HALF = (torch.bfloat16, torch.float16)


class TorchFunctions(Functions, modules=(torch, nnf)):
    """See `ppl_vae.functions.Functions`."""

    log_sigmoid = staticmethod(nnf.logsigmoid)
    tril, expand_dims = map(staticmethod, (torch.tril, torch.unsqueeze))
    moveaxis, permute = map(staticmethod, (torch.movedim, torch.permute))
    diag, lerp = map(staticmethod, (torch.diag_embed, torch.lerp))
    argmax, argmin, logsumexp = map(along, (torch.argmax, torch.argmin, torch.logsumexp))
    softmax, log_softmax, cumsum = map(along, (torch.softmax, torch.log_softmax, torch.cumsum))
    totals, moments, spread = map(staticmethod, (across.totals, across.moments, across.spread))

    def clip(self, x, low=None, high=None):
        return torch.clamp(x, low, high)

    def stop_gradient(self, x):
        return x.detach()

    def sum(self, x, axis=None, keepdims=False):
        return x.sum() if axis is None else x.sum(axis, keepdim=keepdims)

    def mean(self, x, axis=None, keepdims=False):
        return x.mean() if axis is None else x.mean(axis, keepdim=keepdims)

    def var(self, x, axis=None, keepdims=False):
        return torch.var(x, axis, correction=0, keepdim=keepdims)

    def max(self, x, axis=None, keepdims=False):
        return x.amax(() if axis is None else axis, keepdim=keepdims)

    def min(self, x, axis=None, keepdims=False):
        return x.amin(() if axis is None else axis, keepdim=keepdims)

    def _joined(self, parts, axis):
        return torch.cat(tuple(parts), axis)

    def stack(self, parts, axis=0):
        return torch.stack(tuple(parts), axis)

    def split(self, x, parts, axis=-1):
        return x.chunk(parts, axis) if isinstance(parts, int) else x.split(list(parts), axis)

    def broadcast_to(self, x, shape):
        return x.expand(tuple(shape))

    def flip(self, x, axis):
        return torch.flip(x, (axis,))

    def pad(self, x, widths, value=0.0):
        return nnf.pad(x, [size for pair in reversed(widths) for size in pair], value=value)

    def take(self, x, index, axis=0):
        if axis == 0:
            return x[index]
        axis = axis % x.ndim
        flat = torch.index_select(x, axis, index.reshape(-1))
        return flat.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])

    def take_along_axis(self, x, index, axis=-1):
        # take_along_dim would fix the number of rows in a captured graph.
        return x.gather(axis, index)

    def diagonal(self, x):
        return torch.diagonal(x, dim1=-2, dim2=-1)

    def _resized(self, x, size, method):
        corners = {"align_corners": False} if method == "bilinear" else {}
        out = nnf.interpolate(x.reshape(-1, *x.shape[-3:]), tuple(size), mode=method, **corners)
        return out.reshape(*x.shape[:-2], *size)

    def astype(self, x, like):
        return x.to(like.dtype)

    def to_float(self, x):
        return x if x.is_floating_point() else x.float()

    def to_whole(self, x):
        return x.long()

    def to_single(self, x):
        return x.float() if x.dtype in HALF else x

    def asarray(self, value, like):
        return torch.as_tensor(value, dtype=like.dtype, device=like.device)

    def full(self, shape, value, like):
        return like.new_full(tuple(shape), value)

    def arange(self, count, like):
        return torch.arange(count, device=like.device)

    def one_hot(self, index, count, like):
        return nnf.one_hot(index.long(), count).to(like.dtype)

    def bincount(self, index, count, like):
        return like.new_zeros(count).scatter_add(0, index, like.new_ones(index.shape))

    def attention(self, query, key, value, causal=False):
        rows, columns = query.shape[-2], key.shape[-2]
        if not causal or rows == columns:
            return nnf.scaled_dot_product_attention(query, key, value, is_causal=causal)
        mask = torch.ones(rows, columns, dtype=torch.bool, device=query.device).tril(columns - rows)
        return nnf.scaled_dot_product_attention(query, key, value, attn_mask=mask)

    def fork(self, noise, count):
        return (None,) * count

    def uniform(self, noise, shape, like):
        info = torch.finfo(like.dtype)
        drawn = torch.rand(tuple(shape), dtype=like.dtype, device=like.device)
        return drawn.clamp(info.tiny, 1 - info.eps)

    def normal(self, noise, shape, like):
        return torch.randn(tuple(shape), dtype=like.dtype, device=like.device)

    def gamma(self, noise, concentration):
        return torch._standard_gamma(concentration)

    def poisson(self, noise, rate):
        return torch.poisson(rate.detach())

    def categorical(self, noise, logits, shape):
        if logits.ndim == 1:
            drawn = torch.multinomial(logits.detach().softmax(-1), math.prod(shape), replacement=True)
            return drawn.reshape(tuple(shape))
        rows = logits.detach().expand(*shape, logits.shape[-1]).reshape(-1, logits.shape[-1])
        return torch.multinomial(rows.softmax(-1), 1, replacement=True).reshape(tuple(shape))


F = TorchFunctions()
