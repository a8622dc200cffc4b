"""One optimizer step: the gradient of an objective over a batch, clipped, applied, averaged."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ppl_vae.backends.common.objective import check_groups, rows_of
from ppl_vae.backends.pyro.capture import kept_for_backward
from ppl_vae.objectives import Group, Loss
from ppl_vae.options import Training
from ppl_vae.scalars import AVERAGE, for_loss, rate_of


class Part(NamedTuple):
    """The parameters of one group, and torch's settings of the optimizer that are not the run's; without a
    name all parameters that belong to no other group.
    """

    name: str
    parameters: list[Tensor]
    settings: dict[str, Any]


def parts_of_program(bound: nn.Module, groups: Sequence[Group]) -> list[Part]:
    """Return the trainable parameters by group, the one of all others first; see `check_groups`."""
    if not groups:
        return [Part("", [p for p in bound.trainable() if p.requires_grad], {})]
    check_groups(groups, bound)
    named = {name: p for name, p in bound.networks.named_parameters() if p.requires_grad}
    owners = {network: group.name for group in groups for network in group.networks}
    by_group: dict[str, list[Tensor]] = {"": []} | {group.name: [] for group in groups}
    for name, parameter in named.items():
        by_group[owners.get(name.partition(".")[0], "")].append(parameter)
    settings = {group.name: group.settings() for group in groups}
    frozen = {group.name for group in groups if group.frozen}
    return [Part(n, ps, settings.get(n, {})) for n, ps in by_group.items() if n not in frozen]


def make_optimizer(parts: Sequence[Part], options: Training) -> torch.optim.Optimizer:
    """Return one optimizer over all parameters, fused where torch has a fused form."""
    common = {"lr": 1.0, "betas": options.betas, "eps": options.eps, "weight_decay": options.weight_decay}
    given = [{"params": part.parameters, **part.settings} for part in parts]
    if options.optimizer == "adamax":
        return torch.optim.Adamax(given, foreach=True, **common)
    kind = torch.optim.Adam if options.optimizer == "adam" else torch.optim.AdamW
    return kind(given, fused=True, **common)


def by_step(scalars: Mapping[str, np.ndarray], device: torch.device) -> list[dict[str, Any]]:
    """Return the scalars of each step: those of the loss as tensors, transferred at once."""
    inputs = for_loss(scalars)
    tensors = {
        name: torch.as_tensor(values, dtype=torch.float32, device=device).unbind()
        for name, values in inputs.items()
    }
    numbers = {name: values.tolist() for name, values in scalars.items() if name not in inputs}
    columns = tensors | numbers
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class Share(NamedTuple):
    """A part of a batch: so many of the rows at hand."""

    rows: int
    part: float  # of the whole batch, on all devices; 0 where another device counts these
    even: bool = True  # all devices hold so many rows


class Step:
    """What a training step does and remembers, `averaged` parameters too where the options ask for them.

    `loss` is called with (batch, scalars) and returns a Loss. A program that has only statistics has no
    parameters.
    """

    def __init__(self, loss: nn.Module, parts: Sequence[Part], options: Training):
        self.loss, self.options = loss, options
        self.parts = [part for part in parts if part.parameters]
        self.parameters = [parameter for part in self.parts for parameter in part.parameters]
        self.optimizer = make_optimizer(self.parts, options) if self.parameters else None
        self.averaged = [p.detach().clone() for p in self.parameters] if options.ema else None

    def __call__(
        self, batch: dict[str, Tensor], scalars: Mapping[str, Any], shares: Sequence[Share] | None = None
    ) -> dict[str, Tensor]:
        """Take a step and return its metrics: means over the rows of the batch.

        The scalars of the loss are tensors, the others numbers. The batch lies in the parts that the options
        ask for, if no other shares are given.
        """
        for parameter in self.parameters:
            parameter.grad = None
        shares = self._shares(rows_of(batch)) if shares is None else shares
        inputs, total = for_loss(scalars), {}
        for number, (part, share) in enumerate(zip(parts_of(batch, shares), shares, strict=True), 1):
            metrics = self._pass(part, inputs, share, last=number == len(shares))
            if share.part != 1:
                metrics = {name: value * share.part for name, value in metrics.items()}
            total |= {name: total[name] + v if name in total else v for name, v in metrics.items()}
        if self.parameters:
            self._update(scalars)
        return total

    def _shares(self, rows: int) -> list[Share]:
        size = rows if self.options.accumulate == 1 else self.options.part_size
        return [Share(len(part), len(part) / rows) for part in cut(range(rows), size)]

    def _pass(self, part: Any, scalars: Any, share: Share, last: bool) -> dict[str, Tensor]:
        """Add a part's gradient, and return its metrics."""
        outcome = self.loss(part, scalars)
        self._backward(outcome, share.part)
        return outcome.metrics | {"loss": outcome.value.detach()}

    def _backward(self, loss: Loss, weight: float) -> None:
        """Add the gradient of each group's loss, or else of the common one, to its parameters alone."""
        if not self.parameters:
            return
        if not loss.others and len(self.parts) == 1:
            (loss.value if weight == 1 else loss.value * weight).backward()
            return
        common = [p for part in self.parts if part.name not in loss.others for p in part.parameters]
        own = [(part.parameters, loss.others[part.name]) for part in self.parts if part.name in loss.others]
        taken = [(common, loss.value), *own] if common else own
        with kept_for_backward():
            for number, (parameters, value) in enumerate(taken, 1):
                again = number < len(taken)
                grads = torch.autograd.grad(value, parameters, retain_graph=again, allow_unused=True)
                for parameter, grad in zip(parameters, grads, strict=True):
                    if grad is not None:
                        grad = grad if weight == 1 else grad * weight
                        parameter.grad = grad if parameter.grad is None else parameter.grad + grad

    def _update(self, scalars: Mapping[str, Any]) -> None:
        for part, group in zip(self.parts, self.optimizer.param_groups, strict=True):
            if self.options.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(part.parameters, self.options.clip_norm, foreach=True)
            group["lr"] = scalars[rate_of(part.name)]
        self.optimizer.step()
        if self.averaged is not None:
            present = [p.detach() for p in self.parameters]
            torch._foreach_lerp_(self.averaged, present, scalars[AVERAGE])

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
            own = [{k: v for k, v in group.items() if k != "params"} for group in self.optimizer.param_groups]
            self.optimizer.load_state_dict(state["optimizer"])
            for group, options in zip(self.optimizer.param_groups, own, strict=True):
                group.update(options)  # those of the run, which the file only repeats
            for parameter, moments in self.optimizer.state.items():
                if any(torch.as_tensor(m).shape not in ((), parameter.shape) for m in moments.values()):
                    raise ValueError("its moments have other shapes than the parameters")
        if state["averaged"] is not None and self.averaged is not None:
            torch._foreach_copy_(self.averaged, state["averaged"])


def cut(rows: Any, size: int) -> list[Any]:
    """Cut a sequence into parts of `size`; the odd last one too."""
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def parts_of(batch: dict[str, Tensor], shares: Sequence[Share]) -> Iterator[dict[str, Tensor]]:
    """Yield the parts of a batch."""
    start = 0
    for share in shares:
        stop = start + share.rows
        yield batch if len(shares) == 1 else {name: value[start:stop] for name, value in batch.items()}
        start = stop
