"""One frame around every verb: signals, errors, exit codes, and where text goes."""

import atexit
import contextlib
import gc
import json
import logging
import math
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from ppl_vae import bars, checks, model_files
from ppl_vae.cli.wording import Command, in_options
from ppl_vae.errors import PplVaeError, ProgramError
from ppl_vae.faults import Fault
from ppl_vae.stopping import STOPPING, Present
from ppl_vae.summaries import readable

TRACEBACK = "PPL_VAE_TRACEBACK"  # asks for the whole traceback of an error; `--debug` sets it
DEBUG = "--debug"
_HINT = f" ({DEBUG} shows the traceback)"
HELD = 1.0  # seconds in which a thread that is not held takes a signal


class _Terminated(BaseException):
    """A signal to end while no training is there to take it; its argument is the number."""


def script(parser: Callable[[], Any], main: Callable[[Any], Mapping[str, Any] | None]) -> NoReturn:
    """Be the last line of a script: parse the command line, do the work, print the result, exit.

    Parameters
    ----------
    parser : callable
        Returns the script's ArgumentParser.
    main : callable
        Takes the parsed options and returns the result: a table on a terminal, else one line of JSON. Its
        `text`, if any, is what a person reads instead of the table; `exit_code` is that of the process.
    """
    verb = Path(sys.argv[0]).stem
    # The interpreter looks for cycles in everything several times as it ends, which takes a second.
    atexit.register(gc.freeze)
    sys.exit(run(verb, parser, main, sys.argv[1:]))


def run(
    verb: str,
    parser: Callable[[], Any],
    main: Callable[[Any], Mapping[str, Any] | None],
    words: Sequence[str],
) -> int:
    """Do a verb's work and return the exit code."""
    words = debugged(words)

    def work() -> int:
        from ppl_vae.cli import parsing

        Command.options = ()
        options = parsing.parse(parser, words)
        Command.options = parsing.named(parser)
        _log()
        # Whatever a library or a model file prints must not end up behind the result.
        with contextlib.redirect_stdout(sys.stderr), bars.passes(verb):
            result = main(options)
        result = dict(result or {})
        code = result.pop("exit_code", 0)
        if result:
            _answer(result, options.get("json") or not bars.is_terminal(sys.stdout))
        stopped = result.get("stopped_by")
        return 128 + signal.Signals[stopped] if stopped else code

    return guarded(verb, work)


def _answer(result: dict[str, Any], json_line: bool) -> None:
    """Print a result: as JSON, or for a person."""
    text = result.pop("text", None)
    if json_line:
        if text is not None:
            say(text)
        print(json.dumps(as_json(result), allow_nan=False), flush=True)
    elif text is not None:
        print(readable(in_options(text)), flush=True)
    else:
        from ppl_vae.cli import tables

        tables.show(as_json(result))


def debugged(words: Sequence[str]) -> list[str]:
    """Return a command line without `--debug`, which holds for this process and those that it starts."""
    if DEBUG in words:
        os.environ[TRACEBACK] = "1"
    return [word for word in words if word != DEBUG]


def guarded(verb: str, work: Callable[[], int | None]) -> int:
    """Call `work` and turn what it raises into a line on stderr and an exit code."""
    name = f"ppl-vae {verb}".strip()
    _open_streams()
    try:
        with _sigterm():
            code = work() or 0
            sys.stdout.flush()
            return code
    except PplVaeError as error:
        if os.environ.get(TRACEBACK):
            traceback.print_exc()
        say(f"{name}: {' '.join(str(error).split())}{_beside(error)}")
        return error.exit_code
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        if Present.cut:  # the interpreter would end under the threads of a compiler
            os._exit(130)
        return 130
    except _Terminated as error:
        say(f"{name}: terminated")
        return 128 + error.args[0]
    except BrokenPipeError:  # the reader of our output has gone: nothing more to tell it
        _leave_stdout()
        return 1
    except (OSError, MemoryError) as error:
        say(f"{name}: {_of_the_system(error)}")
        _leave_stdout()
        return 1
    except SystemExit as error:
        if isinstance(error.code, str):
            say(error.code)
        return error.code if isinstance(error.code, int) else int(error.code is not None)
    except Exception as error:
        place = None if os.environ.get(TRACEBACK) else model_files.fault(error)
        if place is None:
            traceback.print_exc()
        else:
            say(f"{name}: {place}{_HINT}")
        return 1


