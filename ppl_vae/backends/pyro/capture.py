"""A training step's objective, model and guide as one graph.

Effect handlers cost Python time at every step, and a guide and a model that share networks compute them
twice. Captured once (`torch.export`) and compiled, the handlers are gone and what is common is computed once.
"""

import logging
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro.objectives import Loss, Objective, rows_of
from ppl_vae.backends.pyro.plain import PlainBound

LOG = logging.getLogger(__name__)
ROWS = torch.export.Dim("rows", min=2, max=2**31)


class NotCaptured(Exception):
    """Why a program runs step by step instead of as a graph."""


class Graph(NamedTuple):
    """A captured objective.

    Attributes
    ----------
    module : nn.Module
        Takes (batch, weight) and returns what the objective returns. Its parameters and buffers are those of
        the objective.
    nodes : int
        Operations in it.
    any_size : bool
        It takes any number of rows from 2 on; else only as many as the example had.
    """

    module: nn.Module
    nodes: int
    any_size: bool


def capture(loss: Objective, batch: Mapping[str, Tensor], weight: Tensor) -> Graph:
    """Return an objective as a graph, in the mode and the precision that its program has now.

    Parameters
    ----------
    loss : Objective
    batch : dict of str to Tensor
        An example of at least 2 rows.
    weight : Tensor
        Of the KL; an input of the graph, so that it may be scheduled.

    Raises
    ------
    NotCaptured
        For control flow that depends on data, draws that cannot be captured, or a program whose parameters
        would become constants.
    """
    example = (dict(batch), weight)
    try:
        exported = _exported(loss, example, ({name: {0: ROWS} for name in batch}, None))
    except NotCaptured:  # a `len(x)` in the program makes the number of rows a constant
        return _graph(loss, _exported(loss, example, None), any_size=False)
    return _graph(loss, exported, any_size=True)


def _exported(loss: Objective, example: tuple, shapes: Any) -> torch.export.ExportedProgram:
    buffers = {name: value.clone() for name, value in loss.named_buffers()}
    try:
        with pyro.validation_enabled(False), torch.random.fork_rng(devices=_devices(example[1])):
            return torch.export.export(loss, example, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        raise NotCaptured(first_line(error)) from error
    finally:
        _restore(loss, buffers)


def _graph(loss: Objective, exported: torch.export.ExportedProgram, any_size: bool) -> Graph:
    module = exported.module(check_guards=False)
    inside = {parameter.data_ptr() for parameter in module.parameters()}
    missing = sum(parameter.data_ptr() not in inside for parameter in loss.bound.trainable())
    if missing:
        raise NotCaptured(f"{missing} of its parameters would become constants")
    return Graph(module, len(exported.graph.nodes), any_size)


def _devices(weight: Tensor) -> list[torch.device]:
    return [weight.device] if weight.device.type == "cuda" else []


def first_line(error: Exception) -> str:
    """Return an error of torch's as one line."""
    text = str(error).partition("The error above occurred when calling")[0].strip()  # torch's advice
    return ": ".join(filter(None, [type(error).__name__, text.partition("\n")[0]]))


def _restore(loss: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    with torch.no_grad():
        for name, value in loss.named_buffers():
            value.copy_(buffers[name])


class Compiled(nn.Module):
    """An objective compiled for batches of one size.

    Other sizes, such as the odd last batch, run through the same graph uncompiled, or where that takes one
    size only, through the objective itself. Which code a batch runs through depends on its size alone, not on
    the batches before it, so that a resumed run has the same bits.
    """

    def __init__(self, loss: Objective, graph: Graph, rows: int):
        super().__init__()
        self.loss, self.rows = loss, rows
        self.graph = graph.module if graph.any_size else None
        self.fast = torch.compile(graph.module, dynamic=False)

    def forward(self, batch: dict[str, Tensor], weight: Tensor) -> Loss:
        rows = rows_of(batch)
        if rows == self.rows:
            return self.fast(batch, weight)
        return (self.loss if self.graph is None or rows < 2 else self.graph)(batch, weight)


def compiled(loss: Objective, batch: Mapping[str, Tensor], weight: Tensor, rows: int) -> nn.Module:
    """Return an objective compiled for batches of `rows`; as it is, and a line of the log that says why,
    where that fails.
    """
    started = time.perf_counter()
    try:
        if isinstance(loss.bound, PlainBound):
            raise NotCaptured("its parameters lie outside, only a declared Program can be one graph")
        example = {name: _resized(value, rows) for name, value in batch.items()}
        graph = capture(loss, example, weight)
        module = Compiled(loss, graph, rows)
        _warm_up(module, loss, example, weight)
    except NotCaptured as reason:
        LOG.warning("the step runs uncompiled: %s", reason)
        return loss
    LOG.info("compiled %d operations in %.1f s", graph.nodes, time.perf_counter() - started)
    return module


def _resized(value: Any, rows: int) -> Tensor:
    if not isinstance(value, Tensor) or not value.ndim:
        raise NotCaptured("its batches hold other things than arrays of rows")
    return value.repeat(-(-rows // len(value)), *[1] * (value.ndim - 1))[:rows]


def _warm_up(module: nn.Module, loss: Objective, batch: Mapping[str, Tensor], weight: Tensor) -> None:
    """Compile forward and backward now; buffers, gradients and noise stay as they are."""
    buffers = {name: value.clone() for name, value in loss.named_buffers()}
    try:
        with pyro.validation_enabled(False), torch.random.fork_rng(devices=_devices(weight)):
            module(dict(batch), weight).value.backward()
    except Exception as error:
        raise NotCaptured(first_line(error)) from error
    finally:
        _restore(loss, buffers)
        loss.zero_grad(set_to_none=True)
