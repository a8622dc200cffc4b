"""The manifest of a run folder: which files belong to it, and what they hold."""

import hashlib
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from ppl_vae import reading
from ppl_vae.errors import RunError
from ppl_vae.store.disk import Entry

NAME = "manifest.json"
FORMAT = "ppl_vae run"
VERSION = 1


@dataclass(frozen=True)
class Manifest:
    """The guarded files of a run: name -> (size, sha256), and when they were written (UTC)."""

    files: dict[str, Entry] = field(default_factory=dict)
    written: str = ""

    def updated(self, files: dict[str, Entry]) -> "Manifest":
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        return Manifest({**self.files, **files}, now)

    def to_bytes(self) -> bytes:
        """JSON that carries a sha256 of itself, since nothing else guards the manifest."""
        body = {
            "format": FORMAT,
            "version": VERSION,
            "written": self.written,
            "files": {name: entry._asdict() for name, entry in sorted(self.files.items())},
        }
        return (json.dumps({**body, "sha256": _digest(body)}, indent=2) + "\n").encode()


def load(folder: Path) -> Manifest:
    """Read and check the manifest of a folder.

    Raises
    ------
    RunError
        No such folder, no manifest in it, a damaged one, or one of a newer format.
    """
    path = folder / NAME
    try:
        raw = reading.whole(path, follow=False)
    except FileNotFoundError:
        raise RunError(_absent(folder)) from None
    except NotADirectoryError:
        raise RunError(f"{folder} is a file, not a run folder: name the folder that holds {NAME}") from None
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror or error}): check its permissions") from error
    return _parse(raw, path)


def holds_run(folder: Path) -> bool:
    """Tell whether a run lies in a folder, be it damaged."""
    return all(os.path.lexists(folder / name) for name in (NAME, "config.yaml"))


def _absent(folder: Path) -> str:
    if not folder.exists():
        return f"{folder} does not exist: name the folder of a run, which training wrote"
    return (
        f"{folder} is not a run folder: it has no {NAME}; name another folder, "
        f"or restore {NAME} from a copy of the run"
    )


def _parse(raw: bytes, path: Path) -> Manifest:
    damaged = RunError(f"{path} is damaged: restore it from a copy of the run, or train into another folder")
    try:
        body = json.loads(raw)
        digest = body.pop("sha256")
        version = body["version"]
        if body["format"] != FORMAT or not isinstance(version, int):
            raise damaged
        if version > VERSION:
            raise RunError(
                f"{path} has format version {version}, written by a newer ppl_vae "
                f"(this one reads up to {VERSION}): upgrade ppl_vae"
            )
        if digest != _digest(body):
            raise damaged
        files = {name: Entry(entry["size"], entry["sha256"]) for name, entry in body["files"].items()}
        if not all(is_plain(name) for name in files):
            raise damaged
        return Manifest(files, body["written"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise damaged from None


def is_plain(name: str) -> bool:
    """Tell the name of a file that lies in the run folder itself and shows."""
    text = name.encode(errors="replace").decode() == name  # no half of a pair of surrogates
    plain = not name.startswith(".") and Path(name).name == name and not set(name) & {"\\", "\0"}
    return bool(name) and text and plain


def _digest(body: dict) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
