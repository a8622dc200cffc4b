"""Whether and how a training step is compiled: always, never, or where the run is long enough to earn it."""

import contextlib
import gc
import logging
import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.pyro.capture import (
    Graph,
    NotCaptured,
    capture,
    compiler_at_hand,
    kept_for_backward,
    untouched,
)
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.objectives import Loss
from ppl_vae.stopping import SAID, compiling

LOG = logging.getLogger(__name__)
# What `auto` weighs, as measured on two cores of a server CPU (benchmarks/results): seconds to compile a
# graph anew (first_steps.json), and seconds that compilation saves per node and step, at least
# (steps.json, deep.json, codes.json, formats.json: 15 to 60 microseconds).
START_SECONDS, SECONDS_PER_NODE, SAVED_SECONDS_PER_NODE_STEP = 3.0, 0.05, 15e-6
# No graph, however large, earns its compilation in fewer.
LEAST_STEPS = math.ceil(SECONDS_PER_NODE / SAVED_SECONDS_PER_NODE_STEP)
Fast = TypeVar("Fast")


class Compiled(nn.Module):
    """An objective compiled for batches of one size.

    Other sizes, such as the odd last batch, run through the same graph uncompiled, or where that takes one
    size only, through the objective itself. Which code a batch runs through depends on its size alone, not on
    the batches before it, so that a resumed run has the same bits.
    """

    def __init__(
        self, loss: Objective, graph: Graph, batch: Mapping[str, Tensor], scalars: Any, replayed: bool = False
    ):
        super().__init__()
        self.loss, self.rows, self.replayed = loss, rows_of(batch), replayed
        # Not submodules: they hold the same parameters as the objective.
        self._graph = [graph.module()] if graph.any_size else None
        self._fast = [graph.compiled(dict(batch), dict(scalars), replayed=replayed)]

    def forward(self, batch: dict[str, Tensor], scalars: dict[str, Tensor]) -> Loss:
        rows = rows_of(batch)
        if rows == self.rows:
            if self.replayed:
                torch.compiler.cudagraph_mark_step_begin()
            return self._fast[0](batch, scalars)
        return (self.loss if self._graph is None or rows < 2 else self._graph[0])(batch, scalars)


def compiled(
    loss: Objective,
    batch: Mapping[str, Any],
    scalars: Any,
    rows: int,
    choice: str = "on",
    steps: int = 0,
    replayed: bool = False,
) -> nn.Module:
    """Return an objective compiled for batches of `rows`; as it is, and a line of the log that says why,
    where that fails or is not worth while: for auto, as `earns` says of the graph and the `steps` of the run.
    `replayed`: its forward pass becomes a CUDA graph, which a step of several passes would overwrite.
    """
    if choice == "off" or (choice == "auto" and (steps < LEAST_STEPS or not loss.bound.declared)):
        return loss
    if loss.bound.declared and not any(p.requires_grad for p in loss.parameters()):  # statistics alone
        return loss
    started, scalars = time.perf_counter(), dict(scalars)

    def make() -> Compiled:
        several = getattr(loss.objective, "groups", ())
        with kept_for_backward() if several else contextlib.nullcontext(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The CUDA Graph is empty")  # torch's own first one
            module = Compiled(loss, graph, example, scalars, replayed and not several)
            module(dict(example), scalars).value.backward()
        return module

    try:
        example = {name: _resized(value, rows) for name, value in batch.items()}
        with compiler_at_hand(loss.bound):
            graph = capture(loss, loss.bound, example, scalars)
        if choice == "auto" and not earns(graph.nodes, steps):
            return loss
        return tried(loss, graph, make, started)
    except NotCaptured as reason:
        LOG.warning("the step runs uncompiled: %s", reason)
        return loss


def tried(module: nn.Module, graph: Graph, make: Callable[[], Fast], started: float) -> Fast:
    """Return what `make` compiles of a module's graph and tries out, twice at the most: other processes that
    compile at the same time, and their use of memory, may break the compiler's workers and files.

    Raises
    ------
    NotCaptured
    """
    expected = START_SECONDS + SECONDS_PER_NODE * graph.nodes
    if expected > SAID:
        LOG.info("compiling %d operations, which takes about %.0f s", graph.nodes, expected)
    try:
        with untouched(module), _uncollected(), compiling():
            made = make()
    except NotCaptured as reason:
        LOG.warning("the compiler failed and starts once more: %s", reason)
        _start_afresh()
        with untouched(module), _uncollected(), compiling():
            made = make()
    LOG.info("compiled %d operations in %.1f s", graph.nodes, time.perf_counter() - started)
    return made


def _start_afresh() -> None:
    """Forget workers that have died and compilations that have failed: the compiler keeps both."""
    from torch._inductor.async_compile import shutdown_compile_workers
    from torch._inductor.utils import clear_caches

    shutdown_compile_workers()
    clear_caches()


def earns(nodes: int, steps: int) -> bool:
    """Tell whether compilation is expected to take less time than it saves over all steps of a run:
    START_SECONDS + SECONDS_PER_NODE * nodes <= SAVED_SECONDS_PER_NODE_STEP * nodes * steps.

    No clock is read: whether a run is compiled, and so which noise it draws, depends on the run alone.
    """
    expected, saved = START_SECONDS + SECONDS_PER_NODE * nodes, SAVED_SECONDS_PER_NODE_STEP * nodes * steps
    if saved < expected:
        words = "the step runs uncompiled: to compile it takes about %.0f s and saves about %.0f s"
        LOG.info(words, expected, saved)
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
