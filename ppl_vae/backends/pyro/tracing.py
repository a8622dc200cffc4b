"""Runs of a bound program's guide and model on Pyro, as sites."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

import pyro
import torch
from pyro import poutine
from torch import Tensor

from ppl_vae.backends.common import tracing
from ppl_vae.backends.common.calls import Calls
from ppl_vae.backends.common.predictive import centre
from ppl_vae.backends.common.site import Trace
from ppl_vae.backends.common.summing import values_left_of
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.sites import Recorded, fixed, trace_of
from ppl_vae.errors import ProgramError


class Centres(poutine.messenger.Messenger):
    """Every latent site takes the centre of its distribution instead of a draw, where it has one."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or poutine.util.site_is_subsample(msg) or msg["value"] is not None:
            return
        try:
            msg["value"] = centre(msg["fn"])
        except ProgramError:  # a latent without a mean is drawn
            return
        msg["done"] = True


class Enumerated(poutine.messenger.Messenger):
    """See `ppl_vae.backends.common.summing.values_left_of`: for sites that nothing else gives a value."""

    def __init__(self, place: int):
        super().__init__()
        self._values = values_left_of(place)

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or poutine.util.site_is_subsample(msg) or msg["value"] is not None:
            return
        value = self._values(msg["name"], msg["fn"], msg["infer"])
        if value is not None:
            msg["value"], msg["done"] = value, True


class Tracer(tracing.Tracer):
    """See `ppl_vae.backends.common.tracing.Tracer`. Noise comes from torch's generator."""

    F = F
    _centred, _redrawn, _enumerated = map(staticmethod, (Centres, poutine.uncondition, Enumerated))
    _held, _sites = map(staticmethod, (poutine.condition, trace_of))

    def _plate(self, name: str, size: int, dim: int) -> AbstractContextManager:
        return pyro.plate(name, size, dim=dim, device=self.bound.device)

    def _both(self, batch: Any, values: Mapping[str, Tensor], place: int) -> tuple[Trace, Trace, Any]:
        function = poutine.replay(self.bound.guide, trace=fixed(values)) if values else self.bound.guide
        guide = Recorded(function).get_trace(**batch)
        with Enumerated(place):
            model = Recorded(poutine.replay(self.bound.model, trace=guide)).get_trace(**batch)
        return trace_of(guide), trace_of(model), None

    def _recorded(self, role: str, values: Mapping[str, Tensor], calls: Calls, state: Any) -> Any:
        return Recorded(poutine.replay(getattr(self.bound, role), trace=fixed(values)))

    def gradient(self, function: Callable[..., Any], arrays: Mapping[str, Tensor], aux: bool = False) -> Any:
        with torch.enable_grad():
            inputs = {name: value.detach().requires_grad_() for name, value in arrays.items()}
            total, more = function(inputs) if aux else (function(inputs), None)
            grads = _gradients(total, inputs)
        return (grads, more.detach()) if aux else grads


def _gradients(total: Any, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(total, Tensor) or not total.requires_grad:
        return {name: torch.zeros_like(value) for name, value in inputs.items()}
    gradients = torch.autograd.grad(total, list(inputs.values()), allow_unused=True, materialize_grads=True)
    return dict(zip(inputs, gradients, strict=True))
