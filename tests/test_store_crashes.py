"""Run folders are whole under any crash: killed or without power at every operation, and a full disk."""

import errno
import io
import math
import os
import shutil
import stat

import pytest

from ppl_vae.errors import RunError, UsageError
from ppl_vae.store import RunFolder, disk, lock

OLD = {"config.yaml": b"lr: 1\n", "weights.safetensors": b"old weights" * 50, "state.pt": b"old state"}
GROUP = {"weights.safetensors": b"new weights" * 70, "state.pt": b"new state", "report.html": b"<p>new</p>"}
NEW = {**OLD, **GROUP}
THIRD = {**OLD, "weights.safetensors": b"third", "state.pt": b"third", "report.html": b"<p>new</p>"}
KILLED = None  # every operation that was begun stays, as under SIGKILL
POWER_LOSSES = {  # which changes of names survive that no fsync of the folder covers
    "nothing unsynced": lambda number, total: False,
    "the last change": lambda number, total: number == total - 1,
    "all but the last": lambda number, total: number < total - 1,
    "every second": lambda number, total: number % 2 == 1,
}


def contents(folder):
    return {name: folder.read(name) for name in folder.names()}


@pytest.fixture
def old(tmp_path):
    folder = RunFolder.create(tmp_path / "old")
    folder.write(OLD)
    return folder.path


class Crash(BaseException):
    """The process is gone: nothing that it would still do happens."""


class FaultyDisk:
    """Counts operations on files and dies at number `at`.

    With a `loss` of power, contents survive by fsync of the file, and names by fsync of the folder or as
    `loss` says: each rename, removal or new name on its own, as a file system may write them.
    """

    def __init__(self, patch, folder, at=10**9, loss=KILLED, error=None):
        self.folder, self.at, self.loss, self.count, self.error = folder, at, loss, 0, error
        self.real = {name: getattr(os, name) for name in ("replace", "fsync", "unlink")}
        self.kept, self.durable, self.unsynced = [], {}, []
        for path in folder.iterdir():
            self.hold(os.open(path, os.O_RDONLY))
            self.durable[path.stat().st_ino] = path.read_bytes()
        self.names = self.inodes()
        patch.setattr(disk, "open", self.open, raising=False)
        for name in self.real:
            patch.setattr(os, name, getattr(self, name))

    def hold(self, handle):
        self.kept.append(handle)  # so that no inode number is used twice

    def inodes(self):
        return {path.name: path.stat().st_ino for path in self.folder.iterdir()}

    def tick(self):
        self.count += 1
        if self.error and self.count == self.at:
            raise self.error
        if not self.error and self.count >= self.at:
            raise Crash

    def open(self, path, mode):
        if mode == "rb":
            return io.FileIO(path, "rb")
        self.tick()
        file = TornFile(path, "wb")
        file.disk = self
        self.hold(os.dup(file.fileno()))
        self.unsynced.append(({}, {path.name: path.stat().st_ino}))
        return file

    def fsync(self, handle):
        self.tick()
        info = os.fstat(handle)
        if stat.S_ISDIR(info.st_mode):
            self.names, self.unsynced = self.inodes(), []
        else:
            name = next(name for name, inode in self.inodes().items() if inode == info.st_ino)
            self.durable[info.st_ino] = (self.folder / name).read_bytes()

    def replace(self, source, target):
        self.tick()
        self.unsynced.append(({source.name: 0}, {target.name: source.stat().st_ino}))
        self.real["replace"](source, target)

    def unlink(self, path):
        self.tick()
        self.unsynced.append(({path.name: 0}, {}))
        self.real["unlink"](path)

    def settle(self):
        """What lies on the disk when the machine is on again."""
        if self.loss:
            for path in self.folder.iterdir():
                self.real["unlink"](path)
            for number, (gone, made) in enumerate(self.unsynced):
                if self.loss(number, len(self.unsynced)):
                    kept = {name: inode for name, inode in self.names.items() if name not in gone}
                    self.names = kept | made
            for name, inode in self.names.items():
                (self.folder / name).write_bytes(self.durable.get(inode, b"torn"))
        for handle in self.kept:
            os.close(handle)


