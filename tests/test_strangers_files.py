"""Folders and files that somebody else made: nothing is followed out of them, run, or believed unseen."""

import hashlib
import json
import os
import shutil
import tempfile
import zlib

import numpy as np
import pytest
import yaml
from command_line import COMMAND, SMALL, cli, completed, contents, ok, refused
from PIL import Image

from ppl_vae import open_run, reading
from ppl_vae.errors import RunError
from ppl_vae.store import RunFolder

FILES = {"config.yaml": b"lr: 1\n", "state.pt": b"old state"}
EVIL = "raise SystemExit('executed')\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("strangers") / "run"
    ok("train", "vae", "--max-steps", 3, "--out", out, *SMALL, "--max-steps", 3)
    return out


@pytest.fixture
def received(trained, tmp_path):
    """A copy of a run, as one gets it from somebody."""
    return shutil.copytree(trained, tmp_path / "received")


@pytest.fixture
def precious(tmp_path):
    path = tmp_path / "precious"
    path.write_text("thesis")
    return path


def reguarded(run, **files):
    """Put content into a run as a stranger would, with hashes that are right."""
    RunFolder.open(run).write({name.replace("_", ".", 1): content for name, content in files.items()})


def rewritten(run, change):
    """Let `change` edit the record of a run."""
    config = yaml.safe_load((run / "config.yaml").read_bytes())
    change(config)
    reguarded(run, config_yaml=yaml.safe_dump(config).encode())


@pytest.mark.parametrize("name", [".lock", "state.pt.new", "manifest.json.new", "other.new", "metrics.jsonl"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_in_a_run_folder_is_never_written_through(tmp_path, precious, name, there):
    if not there:
        precious.unlink()
    folder = RunFolder.create(tmp_path / "run")
    folder.write(FILES)
    (folder.path / name).unlink(missing_ok=True)
    (folder.path / name).symlink_to(precious)
    try:
        again = RunFolder.open(folder.path)
        again.write({"state.pt": b"new state"})
        again.append_metrics({"step": 1})
    except RunError as error:
        assert name in (".lock", "metrics.jsonl") and "it is a link, which is not followed" in str(error)
    else:
        assert name not in (".lock", "metrics.jsonl")
        assert RunFolder.open(folder.path).read("state.pt") == b"new state"
        assert not list(folder.path.glob("*.new"))
    assert precious.read_text() == "thesis" if there else not precious.exists()


@pytest.mark.parametrize("name", [".lock", "metrics.jsonl", "state.pt.new", "report.html"])
def test_a_file_with_another_name_is_not_written_through(received, precious, name):
    (received / name).unlink(missing_ok=True)
    os.link(precious, received / name)
    for words in (("evaluate", received), ("train", "--resume", "--out", received, "--max-steps", 4)):
        found = cli(*words)
        assert found.code in (0, 1) and (
            not found.code or "a hard link, which is not written" in found.err[-1]
        )
    assert precious.read_text() == "thesis"
    if name == ".lock":
        assert "it is a hard link, which is not written: copy it" in found.err[-1]
        (received / name).unlink()
        shutil.copy(precious, received / name)
        ok("evaluate", received)


@pytest.mark.parametrize("name", ["manifest.json", "config.yaml", "metrics.jsonl", "weights.safetensors"])
def test_a_link_in_a_run_folder_is_not_read(received, precious, name):
    (received / name).rename(precious)
    (received / name).symlink_to(precious)
    assert "it is a link, which is not followed" in refused(1, "sample", received)


@pytest.mark.parametrize("name", [".lock", "manifest.json", "config.yaml", "metrics.jsonl", "other.new"])
def test_a_pipe_in_a_run_folder_keeps_nobody_waiting(received, name):
    (received / name).unlink(missing_ok=True)
    os.mkfifo(received / name)
    if name in (".lock", "other.new"):
        assert open_run(received).steps == 3
    if name != "other.new":
        assert "it is no ordinary file" in refused(1, "evaluate", received)


def test_a_lock_that_is_a_link_is_refused_before_evaluate_works(received, precious):
    (received / ".lock").unlink()
    (received / ".lock").symlink_to(precious)
    assert ".lock" in refused(1, "evaluate", received)
    assert precious.read_text() == "thesis"


READ_ONLY = """cd "$1"; shift; mount --bind . . && mount -o remount,ro,bind . && cd . && exec "$@" """


def test_an_evaluation_of_a_run_that_is_read_only_is_told_and_not_kept(received, monkeypatch):
    before = contents(received)
    allowed = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: "received" not in str(path) and allowed(path, mode))
    found = cli("evaluate", received, "--rows", 20)
    assert found.code == 0 and found.result["n"] == 20 and "out" not in found.result
    assert found.err == [f"nothing can be written to {received}: the evaluation is told and not kept"]
    monkeypatch.setattr("ppl_vae.api.Run.sample", lambda *_, **__: pytest.fail("it worked first"))
    assert "name a file in another one (--out)" in refused(2, "sample", received)
    assert contents(received) == before


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["evaluate", "sample", "posterior", "train"])
def test_runs_on_a_read_only_file_system(received, tmp_path, verb):
    words = ("unshare", "-rm", "bash", "-c", READ_ONLY, "bash", received.parent, *COMMAND, verb)
    if completed([*words[:6], received.parent, "true"]).returncode:
        pytest.skip("no file systems can be mounted here")
    run = "received" if verb != "train" else "--resume --out received --max-steps 5"
    done = completed([*words, *run.split()])
    assert done.returncode == {"evaluate": 0, "train": 1}.get(verb, 2), done
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr
    if verb in ("sample", "posterior"):
        with tempfile.TemporaryDirectory() as other:
            out = f"{other}/a.{'nc' if verb == 'posterior' else 'npz'}"
            assert not completed([*words, "received", "--out", out]).returncode and os.path.exists(out)


