"""Progress bars: one line on stderr where that is a terminal, in a notebook one output that changes."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from ppl_vae.progress import heard_by

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, Task

PERIOD = 0.1  # seconds between two drawings
PATIENCE = 0.5  # seconds that a pass over rows takes before it has a bar
MIDDLE, WIDE = 80, 100  # columns of a terminal from which on there is room for more
Told = Callable[[int, Mapping[str, Any]], None]


def is_terminal(stream: Any) -> bool:
    """Tell whether text on a stream is read on a terminal, whatever FORCE_COLOR says."""
    try:
        return bool(stream.isatty())
    except (AttributeError, ValueError):  # no stream, or a closed one
        return False


def moves(stream: Any) -> bool:
    """Tell whether a stream is a terminal whose lines can be written anew."""
    return is_terminal(stream) and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def in_notebook() -> bool:
    """Tell whether cells of a notebook are run."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell"


def console(stream: Any) -> "Console":
    """Return a console of rich's on a stream; NO_COLOR and dumb terminals are its concern."""
    from rich.console import Console

    terminal = is_terminal(stream)
    return Console(file=stream, force_terminal=terminal, force_jupyter=False, highlight=False)


class _Heedless:
    """A stream on which nothing fails: a bar that cannot be drawn, as its terminal is gone, ends no work."""

    def __init__(self, stream: Any):
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        with suppress(OSError, ValueError):
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self.stream.flush()


@contextmanager
def training(total: int, first: int, asked: bool | None = None) -> Iterator[Told]:
    """Show how a training stands, from step `first` on; hands out what is told (step, row of the history).

    Shows step, speed, and the last bounds on training and validation rows. `asked`: whether there is a bar;
    None: on a terminal and in a notebook.
    """
    shown = moves(sys.stderr) or in_notebook() if asked is None else asked
    if not shown:
        yield lambda step, row: None
        return
    with _line(_training_cells) as line:
        task = line.add_task("", total=total, completed=first, first=first, train="", valid="")
        redraw = _now_and_then(line)

        def tell(step: int, row: Mapping[str, Any]) -> None:
            split = {row["split"]: f"{row['split']} {_bound(row)}"} if row else {}
            line.update(task, completed=step, **split)
            redraw()

        line.refresh()
        yield tell


@contextmanager
def passes(name: str) -> Iterator[None]:
    """Show a bar for every pass over rows within that takes a while, on a terminal; gone once it is done."""
    if not moves(sys.stderr):
        yield
        return
    shown = _Passes(name)
    try:
        with heard_by(shown):
            yield
    finally:
        shown.close()


class _Passes:
    """The bar of one pass after the other."""

    def __init__(self, name: str):
        self.name, self.started, self.opened = name, time.monotonic(), None

    def __call__(self, done: int, total: int) -> None:
        if done >= total:
            self.close()
        elif self.opened is not None or time.monotonic() - self.started > PATIENCE:
            if self.opened is None:
                self.opened = _line(_pass_cells, transient=True)
                self.line = self.opened.__enter__()
                self.task = self.line.add_task(self.name, total=total, first=0)
                self.redraw = _now_and_then(self.line)
            self.line.update(self.task, completed=done, total=total)
            self.redraw()

    def close(self) -> None:
        if self.opened is not None:
            self.opened.__exit__(None, None, None)
        self.opened, self.started = None, time.monotonic()


@contextmanager
def _line(cells: Callable[[int], list[Any]], transient: bool = False) -> Iterator["Progress"]:
    """Return a line of rich's that is drawn when it is asked to: no thread runs beside the steps."""
    from rich.progress import Progress

    notebook = in_notebook()
    at = console(_Heedless(sys.stderr))
    kind = _in_notebook() if notebook else Progress
    line = kind(
        *cells(at.width),
        console=at,
        auto_refresh=False,
        transient=transient,
        redirect_stdout=is_terminal(sys.stdout),
        expand=True,
    )
    with line:
        yield line


def _in_notebook() -> type["Progress"]:
    from IPython.display import display
    from rich.progress import Progress

    class InNotebook(Progress):
        """A line that is one output of a cell, as text."""

        def start(self) -> None:
            self.handle = display({"text/plain": ""}, raw=True, display_id=True)

        def refresh(self) -> None:
            with self.console.capture() as drawn:
                self.console.print(self.get_renderable())
            self.handle.update({"text/plain": drawn.get().rstrip()}, raw=True)

        def stop(self) -> None:
            self.refresh()

    return InNotebook


def _now_and_then(line: "Progress") -> Callable[[], None]:
    last = 0.0

    def redraw() -> None:
        nonlocal last
        if time.monotonic() - last >= PERIOD:
            last = time.monotonic()
            line.refresh()

    return redraw


def _cell(text: Callable[["Task"], str], width: int | None = None) -> Any:
    from rich.progress import ProgressColumn
    from rich.table import Column
    from rich.text import Text

    class Cell(ProgressColumn):
        def render(self, task: "Task") -> Text:
            return Text(text(task))

    return Cell(table_column=Column(no_wrap=True, min_width=width))


def _bar() -> Any:
    from rich.progress import BarColumn
    from rich.table import Column

    return BarColumn(bar_width=None, table_column=Column(ratio=1, min_width=4))


def _training_cells(width: int) -> list[Any]:
    from rich.progress import TimeRemainingColumn

    cells = [_cell(lambda task: f"step {task.completed:,.0f}/{task.total:,}")]
    cells += [_bar()] if width >= MIDDLE else []
    cells += [_cell(_speed, 7)]
    cells += [_cell(lambda task, split=split: task.fields[split]) for split in ("train", "valid")]
    left = TimeRemainingColumn(compact=True, elapsed_when_finished=True)
    return cells + ([left] if width >= WIDE else [])


def _pass_cells(width: int) -> list[Any]:
    from rich.progress import TimeRemainingColumn

    of = _cell(lambda task: f"{task.description} {task.completed:,.0f}/{task.total:,}")
    return [of, _bar(), TimeRemainingColumn(compact=True)]


def _speed(task: "Task") -> str:
    speed = task.finished_speed or task.speed
    if speed is None and task.finished and task.elapsed:
        speed = (task.completed - task.fields["first"]) / task.elapsed
    return "" if speed is None else f"{speed:,.{0 if speed >= 10 else 1}f}/s"


def _bound(row: Mapping[str, Any]) -> str:
    """Return the bound of a row of the history in nats, else its loss."""
    for name, before, after in (("elbo_nats", "", " nats"), ("iw_nats", "", " nats"), ("loss", "loss ", "")):
        with suppress(KeyError, TypeError):
            return f"{before}{row[name]:.2f}{after}"
    return ""
