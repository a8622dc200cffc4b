"""Tensors: where they lie, and how they get there."""

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from ppl_vae.backends.common.devices import parse
from ppl_vae.errors import UsageError


def find_device(name: str) -> torch.device:
    """Return a torch device by name: auto, cpu, cuda, cuda:1 ...

    Raises
    ------
    UsageError
        For an unknown name, or a device that this machine lacks.
    """
    kind, index = parse(name)
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    if kind == "cpu":
        return torch.device(kind)
    if index >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: this machine has {torch.cuda.device_count()} CUDA devices")
    return torch.device(kind, index)


def noise_kept(device: torch.device) -> AbstractContextManager[None]:
    """Leave the state of the generators of the CPU and of a device as it was."""
    return torch.random.fork_rng(devices=[device] if device.type == "cuda" else [])


def seed_noise(seed: int, device: torch.device) -> None:
    """Seed the generators of the CPU and of a device.

    torch's own function seeds every device, and notes the caller's traceback for those not yet in use, which
    takes longer than a small pass.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def on_host(tree: Any) -> Any:
    """Return nested dicts and tuples of tensors as arrays of the host."""
    return pytree.tree_map_only(Tensor, lambda value: value.detach().cpu().numpy(), tree)


def put(arrays: Any, device: torch.device) -> Any:
    """Return nested dicts of arrays of the host on a device."""

    def one(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(array, order="C")).to(device)

    return pytree.tree_map_only(np.ndarray, one, arrays)


def to_device(value: Any, device: torch.device) -> Any:
    """Return an array on a device; anything that is no array stays what it is."""
    if isinstance(value, np.ndarray):
        value = torch.from_numpy(value)
    return value.to(device, non_blocking=True) if isinstance(value, Tensor) else value


def precision_of(tensors: Iterable[Tensor]) -> np.dtype:
    """Return the floating point type of the first tensor that has one; without any single precision."""
    kinds = (value.dtype for value in tensors if value.is_floating_point())
    return torch.empty(0, dtype=next(kinds, torch.float32)).numpy().dtype