def test_evaluate_of_a_live_run_asks_for_its_lock_before_it_works(received, monkeypatch):
    monkeypatch.setattr("ppl_vae.evaluate", lambda *_, **__: pytest.fail("it worked first"))
    with RunFolder.open(received).lock():
        assert f"in use by process {os.getpid()}" in refused(1, "evaluate", received)


def test_tensorboard_is_not_written_through_a_link(received, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (received / "tensorboard").symlink_to(elsewhere)
    words = ("train", "--resume", "--out", received, "--max-steps", 4, "--tensorboard")
    assert "tensorboard" in refused(2, *words)
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize("name", ["../precious", "half a pair \ud800"])
def test_names_in_a_manifest_lie_in_the_folder(tmp_path, precious, name):
    folder = RunFolder.create(tmp_path / "run")
    folder.write(FILES)
    path = folder.path / "manifest.json"
    body = json.loads(path.read_bytes())
    body.pop("sha256")
    body["files"][name] = {"size": 6, "sha256": hashlib.sha256(b"thesis").hexdigest()}
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    path.write_text(json.dumps(body | {"sha256": digest}))
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        RunFolder.open(folder.path)


@pytest.mark.parametrize("link", ["/proc/self/cwd/evil.py", "linked.py", "linked/evil.py", "evil.py\0"])
def test_a_recorded_model_path_that_is_a_link_is_not_executed(received, tmp_path, monkeypatch, link):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil.py").write_text(EVIL)
    (tmp_path / "linked.py").symlink_to(tmp_path / "evil.py")
    (tmp_path / "linked").symlink_to(tmp_path)
    sha256 = hashlib.sha256(EVIL.encode()).hexdigest()
    record = {"origin": "file", "name": "evil", "sha256": sha256, "path": str(tmp_path / link)}
    rewritten(received, lambda config: config.update(program=record))
    assert "name the file with --model-file" in refused(1, "sample", "received")


def test_a_recorded_objective_is_the_file_that_was_looked_at(received, tmp_path, monkeypatch):
    monkeypatch.chdir(received)
    (received / "evil.py").write_text(EVIL)
    known = tmp_path / "known.py"
    known.write_text("from ppl_vae import ELBO\n")
    sha256 = hashlib.sha256(known.read_bytes()).hexdigest()
    file = {"origin": "file", "name": "known", "sha256": sha256, "path": str(known)}
    rewritten(received, lambda config: config.update(objective="evil.py:Evil()", objective_file=file))
    line = refused(1, "train", "--resume", "--out", received, "--max-steps", 4)
    assert f"{known} has no class Evil" in line


@pytest.mark.parametrize("place", [".", "deeper"])
def test_the_verbs_of_a_run_folder_are_not_run(received, monkeypatch, place):
    for folder in (received, received / "deeper"):
        for kind, name in (("inference", "sample.py"), ("models", "vae.py"), ("inference", "own.py")):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            (folder / kind / name).write_text(EVIL)
    monkeypatch.chdir(received / place)
    assert ok("sample", received)["n"] == 64
    assert "unknown verb 'own'" in cli("own").err[0]
    assert ok("check", "vae", *SMALL[:4])["ok"]


TEXTS = {
    "format": lambda config: config.update(format=2),
    "no data": lambda config: config.pop("data"),
    "data": lambda config: config.update(data=[1]),
    "rows": lambda config: config["data"].update(rows={"train": "many"}),
    "no train": lambda config: config["data"].update(rows={}),
    "shapes": lambda config: config["data"].update(shapes={"x": "flat"}),
    "options": lambda config: config["data"].update(options={"path": "x"}),
    "backend": lambda config: config.update(backend="stan"),
    "program": lambda config: config.update(program={"origin": "gallery"}),
    "model": lambda config: config["model"].update(x_shape="round"),
    "training": lambda config: config["training"].update(batch_size=0),
    "lr": lambda config: config["training"].update(lr=[1]),
    "objective": lambda config: config.update(objective=3),
    "objective text": lambda config: config.update(objective="elbo(beta="),
    "binarize": lambda config: config["data"].update(binarize="perhaps"),
}


@pytest.mark.parametrize("change", TEXTS)
def test_a_record_that_holds_something_else_is_told_in_one_line(received, change):
    rewritten(received, TEXTS[change])
    found = [cli(*words) for words in (("evaluate", received), ("train", "--resume", "--out", received))]
    assert any(answer.code in (1, 2) for answer in found)
    for answer in found:
        assert answer.code in (0, 1, 2) and (not answer.code or len(answer.err) == 1), answer


@pytest.mark.parametrize("text", ["a" * 300, "../../model", "", "a\0"])
def test_a_hash_that_is_none_names_no_source(received, text):
    program = {"origin": "session", "name": "a", "sha256": text}
    rewritten(received, lambda config: config.update(program=program))
    with pytest.raises(RunError, match="source this machine does not keep"):
        open_run(received)


def test_a_newer_format_says_so_and_what_a_later_version_added_is_kept(received):
    added = {"later": {"a": 1}, "data": {"sheet": "b"}, "training": {"swirl": 0.5}}

    def change(config):
        config.update(later=added["later"])
        config["data"].update(added["data"])
        config["training"].update(added["training"])

    rewritten(received, change)
    ok("train", "--resume", "--out", received, "--max-steps", 4, "--progress", "false")
    config = RunFolder.open(received).config()
    assert config["later"] == added["later"] and config["training"]["max_steps"] == 4
    assert all(
        config[part][name] == value for part in ("data", "training") for name, value in added[part].items()
    )
    rewritten(received, TEXTS["format"])
    assert "has format 2, of a newer ppl_vae (this one reads 1): upgrade" in refused(1, "evaluate", received)


POSITIONS = [b"", b"[]", b"3", b"{", b'{"step": "3"}', b'{"step": -1}', b'{"step": 1.5}', b"[" * 100_000]
POSITIONS += [
    json.dumps({"plateaus": {"lr": {"schedule": "plateau:1", "value": 1.0} | other}}).encode()
    for other in ({"value": "x"}, {"value": -5.0}, {"best": "high"}, {"waited": -1}, {"value": float("nan")})
]
POSITIONS += [b'{"plateaus": {"lr": {}}}', b'{"plateaus": {"lr": 3}}']
POSITIONS += [b'{"step": 3, "swirl": 1}', b'{"best": {}}', b"\xff", b'{"done": 3}']


@pytest.mark.parametrize("content", POSITIONS, ids=range(len(POSITIONS)))
def test_a_position_that_holds_something_else_is_told_in_one_line(received, content):
    reguarded(received, position_json=content)
    assert "position.json" in refused(1, "train", "--resume", "--out", received, "--max-steps", 4)


ROWS = [b"[]", b'{"split": "train"}', b'{"step": "a", "split": "train"}', b'{"step": 1}', b"{" * 100_000]
ROWS += [b'{"step": 1, "split": "train", "a": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"]
ROWS += [b'{"step": 1, "split": "valid", "elbo_nats": "high"}', b'{"step": 1, "split": []}']


@pytest.mark.parametrize("row", ROWS, ids=range(len(ROWS)))
def test_a_history_that_no_training_wrote_is_told_in_one_line(received, row):
    path = received / "metrics.jsonl"
    path.write_bytes(row + b"\n" + path.read_bytes())
    assert "metrics.jsonl, line 1 is" in refused(1, "evaluate", received)


def test_a_few_lines_of_yaml_do_not_stand_for_more_than_memory(received, folder):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12)]
    reguarded(received, config_yaml="\n".join(lines).encode())
    assert "the alias *a0" in refused(1, "evaluate", received)
    (folder / "bomb.yaml").write_text("\n".join(lines))
    assert "the alias *a0" in refused(2, "train", "--config", "bomb.yaml")


