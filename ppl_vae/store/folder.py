"""RunFolder: groups of files that are replaced together or not at all.

A group is written beside the old files (`NAME.new`), then `manifest.json` is renamed into place: that
rename is the commit. After it the staged files are renamed. Whatever a crash left is settled by the
manifest: a staged file with the hash that it gives is renamed (forward), any other is removed (back).
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from os import PathLike
from pathlib import Path

from ppl_vae import reading
from ppl_vae.errors import RunError, UsageError
from ppl_vae.store import config, disk, lock, manifest, metrics
from ppl_vae.store.disk import Content, Entry, staged
from ppl_vae.store.manifest import Manifest

_LEFTOVERS = {lock.NAME, manifest.NAME + disk.STAGED}
_RESERVED = {lock.NAME, manifest.NAME, metrics.NAME}
_RACES = 20


class RunFolder:
    """A run on the disk. Make one with `create` or `open`.

    Attributes
    ----------
    path : Path
    """

    def __init__(self, path: Path, contents: Manifest):
        self.path = path
        self._manifest = contents
        self._handle: int | None = None
        self._depth = 0
        self._mended = False
        self._made: list[Path] = []  # folders that `create` made, the innermost first

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    @classmethod
    def create(cls, path: str | PathLike, begun: str = "") -> "RunFolder":
        """Start a run in a new or empty folder; missing parents are made.

        Raises
        ------
        UsageError
            The path is a file, holds a run, or is a folder with other files: nothing is overwritten.
        RunError
            The folder cannot be made or written to.
        """
        path = Path(path)
        _refuse_occupied(path, begun)
        missing = [one for one in (path, *path.parents) if not one.exists()]
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            raise UsageError(f"a part of {path} is a file: choose another folder") from None
        except OSError as error:
            reason = error.strerror or error
            raise RunError(f"cannot make {path} ({reason}): choose another folder") from error
        folder = cls(path, Manifest())
        folder._made = missing
        with folder.lock():
            _refuse_occupied(path, begun)  # someone else may have started a run here in the meantime
            with _written(path / manifest.NAME):
                disk.replace(path / manifest.NAME, Manifest().updated({}).to_bytes())
            folder._settle()
        return folder

    @classmethod
    def open(cls, path: str | PathLike) -> "RunFolder":
        """Open a run and bring a write that was cut off to an end, forward or back.

        A run that another process is writing to, or that this one may not write to, is opened as it is.

        Raises
        ------
        RunError
            No run lies there, or its manifest is damaged or of a newer format.
        """
        if not isinstance(path, (str, PathLike)):
            raise UsageError(
                f"path is {type(path).__name__}: give the path of a run, such as run.folder.path"
            )
        folder = cls(Path(path), manifest.load(Path(path)))
        if any(folder._staged()):
            with contextlib.suppress(OSError, RunError), folder.lock(wait=0.0):
                folder._settle()
        return folder

    @contextlib.contextmanager
    def lock(self, wait: float = 2.0) -> Iterator[None]:
        """Be the only writer for a while, as in training; may be nested.

        Raises
        ------
        RunError
            Another writer holds the folder after `wait` seconds; the message names its process.
        """
        if self._depth == 0:
            self._handle = lock.acquire(self.path, wait)
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                lock.release(self._handle)
                self._handle = None

    def write(self, files: dict[str, Content]) -> None:
        """Write a group of files, all or none of them, even under SIGKILL or loss of power.

        Parameters
        ----------
        files : dict
            Name -> bytes, or name -> a callable that writes to the open binary file it is given
            (which cannot seek: its hash is computed on the way). Other files of the run stay.

        Raises
        ------
        RunError
            The disk is full or fails, or another process writes here. The old content is intact.
        UsageError
            A name that a run folder cannot hold.
        """
        for name in files:
            _check_name(name, self.path)
        with self.lock():
            try:
                with _written(self.path):
                    self._settle()
                self._commit(files)
            except BaseException:
                with contextlib.suppress(OSError, RunError):
                    self._settle()
                raise

    def remove(self) -> None:
        """Leave nothing of a run that was refused before its first step: no file of it, and no folder that
        `create` made for it.
        """
        with self.lock():
            self._settle()
            for name in (*self.names(), metrics.NAME, manifest.NAME, lock.NAME):
                (self.path / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others have put something there
            for made in self._made:
                made.rmdir()

    def read(self, name: str) -> bytes:
        """The content of a file, checked against the manifest.

        Raises
        ------
        RunError
            No such file in this run, or it is missing, cut short or changed; the message names it.
        """
        for attempt in range(_RACES):
            entry, before = self._entry(name), self._manifest
            for path in (self.path / name, staged(self.path / name)):
                content = _content(path)
                if content is not None and Entry(len(content), hashlib.sha256(content).hexdigest()) == entry:
                    return content
            self._manifest = manifest.load(self.path)  # a writer may be at work
            if attempt and self._manifest == before:
                break
        raise RunError(_damage(self.path / name, entry))

    def names(self) -> tuple[str, ...]:
        """The guarded files, sorted."""
        return tuple(sorted(self._manifest.files))

    def config(self) -> dict:
        """`config.yaml` as values for JSON."""
        return config.read_config(self.read("config.yaml"))

    def append_metrics(self, row: dict) -> None:
        """Append one row to metrics.jsonl; numbers that are not finite are written as well."""
        metrics.append(self.path / metrics.NAME, row, mend=not self._mended)
        self._mended = True

    def metrics(self) -> list[dict]:
        """The rows of metrics.jsonl; a torn last line is dropped."""
        return metrics.read(self.path / metrics.NAME)

    def refuse_lost_metrics(self) -> None:
        """Raise RunError where there is no metrics.jsonl."""
        if not os.path.lexists(self.path / metrics.NAME):
            raise RunError(
                f"{self.path / metrics.NAME} is gone: restore it from a copy of the run, or make an empty "
                "one to go on without the history"
            )

    def truncate_metrics(self, step: int) -> None:
        """Drop the rows whose "step" is after `step`, atomically, as resuming does."""
        with self.lock(), _written(self.path / metrics.NAME):
            metrics.truncate(self.path / metrics.NAME, step)

    def _entry(self, name: str) -> Entry:
        try:
            return self._manifest.files[name]
        except KeyError:
            held = ", ".join(self.names()) or "no files"
            raise RunError(
                f"{self.path} has no {name} (it holds {held}): train the run first, or name another run"
            ) from None

    def _staged(self) -> Iterator[Path]:
        found = self.path.glob("*" + disk.STAGED)
        return (path for path in found if path.is_symlink() or not path.is_dir())

    def _commit(self, files: dict[str, Content]) -> None:
        entries = {}
        for name, content in files.items():
            with _written(self.path / name):
                entries[name] = disk.stage(staged(self.path / name), content)
        with _written(self.path / metrics.NAME):
            metrics.sync(self.path / metrics.NAME)
        with _written(self.path / manifest.NAME):
            disk.sync_folder(self.path)
            disk.replace(self.path / manifest.NAME, self._manifest.updated(entries).to_bytes())
            self._settle()

    def _settle(self) -> None:
        """Let the manifest decide about staged files: forward where it knows them, else back."""
        self._manifest = manifest.load(self.path)
        moved = False
        for path in list(self._staged()):
            target = path.with_name(path.name.removesuffix(disk.STAGED))
            entry = self._manifest.files.get(target.name)
            if entry is not None and disk.entry_of(path) == entry:
                os.replace(path, target)
            else:
                os.unlink(path)
            moved = True
        if moved:
            disk.sync_folder(self.path)


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """Name the file that the operating system does not write."""
    try:
        yield
    except OSError as error:
        remedy = "then try again (a training with resume=True); what was saved before is intact"
        raise disk.failed(path, error, remedy) from error


def _refuse_occupied(path: Path, begun: str) -> None:
    if path.exists() and not path.is_dir():
        raise UsageError(f"{path} is a file: choose another folder")
    if (path / manifest.NAME).exists():
        if not _is_bare(path):
            raise UsageError(f"{path} already holds a run: {begun}choose another folder")
    elif path.is_dir() and {entry.name for entry in path.iterdir()} - _LEFTOVERS:
        raise UsageError(f"{path} is not empty and holds no run: choose another folder")


def _is_bare(path: Path) -> bool:
    """Whether a run was started here but ended before its first write."""
    try:
        return not manifest.load(path).files and not metrics.read(path / metrics.NAME)
    except RunError:
        return False


def _check_name(name: str, folder: Path) -> None:
    reserved = name in _RESERVED or name.endswith(disk.STAGED)
    if not manifest.is_plain(name) or reserved or (folder / name).is_dir():
        raise UsageError(
            f"a run folder cannot hold a file called {name!r}: "
            "give a file name without folders that the folder does not use itself"
        )


def _content(path: Path) -> bytes | None:
    try:
        return reading.whole(path, follow=False)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise RunError(f"cannot read {path} ({error.strerror or error}): check its permissions") from error


def _damage(path: Path, entry: Entry) -> str:
    remedy = "restore it from a copy of the run, or train again into another folder"
    if not path.exists():
        return f"{path} is missing: {remedy}"
    size = path.stat().st_size
    if size != entry.size:
        return f"{path} has {size} bytes where its manifest says {entry.size}: {remedy}"
    return f"{path} is damaged (its sha256 is not the manifest's): {remedy}"
