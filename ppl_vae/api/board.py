"""TensorBoard, where it is installed."""

import io
import os
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.store import disk

FOLDER = "tensorboard"


def writer_to(path: Path) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a callback that writes every number of the history into a folder of TensorBoard's, at once: a
    writer with a thread of its own has nobody to tell that the disk is full.

    Raises
    ------
    UsageError
        TensorBoard is not installed, or the folder is a link.
    RunError
        The disk is full or fails.
    """
    try:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.record_writer import RecordWriter
    except ImportError:
        raise UsageError("TensorBoard is not installed: pip install 'ppl-vae[tensorboard]'") from None
    if path.is_symlink():
        raise UsageError(f"{path} is a link, which is not followed: remove it")
    file = path / f"events.out.tfevents.{time.time_ns()}.{socket.gethostname()}.{os.getpid()}"

    def put(*events: Any) -> None:
        content = io.BytesIO()
        for event in events:
            RecordWriter(content).write(event.SerializeToString())
        try:
            path.mkdir(exist_ok=True)
            disk.append(file, content.getvalue())
        except OSError as error:
            raise disk.failed(file, error, "then go on with resume=True") from error

    put(Event(wall_time=time.time(), file_version="brain.Event:2"))

    def write(event: str, state: Mapping[str, Any]) -> None:
        row, now = state["row"], time.time()
        numbers = {f"{row['split']}/{key}": value for key, value in row.items() if isinstance(value, float)}
        put(*(Event(wall_time=now, step=row["step"], summary=scalar_pb(k, v)) for k, v in numbers.items()))

    return write
