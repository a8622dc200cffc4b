"""Sums over the devices that share a batch, for layers that keep statistics of it.

Outside of a training step on several devices everything here leaves values as they are.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed

from ppl_vae.errors import UsageError


class Place(NamedTuple):
    """Where a process stands among those of a run."""

    rank: int
    count: int
    device: torch.device
    group: Any  # of processes, for statistics alone, so that they never wait between the gradients


_place: Place | None = None
_counts = True


@contextmanager
def sharing(place: Place | None, counts: bool = True) -> Iterator[None]:
    """Let layers add up over devices; a device that does not count adds zero."""
    global _place, _counts
    before, (_place, _counts) = (_place, _counts), (place, counts)
    try:
        yield
    finally:
        _place, _counts = before


def together(numbers: int = 0) -> None:
    """Refuse with a UsageError where another device adds up so many other numbers now, or, of 0, has not come
    to the end of its pass: each would wait for the other. A CUDA device is not waited for, so not asked.
    """
    if _place is None or _place.device.type != "cpu":
        return
    extremes = torch.tensor([numbers, -numbers])
    distributed.all_reduce(extremes, distributed.ReduceOp.MAX, group=_place.group)
    if extremes.sum():
        raise UsageError(
            "devices: a network that keeps statistics of the batch is used by the rows of one device and not "
            "by those of another: use it in every batch, or train on one device"
        )


# An operator of its own: a captured graph keeps it as it is, forward and backward.
@torch.library.custom_op("ppl_vae::total", mutates_args=())
def _total(value: Tensor) -> Tensor:
    total = value.clone(memory_format=torch.contiguous_format)
    if _place is not None:
        together(total.numel())
        distributed.all_reduce(total, group=_place.group)
    return total


@_total.register_fake
def _(value: Tensor) -> Tensor:
    return torch.empty_like(value, memory_format=torch.contiguous_format)


# What every device makes of a sum depends on what each one added.
_total.register_autograd(lambda context, gradient: _total(gradient))


def totals(*values: Tensor) -> Sequence[Tensor]:
    """Return values of one type, each summed over the devices, all in one exchange."""
    if _place is None:
        return values
    joined = torch.cat([value.reshape(-1) for value in values])
    parts = _total(joined if _counts else joined * 0).split([value.numel() for value in values])
    return [part.reshape(value.shape) for part, value in zip(parts, values, strict=True)]


def moments(x: Tensor, axes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return mean and biased variance along axes, those of the rows of all devices."""
    if _place is None:
        return x.mean(axes), x.var(axes, correction=0)
    wide = x if x.dtype == torch.float64 else x.float()
    total, number = totals(wide.sum(axes, keepdim=True), torch.ones_like(wide).sum(axes, keepdim=True))
    mean = total / number
    (squares,) = totals((wide - mean).square().sum(axes, keepdim=True))
    shape = [size for axis, size in enumerate(x.shape) if axis not in axes]
    return mean.reshape(shape).to(x.dtype), (squares / number).reshape(shape).to(x.dtype)


def spread(rows: Tensor, count: int) -> Tensor:
    """Return `count` rows at even distances out of [N, D], the rows of all devices one after the other."""
    at = torch.arange(count, device=rows.device)
    if _place is None:
        return rows[at * rows.shape[0] // count]
    held = torch.ones_like(rows[:, 0], dtype=torch.int64).sum()
    (numbers,) = totals(held * (torch.arange(_place.count, device=rows.device) == _place.rank))
    index = at * numbers.sum() // count - numbers[: _place.rank].sum()
    own = (index >= 0) & (index < numbers[_place.rank])
    picked = rows[index.clamp(min=0).minimum(held - 1)]
    return totals(torch.where(own.unsqueeze(-1), picked, torch.zeros_like(picked)))[0]
