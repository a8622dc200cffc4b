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
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed

from ppl_vae.errors import UsageError
from ppl_vae.stopping import STOPPING

# Seconds until a process ends whose fellow has died, if it has not ended by itself.
GRACE, LOOK = 5.0, 0.2
STILL = 150  # looks at a process that was stopped until it is given up
LOOPBACK = "lo" if sys.platform.startswith("linux") else "lo0"
_handled = threading.Event()
_rank = 0
PARENT = "PPL_VAE_PARENT"  # the process that started all others of a run
_listening: socket.socket | None = None  # of the first process, for the others to meet at


def check(count: int) -> None:
    """Refuse a number of processes that cannot be started here, or that others have not started."""
    if "LOCAL_RANK" in os.environ:
        _refuse_leftover()
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


def _refuse_leftover() -> None:
    """Refuse variables of a run that this process is no part of, which would wait for it in vain."""
    rank, parent = os.environ["LOCAL_RANK"], os.environ.get(PARENT)
    lacking = [name for name in ("WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]
    why = f"but not {lacking[0]}" if lacking else ""
    if parent is not None and os.getpid() != int(parent) and (os.getppid() != int(parent) or rank == "0"):
        why = f"left over from process {parent}"
    elif not lacking and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            socket.create_connection(place, GRACE).close()
        except OSError:
            why = f"left over from a torchrun that no longer answers at {place[0]}:{place[1]}"
    if why:
        raise UsageError(
            f"LOCAL_RANK={rank} is set in the environment, {why}: unset LOCAL_RANK and WORLD_SIZE, or start "
            "all processes with torchrun"
        )


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
    global _rank, _listening
    _rank = int(os.environ.get("LOCAL_RANK", 0))
    if "LOCAL_RANK" in os.environ:
        atexit.unregister(_leave)
        atexit.register(_leave)
        if int(parent := os.environ.get(PARENT, os.getpid())) != os.getpid():
            _watch(lambda: os.getppid() != int(parent), [])
        return
    _listening = socket.create_server(("127.0.0.1", 0))
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_listening.getsockname()[1])}
    os.environ |= address | {"WORLD_SIZE": str(count), "NODE_RANK": "0", "LOCAL_RANK": "0"}
    for library in ("GLOO", "NCCL"):  # all processes are on this machine
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", LOOPBACK)
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ["OMP_NUM_THREADS"] = str(max(1, (os.cpu_count() or 1) // count))
    os.environ[PARENT] = str(os.getpid())
    ranks = range(1, count)
    others = [subprocess.Popen(_command(), env=os.environ | {"LOCAL_RANK": str(r)}) for r in ranks]
    atexit.register(_end, others)
    _watch(lambda: any(process.poll() for process in others), others)


def join(backend: str, timeout: timedelta) -> None:
    """Bring the processes that `start` has started together; those of torchrun meet where it says."""
    global _listening
    if PARENT not in os.environ or distributed.is_initialized():
        return
    count, port = int(os.environ["WORLD_SIZE"]), int(os.environ["MASTER_PORT"])
    # Left to itself, torch listens on every address of the machine.
    handle = {} if _listening is None else {"is_master": True, "master_listen_fd": _listening.detach()}
    _listening = None
    store = distributed.TCPStore("127.0.0.1", port, count, timeout=timeout, wait_for_workers=False, **handle)
    distributed.init_process_group(backend, store=store, rank=_rank, world_size=count, timeout=timeout)


def watch_all() -> None:
    """End this process where another one of the run was stopped, by SIGSTOP or a debugger, and stays so."""
    pids: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(pids, os.getpid())
    still = dict.fromkeys(pids, 0)

    def look() -> None:
        # Looks are counted, not seconds: where all processes sleep, none of them looks.
        while max(still.values()) < STILL:
            time.sleep(LOOK)
            for pid in pids:
                still[pid] = still[pid] + 1 if _is_stopped(pid) else 0
        stopped = next(pid for pid in pids if still[pid])
        if os.getpid() == next(pid for pid in pids if not still[pid]):
            print(
                f"process {stopped} of another device was stopped (kill -CONT {stopped} wakes it, too late): "
                "a run folder goes on from its last checkpoint with resume=True",
                file=sys.stderr,
                flush=True,
            )
        if _rank == 0:
            for pid in still.keys() - {os.getpid()}:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
        os._exit(1)

    if not any(thread.name == "ppl_vae stopped" for thread in threading.enumerate()):
        threading.Thread(target=look, name="ppl_vae stopped", daemon=True).start()


def _is_stopped(pid: int) -> bool:
    """Tell whether a process stands still, where the system tells it (Linux)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] == "T"


@contextlib.contextmanager
def ended_by_a_signal() -> Iterator[None]:
    """Let a signal to stop end this process while it waits for the others, where Python calls no handler."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    taken = [number for number in STOPPING[1:] if callable(signal.getsignal(number))]
    before = {number: signal.signal(number, signal.SIG_DFL) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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
        "a run folder goes on from its last checkpoint with resume=True"
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
