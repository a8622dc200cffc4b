"""TensorBoard, where it is installed."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ppl_vae.errors import UsageError

FOLDER = "tensorboard"


def writer_to(path: Path) -> Callable[[str, Mapping[str, Any]], None]:
    """Return a callback that writes every number of the history into a folder of TensorBoard's."""
    try:
        from tensorboard.summary import Writer
    except ImportError:
        raise UsageError("TensorBoard is not installed: pip install 'ppl-vae[tensorboard]'") from None
    if path.is_symlink():
        raise UsageError(f"{path} is a link, which is not followed: remove it")
    writer = Writer(str(path))

    def write(event: str, state: Mapping[str, Any]) -> None:
        row = state["row"]
        for name, value in row.items():
            if isinstance(value, float):
                writer.add_scalar(f"{row['split']}/{name}", value, row["step"])
        if event == "end":
            writer.close()

    return write
