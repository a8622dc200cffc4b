"""The importance weighted bound of every row (Burda et al. 2016, arXiv:1509.00519): many draws, a few at a
time.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.common.terms import Densities
from ppl_vae.backends.pyro.capture import NotCaptured, capture, compiler_at_hand
from ppl_vae.backends.pyro.compiling import tried
from ppl_vae.backends.pyro.tracing import Tracer

LOG = logging.getLogger(__name__)
KEPT = 1024  # sums of passes that are held until they are added up


class Weights(nn.Module):
    """The log of the sum of the importance weights of `particles` draws, [B], in double precision."""

    def __init__(self, bound: nn.Module, particles: int):
        super().__init__()
        self.bound, self.particles = bound, particles

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        pair = Tracer(self.bound).pair(batch, self.particles)
        weights = Densities(pair.guide, pair.model).log_weights.double()
        return weights.logsumexp(0) if self.particles > 1 else weights


def importance_bounds(
    bound: nn.Module, batches: Iterable[Mapping[str, Tensor]], samples: int, at_once: int, compiled: bool
) -> list[Tensor]:
    """Return the bound of each row of each batch with `samples` draws, `at_once` in one pass, in nats;
    compiled for batches of the first one's size.
    """
    whole, rest = Weights(bound, at_once), Weights(bound, samples % at_once)
    fast, size, bounds = None, None, []
    for batch in batches:
        if size is None:
            size = rows_of(batch)
            fast = _compiled(whole, batch) if compiled and size > 1 else whole
        call = fast if rows_of(batch) == size else whole
        sums = []
        for _ in range(samples // at_once):
            sums.append(call(batch))
            if len(sums) == KEPT:
                sums = [torch.stack(sums).logsumexp(0)]
        if samples % at_once:
            sums.append(rest(batch))
        bounds.append(torch.stack(sums).logsumexp(0) - math.log(samples))
    return bounds


def _compiled(module: Weights, batch: Mapping[str, Tensor]) -> Callable[[Mapping[str, Tensor]], Tensor]:
    """Return a pass compiled for a batch's size; as it is, and a line of the log, where that fails."""
    started = time.perf_counter()

    def make() -> Callable[..., Tensor]:
        call = graph.compiled(dict(batch))
        call(dict(batch))
        return call

    try:
        with compiler_at_hand(module.bound):
            graph = capture(module, module.bound, batch)
        call = tried(module, graph, make, started)
    except NotCaptured as reason:
        LOG.warning("the importance weights run uncompiled: %s", reason)
        return module
    return lambda rows: call(dict(rows))
