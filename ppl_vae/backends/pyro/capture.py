"""A part of a program as one graph.

Effect handlers cost Python time at every step, and a guide and a model that share networks compute them
twice. Captured once (`torch.export`) and compiled, the handlers are gone and what is common is computed once.
"""

import contextvars
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pyro
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from ppl_vae.faults import cause_of
from ppl_vae.program import Program

# Kinds of regions in a graph that the compiler's cache does not know to be functions of what is in them.
REGIONS = ("wrap_with_autocast", "wrap_with_set_grad_enabled")


class NotCaptured(Exception):
    """Why a program runs step by step instead of as a graph."""


class Graph(NamedTuple):
    """A captured module, whose parameters and buffers are those of the module itself."""

    exported: torch.export.ExportedProgram
    any_size: bool  # takes any number of rows from 2 on; else only as many as the example had

    @property
    def nodes(self) -> int:
        """Operations in it."""
        return len(self.exported.graph.nodes)

    def module(self) -> nn.Module:
        """Return the graph as a module that runs operation by operation."""
        return self.exported.module(check_guards=False)

    def compiled(self, *example: Any, replayed: bool = False) -> Callable[..., Any]:
        """Return the graph compiled for arguments of the example's shapes; `replayed`: as a CUDA graph, which
        is one launch. Its outputs are overwritten by the next call.

        Straight through the compiler's back end: the graph is there already, and `torch.compile` would look
        for it again and check at every call that nothing has changed. What was compiled once on a machine
        is there in seconds the next time.
        """
        # A second or two, for those who compile.
        from torch._guards import TracingContext, tracing
        from torch._inductor import config
        from torch._inductor.compile_fx import compile_fx
        from torch._subclasses.fake_tensor import FakeTensorMode
        from torch.fx.experimental.symbolic_shapes import ShapeEnv

        module = self.module()
        # The compiler's cache finds a graph by its pickle, and what export hangs on to a module has none; nor
        # does it look without a context that says which sizes are fixed.
        bare = torch.fx.GraphModule(module, module.graph)
        if replayed:  # parameters and buffers stay where they are: with this name torch does not copy them
            bare.meta["dynamo_compile_id"] = None
        fake = FakeTensorMode(shape_env=ShapeEnv(), static_shapes=True, allow_non_fake_inputs=True)
        fixed = pytree.tree_map_only(Tensor, lambda v: fake.from_tensor(v, static_shapes=True), list(example))
        regions = {f"torch.ops.higher_order.{name}": torch.__version__ for name in REGIONS}
        with (
            tracing(TracingContext(fake)),
            config.patch({"unsafe_marked_cacheable_functions": regions, "triton.cudagraphs": replayed}),
            warnings.catch_warnings(),
        ):
            # To name a graph, pickle asks every module of the process, those that warn of any name too.
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)  # advice: use TF32
            return compile_fx(bare, fixed)


def capture(module: nn.Module, bound: nn.Module, batch: Mapping[str, Tensor], *more: Any) -> Graph:
    """Return a module of a bound program as a graph, in the mode and the precision that it has now.

    The module is called with (batch, *more): `batch` is an example of at least 2 rows, `more` are nested
    dicts of tensors that have no rows, such as the named scalars. Its parameters must be the graph's.

    Raises
    ------
    NotCaptured
        For control flow that depends on data, draws that cannot be captured, or a program whose parameters
        would become constants.
    """
    if not bound.declared:
        raise NotCaptured("its parameters lie outside, only a declared Program can be one graph")
    example = (dict(batch), *more)
    rows = torch.export.Dim("rows", min=2, max=2**31)
    shapes = ({name: {0: rows} for name in batch}, *[pytree.tree_map(lambda _: None, one) for one in more])
    try:
        graph = Graph(_exported(module, example, shapes), any_size=True)
    except NotCaptured:  # a `len(x)` in the program makes the number of rows a constant
        try:
            graph = Graph(_exported(module, example, None), any_size=False)
        except NotCaptured as reason:
            raise NotCaptured(f"{reason}{_place(reason.__cause__, bound.program)}") from reason.__cause__
    _refuse_constants(graph, bound)
    return graph


def _exported(module: nn.Module, example: tuple, shapes: Any) -> torch.export.ExportedProgram:
    with quiet(), untouched(module):
        return torch.export.export(module, example, dynamic_shapes=shapes, strict=False)


def _refuse_constants(graph: Graph, bound: nn.Module) -> None:
    inside = {parameter.data_ptr() for parameter in graph.exported.parameters()}
    missing = sum(parameter.data_ptr() not in inside for parameter in bound.trainable())
    if missing:
        raise NotCaptured(f"{missing} of its parameters would become constants")


@contextmanager
def kept_for_backward() -> Iterator[None]:
    """Let what a compiled pass saves outlive the gradient of the first of its losses."""
    from torch._functorch import config  # for those who have several losses

    with config.patch(donated_buffer=False):
        yield


@contextmanager
def compiler_at_hand(bound: nn.Module) -> Iterator[None]:
    """Let the compiler find out meanwhile, in child processes, which vector instructions the CPU has."""
    if not bound.declared or bound.device.type != "cpu":
        yield
        return
    from torch._inductor import codecache, cpu_vec_isa  # noqa: F401 (two threads do not import at once)

    with ThreadPoolExecutor(1) as pool:
        # The compiler's settings belong to a context.
        pool.submit(contextvars.copy_context().run, cpu_vec_isa.pick_vec_isa)
        yield


def first_line(error: Exception) -> str:
    """Return an error of torch's as one line."""
    text = re.sub(r"\x1b\[[\d;]*m", "", str(error))  # colours
    text = text.partition("The error above occurred when calling")[0].strip()  # torch's advice
    if type(error).__name__ == "GuardOnDataDependentSymNode" and (not text or "Could not guard" in text):
        return "its control flow depends on the values of data"
    return ": ".join(filter(None, [type(error).__name__, text.partition("\n")[0]]))


def _place(error: BaseException, program: Program) -> str:
    """Return the line of a program's own files that an error comes from."""
    kinds = [kind for kind in type(program).__mro__ if kind not in Program.__mro__]
    files = {getattr(sys.modules.get(kind.__module__), "__file__", None) for kind in kinds}
    lines = [one for one in traceback.extract_tb(error.__traceback__) if one.filename in files]
    return f" ({Path(lines[-1].filename).name}, line {lines[-1].lineno}: {lines[-1].line})" if lines else ""


@contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Try a module out: buffers, gradients and noise are afterwards what they were. What fails is a reason
    not to capture it.
    """
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    gradients = [(parameter, parameter.grad) for parameter in module.parameters()]
    tensors = [*module.parameters(), *module.buffers()]
    devices = {value.device for value in tensors if value.device.type == "cuda"}
    module.zero_grad(set_to_none=True)
    try:
        with pyro.validation_enabled(False), torch.random.fork_rng(devices=list(devices)):
            yield
    except Exception as error:
        cause = cause_of(error)
        raise NotCaptured(first_line(cause)) from cause
    finally:
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers[name])
        for parameter, gradient in gradients:
            parameter.grad = gradient


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what torch's exporters say of themselves: what matters is raised. Spare them the traceback of
    every operation, a fifth of their time.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.fx.experimental.symbolic_shapes")]
    levels, nowhere = [logger.level for logger in loggers], io.StringIO()
    spared = getattr(torch.fx.config, "do_not_emit_stack_traces", False)
    torch.fx.config.do_not_emit_stack_traces = True
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(nowhere), redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.fx.config.do_not_emit_stack_traces = spared
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
