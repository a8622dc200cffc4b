"""A hand-written training loop in torch alone: fused Adam, rows on the device, nothing else."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn


def steps_of(
    model: nn.Module,
    x: np.ndarray,
    items: Sequence[np.ndarray],
    compile: str | None = None,
    lr: float = 1e-3,
    device: str = "cpu",
) -> Callable[[], None]:
    """Return optimizer steps on batches of rows `items`, for a module whose output is its loss; `compile`: a
    mode of `torch.compile`.
    """
    model = model.to(device)
    optimizer = torch.optim.Adam(model.parameters(), lr, fused=True)
    call = torch.compile(model, dynamic=False, mode=compile) if compile else model
    data = torch.from_numpy(x).to(device)
    rows = [torch.from_numpy(one).to(device) for one in items]

    def steps() -> None:
        for one in rows:
            optimizer.zero_grad(set_to_none=True)
            call(data.index_select(0, one)).backward()
            optimizer.step()

    return steps
