"""The command line in this process, and as a process."""

import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from ppl_vae.cli import main

SMALL = ("--model.z_dim", "2", "--model.hidden", "16", "--progress", "false")
COMMAND = (sys.executable, "-c", "import sys; from ppl_vae.cli import main; sys.exit(main())")


class Answer(NamedTuple):
    """What a command gave: exit code, JSON of the last line of stdout, all of stdout, lines of stderr."""

    code: int
    result: Any
    out: str
    err: list[str]


def cli(*words) -> Answer:
    """Run a command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    return answer(code, out.getvalue(), err.getvalue())


def answer(code, out, err) -> Answer:
    lines = out.splitlines()
    result = json.loads(lines[-1], parse_constant=refuse) if lines and lines[-1].startswith("{") else None
    return Answer(code, result, out, err.splitlines())


def refuse(constant):
    raise ValueError(f"{constant} is no JSON")


def ok(*words) -> dict:
    """Run a command that must work; returns its result."""
    found = cli(*words)
    assert found.code == 0, "\n".join(found.err)
    assert found.out.count("\n") == 1  # the result and nothing else
    return found.result


def refused(code, *words) -> str:
    """Run a command that must be refused; returns its one line."""
    found = cli(*words)
    assert (found.code, found.out, len(found.err)) == (code, "", 1), found
    assert found.err[0].startswith(f"ppl-vae {words[0]}".rstrip() + ": ")
    return found.err[0]


@contextlib.contextmanager
def owned(arguments, **options) -> Iterator[subprocess.Popen]:
    """Start a process and what it starts itself as one group, which is killed at the end whatever happens."""
    words, pipe = [str(word) for word in arguments], subprocess.PIPE
    with subprocess.Popen(words, stdout=pipe, start_new_session=True, **options) as process:
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def completed(arguments, seconds=240, **options) -> subprocess.CompletedProcess:
    """Run a process to its end; returns its exit code and its output as text, or fails after some seconds."""
    with owned(arguments, stderr=subprocess.PIPE, text=True, **options) as process:
        out, err = process.communicate(timeout=seconds)
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def start(*words):
    """Start a command as a process that a `with` statement owns."""
    return owned([*COMMAND, *words], stderr=subprocess.PIPE, text=True)


def wait_for_steps(process, run, steps) -> None:
    """Wait until the history of a run has so many rows of training."""
    metrics, deadline = run / "metrics.jsonl", time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        if metrics.exists() and metrics.read_text().count('"train"') >= steps:
            return
        time.sleep(0.002)
    raise AssertionError("the training makes no steps")


def contents(folder) -> dict:
    """Return every file below a folder with its bytes."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
