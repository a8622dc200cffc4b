"""The library's own contenders on Pyro, through its trainer, and stock Pyro on the same program."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyro
import torch
from timing import compiled_for_sure

from ppl_vae import ELBO, bind
from ppl_vae.backends.pyro import Engine
from ppl_vae.options import Training

LR = 1e-3
Steps = Callable[[], None]


def bits(rows: int, shape: tuple[int, ...], seed: int = 1) -> np.ndarray:
    """Return random bits, a fifth of them set, as float32 [rows, *shape]."""
    return (np.random.default_rng(seed).random((rows, *shape)) < 0.2).astype(np.float32)


def batches(rows: int, batch: int, steps: int, seed: int = 0) -> list[np.ndarray]:
    """Return the row numbers of the steps of one turn."""
    rng = np.random.default_rng(seed)
    return [rng.permutation(rows)[:batch] for _ in range(steps)]


def trained(
    program: Any,
    x: np.ndarray,
    items: Sequence[np.ndarray],
    *,
    compile: bool,
    precision: str = "32",
    memory_format: torch.memory_format = torch.preserve_format,
    device: str = "cpu",
) -> Steps:
    """Return the library's optimizer steps on batches of rows `items`."""
    options = Training(batch_size=len(items[0]), lr=LR, precision=precision, device=device)
    bound = bind(program, num_data=len(x)).to(memory_format=memory_format)
    chosen = {"train": {"x": x}, "num_data": len(x), "compile": "on" if compile else "off"}
    engine = Engine(bound, ELBO(), options, **chosen)
    scalars = {"lr": np.full(len(items), LR), "beta": np.ones(len(items))}

    def steps() -> None:
        engine.advance(items, scalars, lambda: False)

    if compile:
        with compiled_for_sure():  # compiled before the first step
            steps()
    return steps


def stock(program: Any, x: np.ndarray, items: Sequence[np.ndarray], device: str = "cpu") -> Steps:
    """Return Pyro's own `SVI.step` on the declared model and guide, with the closed form of the KL as ours
    (a little quicker than `Trace_ELBO`), a fused optimizer and no validation.
    """
    bound = bind(program, num_data=len(x), device=device).train()
    optimizer = pyro.optim.Adam({"lr": LR, "fused": True})
    svi = pyro.infer.SVI(bound.model, bound.guide, optimizer, pyro.infer.TraceMeanField_ELBO())
    data, rows = torch.from_numpy(x).to(device), [torch.from_numpy(one).to(device) for one in items]

    def steps() -> None:
        with pyro.validation_enabled(False):
            for one in rows:
                svi.step(data.index_select(0, one))

    return steps
