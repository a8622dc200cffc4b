"""One optimizer step: the gradient of an objective over a batch, clipped, applied, averaged."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

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


class Share(NamedTuple):
    """A part of a batch.

    Attributes
    ----------
    rows : int
        How many of the rows at hand.
    part : float
        Of the whole batch, which other devices may hold rows of too; 0 where another device counts these.
    even : bool
        All devices hold so many rows.
    """

    rows: int
    part: float
    even: bool = True


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

    def __call__(
        self, batch: dict[str, Tensor], lr: float, weight: Tensor, shares: Sequence[Share] | None = None
    ) -> dict[str, Tensor]:
        """Take a step and return its metrics: means over the rows of the batch.

        Parameters
        ----------
        batch : dict of str to Tensor
        lr : float
        weight : Tensor
            Of the KL.
        shares : sequence of Share, optional
            The parts that the batch lies in; by default those that the options ask for.
        """
        for parameter in self.parameters:
            parameter.grad = None
        shares = self._shares(rows_of(batch)) if shares is None else shares
        total: dict[str, Tensor] = {}
        for number, (part, share) in enumerate(zip(parts_of(batch, shares), shares, strict=True), 1):
            metrics = self._pass(part, weight, share, last=number == len(shares))
            if share.part != 1:
                metrics = {name: found * share.part for name, found in metrics.items()}
            total = {name: total[name] + found for name, found in metrics.items()} if total else metrics
        if self.parameters:
            self._update(lr)
        return total

    def _shares(self, rows: int) -> list[Share]:
        size = rows if self.options.accumulate == 1 else self.options.part_size
        return [Share(len(part), len(part) / rows) for part in cut(range(rows), size)]

    def _pass(self, part: dict[str, Tensor], weight: Tensor, share: Share, last: bool) -> dict[str, Tensor]:
        """Add a part's gradient, and return its metrics."""
        value, metrics = self.loss(part, weight)
        if self.parameters:
            (value if share.part == 1 else value * share.part).backward()
        return metrics | {"loss": value.detach()}

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


def cut(rows: Any, size: int) -> list[Any]:
    """Cut a sequence into parts of `size`; the odd last one is kept."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def parts_of(batch: dict[str, Tensor], shares: Sequence[Share]) -> Iterator[dict[str, Tensor]]:
    """Yield the parts of a batch."""
    start = 0
    for share in shares:
        stop = start + share.rows
        yield batch if len(shares) == 1 else {name: value[start:stop] for name, value in batch.items()}
        start = stop
