"""metrics.jsonl: one strict JSON object a line, appended as training goes.

It lies outside the manifest: a line more does no harm, and a torn last line is dropped.
Numbers that JSON lacks are written as the strings "NaN", "Infinity" and "-Infinity" and read back as numbers.
"""

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path

from ppl_vae import reading
from ppl_vae.errors import RunError
from ppl_vae.store import disk

NAME = "metrics.jsonl"
_BEYOND = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def append(path: Path, row: dict, mend: bool = False) -> None:
    """Add one row and hand it to the operating system; `mend` what a crash tore before."""
    line = encode(row)
    try:
        if mend:
            _mend(path)
        disk.append(path, line)
    except OSError as error:
        raise disk.failed(path, error, "then go on with resume=True") from error


def sync(path: Path) -> None:
    """Bring the rows down to the disk, where there are any."""
    if os.path.lexists(path):
        with reading.opened(path, follow=False) as file:
            os.fsync(file.fileno())


def encode(row: dict) -> bytes:
    """One line of strict JSON; NumPy numbers and arrays become Python's."""
    return (json.dumps(_strict(row), allow_nan=False, ensure_ascii=False) + "\n").encode()


def read(path: Path) -> list[dict]:
    """All whole rows.

    Raises
    ------
    RunError
        A damaged line that is not the last; the message names it.
    """
    lines = _lines(path)
    rows = []
    for number, line in enumerate(lines, 1):
        row = _decode(line)
        if row is not None:
            rows.append(row)
        elif number < len(lines):
            raise RunError(f"{path}, line {number} is damaged: remove it, or restore a copy of the file")
    return rows


def _mend(path: Path) -> None:
    lines = _lines(path)
    if not lines or lines[-1].endswith(b"\n"):
        return
    if _decode(lines[-1]) is None:
        os.truncate(path, sum(map(len, lines[:-1])))
    else:
        disk.append(path, b"\n")


def truncate(path: Path, step: int) -> None:
    """Drop the rows after a step, atomically; rows without a step stay."""
    rows = read(path)
    if path.exists():
        write(path, [row for row in rows if row.get("step") is None or row["step"] <= step])


def write(path: Path, rows: Iterable[dict]) -> None:
    """Replace all rows, atomically."""
    disk.replace(path, b"".join(map(encode, rows)))


def _lines(path: Path) -> list[bytes]:
    try:
        return reading.whole(path, follow=False).splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror or error}): check its permissions") from error


def _decode(line: bytes) -> dict | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return _loose(row) if isinstance(row, dict) else None


def _strict(value):
    if isinstance(value, dict):
        return {str(key): _strict(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_strict(item) for item in value]
    if hasattr(value, "tolist"):
        return _strict(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _loose(value):
    if isinstance(value, dict):
        return {key: _loose(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_loose(item) for item in value]
    return _BEYOND.get(value, value) if isinstance(value, str) else value