def test_arrays_beyond_memory_are_refused_before_they_are_read(folder, monkeypatch):
    np.savez_compressed("zeros.npz", x=np.zeros((1000, 1000), np.float32))
    np.save("zeros.npy", np.zeros((1000, 1000), np.float32))
    for name in ("zeros.npz", "zeros.npy"):
        assert ok("data", "info", name)["rows"]
    with monkeypatch.context() as small:
        small.setattr(reading, "memory", lambda: 10**6)
        for name in ("zeros.npz", "zeros.npy"):
            assert "of memory" in refused(1, "data", "info", name)
    with open("hole.npy", "wb") as file:  # a file without blocks, larger than any memory
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 50,)}
        )
        file.truncate(1 << 43)
    assert "of memory" in refused(1, "data", "info", str(folder / "hole.npy"))


@pytest.mark.parametrize("name", ["a.csv", "a.npz", "a.npy", "my.py", "a.yaml"])
def test_a_pipe_is_no_file_of_data_or_model(folder, name):
    os.mkfifo(name)
    words = {"my.py": ("train", name), "a.yaml": ("train", "--config", name)}
    found = cli(*words.get(name, ("data", "info", name)))
    assert found.code in (1, 2) and len(found.err) == 1


def test_pictures_are_of_the_kinds_that_their_names_say(folder):
    (folder / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EOF\n")
    assert "a.png cannot be read as an image" in refused(1, "data", "info", str(folder))
    Image.new("L", (8, 8)).save("a.png")
    raw = bytearray((folder / "a.png").read_bytes())
    raw[33:33] = _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(10**8)))  # 100 MB of text
    (folder / "a.png").write_bytes(raw)
    assert "a.png" in refused(1, "data", "info", str(folder))