class TornFile(io.FileIO):
    def write(self, data):
        try:
            self.disk.tick()
        except Crash:
            super().write(data[: len(data) // 2])
            raise
        return super().write(data)


def crash(path, at, loss, action):
    """Run `action` on a disk that dies at operation `at`; whether it died."""
    with pytest.MonkeyPatch.context() as patch:
        faulty = FaultyDisk(patch, path, at, loss)
        try:
            action()
            died = False
        except Crash:
            died = True
    if died:
        faulty.settle()
    else:
        for handle in faulty.kept:
            os.close(handle)
    return died


@pytest.mark.parametrize("loss", [KILLED, *POWER_LOSSES.values()], ids=["killed", *POWER_LOSSES])
def test_a_crash_at_any_operation_leaves_one_whole_group(old, tmp_path, loss):
    def two_writes(folder):
        folder.write(GROUP)
        returned.append(1)
        folder.write({name: THIRD[name] for name in ("weights.safetensors", "state.pt")})

    seen = []
    for at in range(1, 100):
        path = shutil.copytree(old, tmp_path / f"run{at}")
        folder, returned = RunFolder.open(path), []
        if not crash(path, at, loss, lambda folder=folder: two_writes(folder)):
            break
        seen.append([OLD, NEW, THIRD].index(contents(RunFolder.open(path))))
        assert seen[-1] >= len(returned), "what write returned from is kept"
        assert not list(path.glob("*.new"))
    assert at > 30
    assert set(seen) == {0, 1, 2}
    assert contents(RunFolder.open(path)) == THIRD


@pytest.mark.parametrize("loss", [KILLED, *POWER_LOSSES.values()], ids=["killed", *POWER_LOSSES])
def test_a_crash_in_the_recovery_loses_nothing_either(old, tmp_path, loss):
    recoveries = 0
    for at in range(1, 100):
        broken = shutil.copytree(old, tmp_path / f"run{at}")
        folder = RunFolder.open(broken)
        if not crash(broken, at, KILLED, lambda folder=folder: folder.write(GROUP)):
            break
        expected = contents(RunFolder.open(shutil.copytree(broken, tmp_path / f"run{at}-whole")))
        for again in range(1, 100):
            path = shutil.copytree(broken, tmp_path / f"run{at}-{again}")
            if not crash(path, again, loss, lambda path=path: RunFolder.open(path)):
                break
            assert contents(RunFolder.open(path)) == expected
            recoveries += 1
    assert recoveries > 40


@pytest.mark.parametrize("at", range(1, 25))
def test_a_full_disk_is_named_and_the_run_goes_on(old, at, monkeypatch):
    folder = RunFolder.open(old)
    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        faulty = FaultyDisk(patch, old, at, error=full)
        try:
            folder.write(GROUP)
        except RunError as error:
            assert "No space left on device" in str(error) and "free space" in str(error)
            assert str(old) in str(error) and "resume=True" in str(error)
        else:
            assert faulty.count < at
    for handle in faulty.kept:
        os.close(handle)
    assert contents(RunFolder.open(old)) in (OLD, NEW)
    folder.write({"state.pt": b"later"})
    assert RunFolder.open(old).read("state.pt") == b"later"


def test_a_serialiser_that_hides_a_full_disk_does_not_hide_it_from_us(old, monkeypatch):
    def hides(file):
        try:
            file.write(b"state")
        except OSError:
            raise RuntimeError("unexpected pos") from None

    full = OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patch:
        FaultyDisk(patch, old, 2, error=full)
        with pytest.raises(RunError, match=r"state\.pt \(No space left on device\): free space"):
            RunFolder.open(old).write({"state.pt": hides})
    assert contents(RunFolder.open(old)) == OLD


def test_a_crash_in_create_can_be_tried_again(tmp_path):
    for at in range(1, 50):
        path = tmp_path / f"run{at}"
        path.mkdir()
        if not crash(path, at, KILLED, lambda path=path: RunFolder.create(path)):
            break
        RunFolder.create(path).write(OLD)
        assert contents(RunFolder.open(path)) == OLD
    assert at > 4


def test_truncate_metrics_drops_later_steps_atomically(old, tmp_path):
    folder = RunFolder.open(old)
    assert folder.metrics() == []
    folder.truncate_metrics(5)
    for step in range(1, 6):
        folder.append_metrics({"step": step, "loss": math.inf})
    folder.append_metrics({"note": "no step"})
    kept = [{"step": step, "loss": math.inf} for step in (1, 2, 3)] + [{"note": "no step"}]
    before = folder.metrics()
    for at in range(1, 50):
        path = shutil.copytree(old, tmp_path / f"run{at}")
        run = RunFolder.open(path)
        died = crash(path, at, POWER_LOSSES["nothing unsynced"], lambda run=run: run.truncate_metrics(3))
        assert RunFolder.open(path).metrics() in (before, kept)
        if not died:
            break
    assert RunFolder.open(path).metrics() == kept
    assert at > 4


def test_a_commit_that_was_not_brought_to_an_end_is_read_where_nothing_may_be_written(old, monkeypatch):
    def read_only(folder, wait):
        raise RunError("cannot write here")

    found = []
    for at in range(1, 40):
        path = shutil.copytree(old, old.parent / f"run{at}")
        if not crash(path, at, KILLED, lambda path=path: RunFolder.open(path).write(GROUP)):
            break
        names = sorted(os.listdir(path))
        with monkeypatch.context() as patch:
            patch.setattr(lock, "acquire", read_only)
            found.append(contents(RunFolder.open(path)))
        assert sorted(os.listdir(path)) == names
    assert all(each in (OLD, NEW) for each in found) and NEW in found


def test_of_two_that_create_at_once_the_second_is_refused(tmp_path, monkeypatch):
    path, real = tmp_path / "run", lock.acquire

    def late(folder, wait):
        monkeypatch.setattr(lock, "acquire", real)
        RunFolder.create(path).write(OLD)
        return real(folder, wait)

    monkeypatch.setattr(lock, "acquire", late)
    with pytest.raises(UsageError, match="already holds a run"):
        RunFolder.create(path)
    assert contents(RunFolder.open(path)) == OLD


@pytest.mark.parametrize("loss", [KILLED, *POWER_LOSSES.values()], ids=["killed", *POWER_LOSSES])
@pytest.mark.parametrize("old", [None, b"old content"], ids=["new", "replaced"])
def test_one_file_is_whole_or_as_it_was(tmp_path, loss, old):
    for at in range(1, 30):
        folder = tmp_path / f"folder{at}"
        folder.mkdir()
        if old is not None:
            (folder / "rows.npz").write_bytes(old)
        died = crash(folder, at, loss, lambda path=folder / "rows.npz": disk.write(path, b"new" * 70, True))
        found = (folder / "rows.npz").read_bytes() if (folder / "rows.npz").exists() else None
        assert found in ((old, b"new" * 70) if died else (b"new" * 70,))
        if not died:
            break
    assert at > 4
    assert [path.name for path in folder.iterdir()] == ["rows.npz"]
