"""Whether and how a training step is compiled: always, never, or where the run is long enough to earn it."""

import contextlib
import gc
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.pyro.capture import Graph, NotCaptured, capture, compiler_at_hand, untouched
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.objectives import Loss

LOG = logging.getLogger(__name__)
# Part of a step's time that compilation saves at least, as measured on the programs of the gallery; and what
# a compilation takes that was never measured here: so many seconds, and so many for each operation.
SAVED, START, EACH = 0.15, 3.0, 0.06
FEW = 100  # steps that are not worth a look


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
    scalars : dict of str to Tensor
        An example of the named scalars.
    """

    def __init__(self, loss: Objective, graph: Graph, batch: Mapping[str, Tensor], scalars: Any):
        super().__init__()
        self.loss, self.rows = loss, rows_of(batch)
        # Not submodules: they hold the same parameters as the objective.
        self._graph = [graph.module()] if graph.any_size else None
        self._fast = [graph.compiled(dict(batch), dict(scalars))]

    def forward(self, batch: dict[str, Tensor], scalars: dict[str, Tensor]) -> Loss:
        rows = rows_of(batch)
        if rows == self.rows:
            return self._fast[0](batch, scalars)
        return (self.loss if self._graph is None or rows < 2 else self._graph[0])(batch, scalars)


def compiled(
    loss: Objective,
    batch: Mapping[str, Tensor],
    scalars: Mapping[str, Tensor],
    rows: int,
    choice: str = "on",
    steps: int = 0,
) -> nn.Module:
    """Return an objective compiled for batches of `rows`; as it is, and a line of the log that says why,
    where that fails or is not worth while.

    Parameters
    ----------
    loss : Objective
    batch : dict of str to Tensor
        Any batch.
    scalars : dict of str to Tensor
        Any values of the named scalars.
    rows : int
    choice : str
        on, off, or auto: if `steps` of them are worth the time that it takes.
    steps : int
        Steps to come.
    """
    if choice == "off" or (choice == "auto" and (steps < FEW or not loss.bound.declared)):
        return loss
    trained = not loss.bound.declared or any(p.requires_grad for p in loss.parameters())
    if not trained:  # statistics alone
        return loss
    try:
        example = {name: _resized(value, rows) for name, value in batch.items()}
        scalars = dict(scalars)
        plain = _seconds(loss, example, scalars) if choice == "auto" else None
        if plain is not None and SAVED * plain * steps < START:
            return loss
        kept, started = _kept(), time.perf_counter()
        with compiler_at_hand(loss.bound):
            graph = capture(loss, loss.bound, example, scalars)
        if plain is not None and not _earns(graph, rows, plain, steps):
            return loss
        captured = time.perf_counter() - started
        with untouched(loss), _uncollected():
            module = Compiled(loss, graph, example, scalars)
            module(dict(example), scalars).value.backward()
        spent = time.perf_counter() - started
    except NotCaptured as reason:
        LOG.warning("the step runs uncompiled: %s", reason)
        return loss
    # What the compiler has kept takes about as long to load as it took to capture.
    _note(graph, rows, captured if _kept() > kept else spent)
    LOG.info("compiled %d operations in %.1f s", graph.nodes, spent)
    return module if plain is None else _faster(module, loss, example, scalars, plain)


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


def _seconds(call: Callable[..., Loss], batch: Mapping[str, Tensor], scalars: Any) -> float:
    """Return the least time of a few runs forward and backward."""
    times = []
    with untouched(call):
        for _ in range(4):
            started = time.perf_counter()
            call(dict(batch), scalars).value.backward()
            if next(iter(batch.values())).is_cuda:
                torch.cuda.synchronize()
            times.append(time.perf_counter() - started)
    return min(times)


def _earns(graph: Graph, rows: int, plain: float, steps: int) -> bool:
    """Tell whether steps to come are likely to save more time than compiling takes."""
    expected, saved = _expected(graph, rows), SAVED * plain * steps
    if saved < expected:
        LOG.info(
            "the step runs uncompiled: to compile it takes about %.0f s and saves about %.0f s",
            expected,
            saved,
        )
    return saved >= expected


def _expected(graph: Graph, rows: int) -> float:
    try:
        return float(_noted(graph, rows).read_text())
    except (OSError, ValueError):
        return START + EACH * graph.nodes


def _faster(module: nn.Module, loss: nn.Module, batch: Any, scalars: Any, plain: float) -> nn.Module:
    found = _seconds(module, batch, scalars)
    if found < plain:
        return module
    LOG.info("the step runs uncompiled: %.1f ms compiled, %.1f ms not", found * 1e3, plain * 1e3)
    return loss


def _noted(graph: Graph, rows: int) -> Path:
    return _notes() / f"{graph.digest[:32]}-{rows}-{torch.__version__}.txt"


def _notes() -> Path:
    """Return where the seconds that compilations take are kept: beside what they left in the compiler's
    cache.
    """
    from torch._inductor.runtime.cache_dir_utils import cache_dir  # a second, for those who compile

    return Path(cache_dir()) / "ppl_vae"


def _kept() -> int:
    """Return how many graphs this process has put into the compiler's cache."""
    from torch._dynamo.utils import counters  # most of a second; torch's optimizers need it in any case

    return counters["aot_autograd"]["autograd_cache_saved"]


def _note(graph: Graph, rows: int, seconds: float) -> None:
    path = _noted(graph, rows)
    with contextlib.suppress(OSError):  # without the note the next run estimates
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{seconds:.2f}")
