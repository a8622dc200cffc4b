"""One optimizer step: the gradient of an objective over a batch, clipped, applied, averaged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro.objectives import rows_of
from ppl_vae.options import Training


def make_optimizer(parameters: Sequence[Tensor], options: Training) -> torch.optim.Optimizer:
    """Return one optimizer over all parameters, fused where torch has a fused form."""
    common = {"lr": 1.0, "betas": options.betas, "eps": options.eps, "weight_decay": options.weight_decay}
    if options.optimizer == "adamax":
        return torch.optim.Adamax(parameters, foreach=True, **common)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(parameters, fused=True, **common)


class Step:
    """What a training step does and remembers.

    Parameters
    ----------
    loss : nn.Module
        Called with (batch, weight); returns a Loss.
    parameters : sequence of Tensor
        To train; none, where a program has only statistics.
    options : Training

    Attributes
    ----------
    averaged : list of Tensor or None
        Moving averages of the parameters, where the options ask for them.
    """

    def __init__(self, loss: nn.Module, parameters: Sequence[Tensor], options: Training):
        self.loss, self.parameters, self.options = loss, list(parameters), options
        self.optimizer = make_optimizer(self.parameters, options) if self.parameters else None
        self.averaged = [p.detach().clone() for p in self.parameters] if options.ema else None

    def __call__(self, batch: dict[str, Tensor], lr: float, weight: Tensor) -> dict[str, Tensor]:
        """Take a step and return its metrics: means over the rows of the batch."""
        for parameter in self.parameters:
            parameter.grad = None
        if self.options.accumulate == 1:
            value, metrics = self.loss(batch, weight)
            metrics["loss"] = value.detach()
            if self.parameters:
                value.backward()
        else:
            metrics = self._accumulated(batch, weight)
        if self.parameters:
            self._update(lr)
        return metrics

    def _accumulated(self, batch: dict[str, Tensor], weight: Tensor) -> dict[str, Tensor]:
        rows, total = rows_of(batch), {}
        for part in parts_of(batch, self.options.part_size):
            share = rows_of(part) / rows
            value, metrics = self.loss(part, weight)
            if self.parameters:
                (value * share).backward()
            for name, found in (metrics | {"loss": value.detach()}).items():
                total[name] = total.get(name, 0) + found * share
        return total

    def _update(self, lr: float) -> None:
        if self.options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.options.clip_norm, foreach=True)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        if self.averaged is not None:
            present = [p.detach() for p in self.parameters]
            torch._foreach_lerp_(self.averaged, present, 1 - self.options.ema)

    @contextmanager
    def averages(self) -> Iterator[None]:
        """Let the parameters be their averages, where there are any."""
        if self.averaged is None:
            yield
            return
        before = [p.detach().clone() for p in self.parameters]
        self.use(self.averaged)
        try:
            yield
        finally:
            self.use(before)

    def use(self, values: Sequence[Tensor] | None) -> None:
        """Set the parameters, if values are given."""
        if values is not None:
            with torch.no_grad():
                torch._foreach_copy_(self.parameters, values)

    def state(self) -> dict[str, Any]:
        """Return what `restore` goes on from."""
        return {
            "optimizer": None if self.optimizer is None else self.optimizer.state_dict(),
            "averaged": self.averaged,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` returned."""
        if state["optimizer"] is not None and self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
        if state["averaged"] is not None and self.averaged is not None:
            torch._foreach_copy_(self.averaged, state["averaged"])


def parts_of(batch: dict[str, Tensor], size: int) -> Iterator[dict[str, Tensor]]:
    """Cut a batch into parts of `size` rows; the odd last one is kept."""
    for start in range(0, rows_of(batch), size):
        yield {name: value[start : start + size] for name, value in batch.items()}
