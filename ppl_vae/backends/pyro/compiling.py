"""Whether and how a training step is compiled: always, never, or where the run is long enough to earn it."""

import contextlib
import gc
import logging
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro.capture import Graph, NotCaptured, capture, compiler_at_hand, untouched
from ppl_vae.backends.pyro.objectives import Loss, Objective, rows_of
from ppl_vae.backends.pyro.plain import PlainBound

LOG = logging.getLogger(__name__)
# What `auto` weighs, as measured on two cores of a server CPU (benchmarks/results): seconds to compile a
# graph anew (first_steps.json), and seconds that compilation saves per node and step, at least
# (steps.json, deep.json, codes.json, formats.json: 15 to 60 microseconds).
START_SECONDS, SECONDS_PER_NODE, SAVED_SECONDS_PER_NODE_STEP = 3.0, 0.05, 15e-6
# No graph, however large, earns its compilation in fewer.
LEAST_STEPS = math.ceil(SECONDS_PER_NODE / SAVED_SECONDS_PER_NODE_STEP)


class Compiled(nn.Module):
    """An objective compiled for batches of one size.

    Other sizes, such as the odd last batch, run through the same graph uncompiled, or where that takes one
    size only, through the objective itself. Which code a batch runs through depends on its size alone, not on
    the batches before it, so that a resumed run has the same bits.

    Parameters
    ----------
    loss : Objective
    graph : Graph
    batch : dict of str to Tensor
        An example of the size to compile for.
    weight : Tensor
        An example of the weight.
    """

    def __init__(self, loss: Objective, graph: Graph, batch: Mapping[str, Tensor], weight: Tensor):
        super().__init__()
        self.loss, self.rows = loss, rows_of(batch)
        # Not submodules: they hold the same parameters as the objective.
        self._graph = [graph.module()] if graph.any_size else None
        self._fast = [graph.compiled(dict(batch), weight)]

    def forward(self, batch: dict[str, Tensor], weight: Tensor) -> Loss:
        rows = rows_of(batch)
        if rows == self.rows:
            return self._fast[0](batch, weight)
        return (self.loss if self._graph is None or rows < 2 else self._graph[0])(batch, weight)


def compiled(
    loss: Objective, batch: Mapping[str, Tensor], rows: int, choice: str = "on", steps: int = 0
) -> nn.Module:
    """Return an objective compiled for batches of `rows`; as it is, and a line of the log that says why,
    where that fails or is not worth while.

    Parameters
    ----------
    loss : Objective
    batch : dict of str to Tensor
        Any batch.
    rows : int
    choice : str
        on, off, or auto: as `earns` says of the graph and `steps`, whatever the machine.
    steps : int
        Steps of the run.
    """
    if choice == "off" or (choice == "auto" and (steps < LEAST_STEPS or isinstance(loss.bound, PlainBound))):
        return loss
    trained = isinstance(loss.bound, PlainBound) or any(p.requires_grad for p in loss.parameters())
    if not trained:  # statistics alone
        return loss
    try:
        example = {name: _resized(value, rows) for name, value in batch.items()}
        weight = torch.ones((), device=next(iter(example.values())).device)
        started = time.perf_counter()
        with compiler_at_hand(loss.bound):
            graph = capture(loss, loss.bound, example, weight)
        if choice == "auto" and not earns(graph.nodes, steps):
            return loss
        with untouched(loss), _uncollected():
            module = Compiled(loss, graph, example, weight)
            module(dict(example), weight).value.backward()
    except NotCaptured as reason:
        LOG.warning("the step runs uncompiled: %s", reason)
        return loss
    LOG.info("compiled %d operations in %.1f s", graph.nodes, time.perf_counter() - started)
    return module


def earns(nodes: int, steps: int) -> bool:
    """Tell whether compilation is expected to take less time than it saves over all steps of a run:
    START_SECONDS + SECONDS_PER_NODE * nodes <= SAVED_SECONDS_PER_NODE_STEP * nodes * steps.

    No clock is read: whether a run is compiled, and so which noise it draws, depends on the run alone.
    """
    expected, saved = START_SECONDS + SECONDS_PER_NODE * nodes, SAVED_SECONDS_PER_NODE_STEP * nodes * steps
    if saved < expected:
        LOG.info(
            "the step runs uncompiled: to compile it takes about %.0f s and saves about %.0f s",
            expected,
            saved,
        )
    return saved >= expected


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Collect no garbage: of millions of objects that a compiler makes it takes an eighth of its time."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def _resized(value: Any, rows: int) -> Tensor:
    if not isinstance(value, Tensor) or not value.ndim:
        raise NotCaptured("its batches hold other things than arrays of rows")
    return value.repeat(-(-rows // len(value)), *[1] * (value.ndim - 1))[:rows]