def _open_streams() -> None:
    """Open what was closed of stdin, stdout and stderr: the next file would take its place, and with it
    whatever a library writes there.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
            setattr(sys, name, open(number, "w" if number else "r", closefd=False))  # noqa: SIM115


def _leave_stdout() -> None:
    """Let nothing that is left for stdout fail once more as the interpreter ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _of_the_system(error: OSError | MemoryError) -> str:
    """Return what the operating system refused, and of which file."""
    if isinstance(error, MemoryError):
        return f"there is not enough memory ({error}): take fewer rows, draws or features"
    path = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
    where = f"{path[:80]}{'...' if len(path) > 80 else ''}: " if path else ""
    return f"{where}{error.strerror or ' '.join(str(error).split())}"


def _beside(error: PplVaeError) -> str:
    """Return how to see more, or where in a user's file a program was refused, where its message does not
    say so.
    """
    if isinstance(error, Fault):
        return "" if os.environ.get(TRACEBACK) else _HINT
    place = model_files.place(error) if isinstance(error, ProgramError) else None
    return "" if place is None or place in str(error) else f" ({place})"


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Let signals to end unwind like Ctrl-C, so that temporary files go; training takes them over."""
    taken = [number for number in STOPPING if signal.getsignal(number) is signal.SIG_DFL]
    if threading.current_thread() is not threading.main_thread():
        taken = []

    def stop(number: int, frame: Any) -> NoReturn:
        raise _Terminated(number)

    for number in taken:
        signal.signal(number, stop)
    try:
        with _interruptible():
            yield
    finally:
        for number in taken:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C end the process where the main thread is held by a compiler, which calls no handler."""
    handler = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()
    if not main or handler is not signal.default_int_handler or not hasattr(os, "pipe2"):
        yield
        return

    def interrupt(number: int, frame: Any) -> NoReturn:
        Present.heard = time.monotonic()
        raise KeyboardInterrupt

    def watch() -> None:
        while number := os.read(ends[0], 1):
            came = time.monotonic()
            time.sleep(HELD)
            held = Present.heard < came - HELD / 2 and (Present.compiling or not Present.training)
            if number[0] == signal.SIGINT and held:
                say("ppl-vae: interrupted")
                os._exit(130)
        os.close(ends[0])

    ends = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(ends[1], False)
    before = signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, interrupt)
    threading.Thread(target=watch, name="ppl_vae signals", daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        signal.set_wakeup_fd(before)
        os.close(ends[1])  # which ends the thread


class _Log(logging.Handler):
    """What the library logs, as lines like all others."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def _log() -> None:
    logger = logging.getLogger("ppl_vae")
    if not any(isinstance(handler, _Log) for handler in logger.handlers):
        logger.addHandler(_Log())
        logger.setLevel(logging.INFO)


def say(text: str) -> None:
    """Tell the person something, beside the result; where nobody listens any more, nothing is said. Names of
    files and columns may hold characters that a terminal would obey.
    """
    with contextlib.suppress(OSError, ValueError):
        print(readable(in_options(text)), file=sys.stderr, flush=True)


def hint(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return `: did you mean ...?` where a known name is close, else another ending.

    An option may lack its group or have a wrong one: what counts is the name behind it; the same group wins.
    """
    group, known = name.rpartition(".")[0], list(known)
    bare = {_bare(one): one for one in reversed(known)}
    own = {_bare(one): one for one in known if one.rpartition(".")[0] == group}
    names = bare | own
    close = checks.near(_bare(name), names)
    return f": did you mean {names[close]}?" if close else otherwise


def _bare(option: str) -> str:
    """Return an option's own name: z_dim of --model.z_dim, k of --objective 'iwae(k=...)'."""
    return re.split(r"[.(]", option.partition("=")[0].lstrip("-"))[-1].replace("-", "_")


def as_json(value: Any) -> Any:
    """Return a value as JSON holds it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_json(item) for item in value]
    if hasattr(value, "tolist"):
        return as_json(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)
