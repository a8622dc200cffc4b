"""The processes of a run on several devices: started from the first one, or by torchrun; none outlives the
others.

Started and watched here, since Fabric's launcher, when tried, killed the first process without a word where
another one had died, and left the others behind where the first one ended, and torchrun exits with 1 for any
error.
"""

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from torch import distributed

from ppl_vae.errors import UsageError

# Seconds until a process ends whose fellow has died, if it has not ended by itself.
GRACE, LOOK = 5.0, 0.2
_handled = threading.Event()
_rank = 0


def check(count: int) -> None:
    """Refuse a number of processes that cannot be started here, or that others have not started."""
    if "LOCAL_RANK" in os.environ:
        started = int(os.environ.get("WORLD_SIZE", 1))
        here = int(os.environ.get("LOCAL_WORLD_SIZE", started))
        if started != count:
            raise _unequal(count, started)
        if here != started:
            raise UsageError(
                f"devices={count}: only {here} of the processes run on this machine; start all of them on one"
            )
        return
    if not distributed.is_available():
        raise UsageError(f"devices={count}: this build of torch has no torch.distributed")
    if hasattr(sys, "ps1") or sys.flags.interactive:
        raise UsageError(
            f"devices={count}: an interactive session cannot be started once per device: use a script"
        )
    if _module() is None and not os.path.isfile(sys.argv[0]):
        raise UsageError(f"devices={count}: {sys.argv[0]!r} cannot be started once per device: use a script")


def check_alone() -> None:
    """Refuse to train on one device in each of torchrun's processes, unless they have joined already."""
    started = int(os.environ.get("WORLD_SIZE", 1))
    joined = distributed.is_available() and distributed.is_initialized()
    if "TORCHELASTIC_RUN_ID" in os.environ and started > 1 and not joined:
        raise _unequal(1, started)


def _unequal(count: int, started: int) -> UsageError:
    return UsageError(f"devices={count}, but {started} processes were started: make the two numbers equal")


def rank() -> int:
    """Return which of the processes of this script this one is; 0 before there are several."""
    return _rank


def start(count: int) -> None:
    """Run this script again for every other device, unless that was done already."""
    global _rank
    _rank = int(os.environ.get("LOCAL_RANK", 0))
    if "LOCAL_RANK" in os.environ:
        atexit.unregister(_leave)
        atexit.register(_leave)
        if "PPL_VAE_PARENT" in os.environ:
            parent = int(os.environ["PPL_VAE_PARENT"])
            _watch(lambda: os.getppid() != parent, [])
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(count)}
    os.environ |= address | {"NODE_RANK": "0", "LOCAL_RANK": "0"}
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    joined = os.environ | {"PPL_VAE_PARENT": str(os.getpid())}
    others = [subprocess.Popen(_command(), env=joined | {"LOCAL_RANK": str(r)}) for r in range(1, count)]
    atexit.register(_end, others)
    _watch(lambda: any(process.poll() for process in others), others)


@contextlib.contextmanager
def ended_by_a_signal() -> Iterator[None]:
    """Let SIGTERM end this process while it waits for the others, where Python calls no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def lost() -> None:
    """Note that the loss of a process was reported, so that this one may end in its own way."""
    _handled.set()


def _module() -> str | None:
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return None if spec is None else spec.name.removesuffix(".__main__")


def _command() -> list[str]:
    warnings = [f"-W{option}" for option in sys.warnoptions]
    name = _module()
    script = [os.path.abspath(sys.argv[0])] if name is None else ["-m", name]
    return [sys.executable, *warnings, *script, *sys.argv[1:]]


def _watch(gone: Callable[[], bool], others: Sequence[subprocess.Popen]) -> None:
    """End this process and others a while after one is gone: an exchange may wait for it for ever."""

    def look() -> None:
        while not gone():
            time.sleep(LOOK)
        time.sleep(GRACE)
        if _handled.is_set():
            return
        if others:
            print(loss_of_processes(others), file=sys.stderr, flush=True)
        _kill(others)
        os._exit(1)

    if not any(thread.name == "ppl_vae devices" for thread in threading.enumerate()):
        threading.Thread(target=look, name="ppl_vae devices", daemon=True).start()


def loss_of_processes(others: Sequence[subprocess.Popen] = ()) -> str:
    """Return what is said when a process is lost."""
    ended = [str(process.returncode) for process in others if process.poll()]
    code = f" (exit code {ended[0]})" if ended else ""
    return (
        f"the process of another device has ended{code}: see what it wrote; "
        "a run folder goes on from its last checkpoint with --resume"
    )


def _kill(others: Sequence[subprocess.Popen]) -> None:
    for process in others:
        with contextlib.suppress(OSError):
            process.kill()


def _leave() -> None:
    if distributed.is_initialized():
        distributed.destroy_process_group()


def _end(others: Sequence[subprocess.Popen]) -> None:
    """Let the others come to their end, which they reach with this process or not at all."""
    lost()
    _leave()
    until = time.monotonic() + GRACE
    for process in others:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, until - time.monotonic()))
    _kill(others)
