"""Run folders: damage named, nothing overwritten, one writer."""

import hashlib
import io
import json
import os
import random
import signal
import stat
import subprocess
import sys
import textwrap
import time
import zipfile

import numpy as np
import pytest
from command_line import owned

from ppl_vae.errors import RunError, UsageError
from ppl_vae.store import RunFolder

OLD = {"config.yaml": b"lr: 1\n", "weights.safetensors": b"old weights" * 50, "state.pt": b"old state"}
GROUP = {"weights.safetensors": b"new weights" * 70, "state.pt": b"new state", "report.html": b"<p>new</p>"}
NEW = {**OLD, **GROUP}


def contents(folder):
    return {name: folder.read(name) for name in folder.names()}


@pytest.fixture
def old(tmp_path):
    folder = RunFolder.create(tmp_path / "old")
    folder.write(OLD)
    return folder.path


def test_a_write_that_fails_before_the_commit_leaves_the_old_group_and_no_litter(old):
    folder = RunFolder.open(old)

    def fails(file):
        file.write(b"half")
        raise ValueError("the serialiser failed")

    with pytest.raises(ValueError, match="the serialiser failed"):
        folder.write({"weights.safetensors": b"new", "state.pt": fails})
    assert contents(folder) == OLD
    assert not list(old.glob("*.new"))


def test_a_flipped_bit_names_the_file_and_the_remedy(old):
    raw = bytearray(OLD["weights.safetensors"])
    raw[17] ^= 4
    (old / "weights.safetensors").write_bytes(raw)
    folder = RunFolder.open(old)
    assert folder.read("state.pt") == OLD["state.pt"]
    with pytest.raises(RunError, match=r"weights\.safetensors is damaged .*restore it from a copy"):
        folder.read("weights.safetensors")


def test_a_file_that_is_cut_short_or_missing(old):
    (old / "state.pt").write_bytes(b"old")
    with pytest.raises(RunError, match=r"state\.pt has 3 bytes where its manifest says 9: restore"):
        RunFolder.open(old).read("state.pt")
    (old / "state.pt").unlink()
    with pytest.raises(RunError, match=r"state\.pt is missing: restore"):
        RunFolder.open(old).read("state.pt")
    with pytest.raises(RunError, match=r"has no ema\.safetensors \(it holds config\.yaml, state"):
        RunFolder.open(old).read("ema.safetensors")


def test_any_flipped_bit_in_the_manifest_is_refused(old):
    path = old / "manifest.json"
    raw = path.read_bytes()
    for position in range(0, len(raw) - 1, 7):
        changed = bytearray(raw)
        changed[position] ^= 1
        if changed[position : position + 1].isspace():
            continue
        path.write_bytes(changed)
        try:
            same = json.loads(changed) == json.loads(raw)
        except ValueError:
            same = False
        if not same:
            with pytest.raises(RunError, match=r"manifest\.json (is damaged|has format version)"):
                RunFolder.open(old)


def test_a_newer_format_is_refused_and_left_alone(old):
    path = old / "manifest.json"
    body = {**json.loads(path.read_bytes()), "version": 2}
    path.write_text(json.dumps(body))
    (old / "state.pt.new").write_bytes(b"of the newer program")
    with pytest.raises(RunError, match="format version 2, written by a newer ppl_vae"):
        RunFolder.open(old)
    assert (old / "state.pt.new").exists()


def test_places_that_are_no_run(old, tmp_path):
    (old / "manifest.json").unlink()
    with pytest.raises(RunError, match=r"is not a run folder: it has no manifest\.json"):
        RunFolder.open(old)
    with pytest.raises(RunError, match="does not exist"):
        RunFolder.open(tmp_path / "nowhere")
    with pytest.raises(RunError, match="is a file, not a run folder"):
        RunFolder.open(old / "state.pt")


def test_create_overwrites_nothing(old, tmp_path):
    with pytest.raises(UsageError, match="already holds a run: choose another folder"):
        RunFolder.create(old)
    assert contents(RunFolder.open(old)) == OLD
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("words")
    with pytest.raises(UsageError, match="is not empty and holds no run: choose another folder"):
        RunFolder.create(other)
    assert [path.name for path in other.iterdir()] == ["chapter.tex"]
    with pytest.raises(UsageError, match="is a file"):
        RunFolder.create(other / "chapter.tex")
    with pytest.raises(UsageError, match="is a file"):
        RunFolder.create(other / "chapter.tex" / "run")
    (old / "manifest.json").write_text("garbled")
    with pytest.raises(UsageError, match="already holds a run"):
        RunFolder.create(old)


def test_create_makes_parents_and_takes_up_a_start_that_saved_nothing(tmp_path):
    path = tmp_path / "a" / "b" / "run"
    RunFolder.create(path)
    assert RunFolder.open(path).names() == ()
    RunFolder.create(path).append_metrics({"step": 1})
    with pytest.raises(UsageError, match="already holds a run"):
        RunFolder.create(path)


def test_streams_are_hashed_on_the_way_and_groups_leave_other_files(old):
    folder = RunFolder.open(old)
    rows = np.arange(12.0).reshape(3, 4)
    folder.write({"latents.npz": lambda file: np.savez(file, z=rows)})

    def pack(file):
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("a", "text" * 1000)

    folder.write({"pack.zip": pack, "view": memoryview(np.arange(3, dtype="<i2"))})
    again = RunFolder.open(old)
    np.testing.assert_array_equal(np.load(io.BytesIO(again.read("latents.npz")))["z"], rows)
    assert zipfile.ZipFile(io.BytesIO(again.read("pack.zip"))).read("a") == b"text" * 1000
    assert again.read("view") == b"\0\0\1\0\2\0"
    assert again.read("state.pt") == OLD["state.pt"]


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a/b", "../a", ".lock", "manifest.json", "metrics.jsonl", "a.new", "samples"]
)
def test_names_that_a_run_cannot_hold(old, name):
    (old / "samples").mkdir()
    with pytest.raises(UsageError, match="cannot hold a file called"):
        RunFolder.open(old).write({"state.pt": b"new", name: b""})
    assert RunFolder.open(old).read("state.pt") == OLD["state.pt"]