def _chunk(kind, content):
    checked = zlib.crc32(kind + content).to_bytes(4, "big")
    return len(content).to_bytes(4, "big") + kind + content + checked


def test_names_are_told_without_what_a_terminal_obeys(folder):
    line = refused(1, "data", "info", "\x1b]0;title\x07\x9b2J.npz")
    assert line == "ppl-vae data: \\x1b]0;title\\x07\\x9b2J.npz does not exist: correct the path"


def test_a_name_that_is_too_long_and_one_that_is_no_text(folder, received):
    assert "File name too long" in refused(1, "data", "info", "n" * 300 + ".npz")
    longest = "n" * 251 + ".npz"
    ok("evaluate", received, "--per-row", longest, "--rows", 5)
    assert np.load(longest)["elbo"].shape == (5,)
    odd = os.fsdecode(b"\xff\xe9.npz")
    np.savez(odd, x=np.random.default_rng(0).random((40, 5)))
    shown = ok(
        "train", "vae", "--data", odd, "--model.likelihood", "normal", *SMALL, "--max-steps", 2, "--out", "r"
    )
    assert ok("evaluate", "r")["data"].endswith(shown["data"]) and (folder / "r" / "report.html").exists()


STREAMS = {
    ">&-": (0, ""),
    ">/dev/full": (1, "No space left on device"),
    "2>&-": (0, ""),
    ">&- 2>&- <&-": (0, ""),
}


@pytest.mark.parametrize("streams", STREAMS)
def test_streams_that_are_closed_or_full(folder, streams):
    words = ("train", "nothing") if streams == ">&- 2>&- <&-" else ("copy", "vae", "my.py")
    done = completed(["bash", "-c", f'"$@" {streams}', "bash", *COMMAND, *words])
    code, said = STREAMS[streams] if words[0] == "copy" else (2, "")
    assert done.returncode == code, done
    assert said in done.stderr and "Traceback" not in done.stderr
    assert words[0] == "train" or (folder / "my.py").read_text().startswith('"""')