def test_files_get_the_modes_of_the_umask(tmp_path):
    before = os.umask(0o027)
    try:
        folder = RunFolder.create(tmp_path / "run")
        folder.write(OLD)
    finally:
        os.umask(before)
    for name in (*OLD, "manifest.json"):
        assert stat.S_IMODE((folder.path / name).stat().st_mode) == 0o640


def test_the_manifest_records_version_sizes_hashes_and_time(old):
    body = json.loads((old / "manifest.json").read_bytes())
    assert body["version"] == 1 and body["written"].endswith("+00:00")
    digest = hashlib.sha256(OLD["state.pt"]).hexdigest()
    assert body["files"]["state.pt"] == {"size": 9, "sha256": digest}
    assert set(body["files"]) == set(OLD)


HOLD = """
import os, sys, time
from ppl_vae.store import RunFolder
with RunFolder.open(sys.argv[1]).lock():
    if len(sys.argv) > 2 and os.fork() == 0:
        print(os.getpid(), flush=True)
        time.sleep(30)
    if len(sys.argv) == 2:
        print("held", flush=True)
    time.sleep(30)
"""


def test_a_second_writer_is_refused_by_name_and_readers_are_not(old):
    with owned([sys.executable, "-c", HOLD, old]) as child:
        child.stdout.readline()
        (old / "state.pt.new").write_bytes(b"being written by the other")
        folder = RunFolder.open(old)
        assert contents(folder) == OLD
        assert (old / "state.pt.new").exists(), "a live writer's file is not ours to remove"
        with (
            pytest.raises(RunError, match=f"in use by process {child.pid} on .*: wait until it ends"),
            folder.lock(wait=0.1),
        ):
            pass
        with pytest.raises(RunError, match=str(child.pid)):
            folder.write({"state.pt": b"mine"})
    folder.write({"state.pt": b"mine"})
    assert contents(RunFolder.open(old)) == {**OLD, "state.pt": b"mine"}


def test_a_worker_that_outlives_its_training_does_not_keep_the_lock(old):
    with owned([sys.executable, "-c", HOLD, old, "fork"]) as child:
        worker = int(child.stdout.readline())
        child.kill()
        child.wait()
        RunFolder.open(old).write({"state.pt": b"mine"})
        os.kill(worker, 0)  # it is alive
    assert RunFolder.open(old).read("state.pt") == b"mine"


def test_locks_nest_and_two_handles_in_one_process_exclude_each_other(old):
    first, second = RunFolder.open(old), RunFolder.open(old)
    with first.lock(), first.lock():
        first.write({"state.pt": b"1"})
        with pytest.raises(RunError, match="in use"), second.lock(wait=0.0):
            pass
    second.write({"state.pt": b"2"})
    first.write({"more": b"3"})
    assert contents(RunFolder.open(old)) == {**OLD, "state.pt": b"2", "more": b"3"}


def test_a_reader_follows_a_writer(old):
    reader, writer = RunFolder.open(old), RunFolder.open(old)
    writer.write(GROUP)
    assert reader.read("state.pt") == GROUP["state.pt"]
    assert reader.names() == tuple(sorted(NEW))


def test_imports_no_backend():
    code = textwrap.dedent("""
        import sys, ppl_vae.store
        bad = {"torch", "jax", "numpyro", "pyro", "numpy"} & set(sys.modules)
        assert not bad, bad
    """)
    subprocess.run([sys.executable, "-c", code], check=True)


LOOP = """
import sys
from ppl_vae.store import RunFolder
folder = RunFolder.open(sys.argv[1])
n = int(folder.read("a.bin")[:8])
while True:
    n += 1
    stream = lambda file: [file.write(b"%08d" % n) for _ in range(999)]
    folder.write({"a.bin": b"%08d" % n * 20_000, "b.bin": stream})
    folder.append_metrics({"step": n})
    print(n, flush=True)
"""


def test_sigkill_while_writing_in_a_loop(tmp_path):
    path = tmp_path / "run"
    RunFolder.create(path).write({"a.bin": b"%08d" % 0 * 20_000, "b.bin": b"%08d" % 0 * 999})
    rng = random.Random(0)
    last = 0
    for _ in range(8):
        with owned([sys.executable, "-c", LOOP, path]) as child:
            child.stdout.readline()
            time.sleep(rng.uniform(0.0, 0.15))
            child.send_signal(signal.SIGKILL)
            said = child.communicate()[0].split()
        folder = RunFolder.open(path)
        first, second = folder.read("a.bin"), folder.read("b.bin")
        n = int(first[:8])
        assert first == b"%08d" % n * 20_000 and second == b"%08d" % n * 999
        assert n >= max(last, int(said[-1]) if said else 0), "what write returned from is kept"
        folder.truncate_metrics(n)
        assert [row["step"] for row in folder.metrics()] in (list(range(1, n + 1)), list(range(1, n)))
        folder.truncate_metrics(n - 1)
        folder.append_metrics({"step": n})
        last = n
    assert last > 8
