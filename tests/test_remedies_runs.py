"""Each remedy that a message about a run, its folder or a command names is carried out."""

import json
import re
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from command_line import cli
from remedies import Case

import ppl_vae
from ppl_vae import evaluate, fit, load, open_run, reading, resume
from ppl_vae.api import board, record
from ppl_vae.gallery import packaged
from ppl_vae.position import Position
from ppl_vae.store import RunFolder, config, disk, lock, manifest, metrics

X = np.random.default_rng(0).normal(size=(20, 2)).astype("f")
FIELDS = {"z_dim": 2, "hidden": (4,), "likelihood": "normal"}
SHORT = {"max_steps": 1, "batch_size": 10}
MODEL = "from ppl_vae import load\n\nprogram = load('vae', z_dim=2, hidden=(4,), likelihood='normal')\n"
OWN = """from dataclasses import dataclass
from ppl_vae import Objective

@dataclass(frozen=True)
class Own(Objective):
    def loss(self, F, terms, scalars):
        return F.mean(terms.distortion)
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with data, a run on it and a run on the same in memory."""
    folder = tmp_path_factory.mktemp("trained")
    np.save(folder / "x.npy", X)
    fit(load("vae", **FIELDS), folder / "x.npy", out=folder / "run", **SHORT)
    fit(load("vae", **FIELDS), X, out=folder / "memory", **SHORT)
    return folder


@pytest.fixture
def here(trained, tmp_path, monkeypatch):
    """A copy of it that is the working folder; the whole lies at WHOLE."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    shutil.copytree(trained / "run", tmp_path / "whole")
    monkeypatch.chdir(tmp_path)


def opened(path="run", **options):
    """Open a run, and read all that going on reads."""
    run = open_run(path, **options)
    Position.read(run.folder.read("position.json"))
    run.folder.refuse_lost_metrics()
    return run


def restored(*names):
    """Open the run after some of its files were taken from the copy, with the manifest."""
    for name in (*names, "manifest.json"):
        shutil.copy(Path("whole", name), Path("run", name))
    return opened()


def overwritten(name, content, guarded=True):
    """Open the run with other content in one of its files, of which the manifest knows or not."""
    if guarded:
        RunFolder.open("run").write({name: content})
    else:
        Path("run", name).write_bytes(content)
    return opened()


def edited(name, **changes):
    """Open the run with a file of JSON or YAML changed."""
    made = config.read_config(Path("run", name).read_bytes()) | changes
    made = {key: value for key, value in made.items() if value is not ...}
    return overwritten(
        name, config.write_config(made) if name.endswith("yaml") else json.dumps(made).encode()
    )


@contextmanager
def patched(owner, name, value):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, value)
        yield


@dataclass
class Later(Position):
    """The position of a later version."""

    mood: str = ""


def refusing(error):
    def refuse(*args, **options):
        raise error

    return refuse


def newer(owner, name, value, call):
    """Call what a later version calls."""
    with patched(owner, name, value):
        return call()


def denied(owner, name, call):
    """Call something while the operating system refuses it."""
    with patched(owner, name, refusing(PermissionError(13, "Permission denied"))):
        return call()


def broken(owner, name, call):
    """Call something while the disk fails."""
    with patched(owner, name, refusing(OSError(5, "Input/output error"))):
        return call()


def again(path="run", **options):
    """Train as the run was trained, into its folder."""
    return fit(load("vae", **FIELDS), "x.npy", out=path, **SHORT | options)


def bare(path):
    RunFolder.create(path)
    return opened(path)


def twice(one, other):
    """Write to two folders at once."""
    clock = patched(lock.time, "monotonic", iter(range(999)).__next__)
    with clock, RunFolder.open(one).lock(), RunFolder.open(other).lock():
        pass


def named(name):
    return RunFolder.open("run").write({name: b"1"})


def removed(name):
    Path("run", name).unlink()
    return opened()


def lines(*rows):
    Path("run/metrics.jsonl").write_text("".join(f"{row}\n" for row in rows))
    return opened().folder.metrics()


def moved(**options):
    """Go on with a run whose data has moved."""
    if not Path("there").exists():
        again("there")
        Path("x.npy").rename("y.npy")
    return resume("there", max_steps=2, **options)


def numpyro_state(**options):
    """Go on with the state of a run on NumPyro, which was trained with adamw, under other settings."""
    if not Path("numpyro").exists():
        fit(load("vae", **FIELDS), X, out="numpyro", backend="numpyro", optimizer="adamw", **SHORT)
    kept = config.read_config(Path("numpyro/config.yaml").read_bytes())
    kept["training"] |= options
    RunFolder.open("numpyro").write({"config.yaml": config.write_config(kept)})
    return resume("numpyro", max_steps=2, data=X)


def linked(name):
    Path(name).symlink_to("elsewhere")
    return Path(name)


def changed(text, **options):
    """Open a run of a model file that holds a text now."""
    Path("mine.py").write_text(MODEL)
    if not Path("own").exists():
        fit("mine.py", "x.npy", out="own", **SHORT)
    Path("mine.py").write_text(text)
    return open_run("own", **options)


COPY = "restore it from a copy of the run"
CASES = {
    # what a run folder holds
    "no mapping": Case(lambda: overwritten("position.json", b"[]"), COPY, lambda: restored("position.json")),
    "no JSON": Case(
        lambda: overwritten("position.json", b"{"),
        "): restore it from a copy of the run",
        lambda: restored("position.json"),
    ),
    "below 0": Case(
        lambda: edited("position.json", step=-1),
        "counts below 0: restore it from a copy of the run",
        lambda: restored("position.json"),
    ),
    "state of a plateau": Case(
        lambda: edited("position.json", plateaus={"lr": {"scale": -1.0, "best": None, "waited": 0}}),
        COPY,
        lambda: restored("position.json"),
    ),
    "no origin": Case(
        lambda: edited("config.yaml", program={"name": "vae"}),
        "program has no origin: restore it from a copy of the run",
        lambda: restored("config.yaml"),
    ),
    "other weights": Case(
        lambda: overwritten("weights.safetensors", b"words"),
        "): restore it from a copy of the run",
        lambda: restored("weights.safetensors"),
    ),
    "backend of a record": Case(
        lambda: edited("config.yaml", backend="tensorflow"),
        "unknown backend 'tensorflow': choose pyro or numpyro",
        lambda: edited("config.yaml", backend="pyro"),
    ),
    "newer record": Case(
        lambda: edited("config.yaml", format=2),
        "(this one reads 1): upgrade ppl_vae",
        lambda: newer(record, "FORMAT", 2, opened),
    ),
    "newer position": Case(
        lambda: edited("position.json", mood="good"),
        "of a newer ppl_vae: upgrade ppl_vae",
        lambda: Later.read(RunFolder.open("run").read("position.json")),
    ),
    "newer manifest": Case(
        lambda: newer(manifest, "VERSION", 2, lambda: RunFolder.open("run").write({"a": b""})) or opened(),
        "(this one reads up to 1): upgrade ppl_vae",
        lambda: newer(manifest, "VERSION", 2, opened),
    ),
    "history": Case(
        lambda: lines('{"step": "one", "split": "train"}'),
        "restore the file from a copy of the run",
        lambda: restored("metrics.jsonl"),
    ),
    "line of the history": Case(
        lambda: lines("garbled", '{"step": 1}'),
        "is damaged: remove it, or restore a copy of the file",
        lambda: (lines('{"step": 1, "split": "train"}'), restored("metrics.jsonl")),
    ),
    "history that is gone": Case(
        lambda: removed("metrics.jsonl"),
        "is gone: restore it from a copy of the run, or make an empty one to go on without the history",
        lambda: (restored("metrics.jsonl"), lines(), resume("run", max_steps=2)),
    ),
    "missing file": Case(
        lambda: removed("weights.safetensors"),
        "restore it from a copy of the run, or train again into another folder",
        lambda: (restored("weights.safetensors"), again("another")),
    ),
    "damaged manifest": Case(
        lambda: overwritten("manifest.json", b"{}", False),
        "is damaged: restore it from a copy of the run, or train into another folder",
        lambda: (restored(), again("another")),
    ),
    "no manifest": Case(
        lambda: removed("manifest.json"),
        "it has no manifest.json; name another folder, or restore manifest.json from a copy of the run",
        lambda: (opened("whole"), restored()),
    ),
    # places
    "a file for a run": Case(
        lambda: opened("x.npy"),
        "is a file, not a run folder: name the folder that holds manifest.json",
        opened,
    ),
    "no folder": Case(
        lambda: opened("runn"), "does not exist: name the folder of a run, which training wrote", opened
    ),
    "nothing trained": Case(
        lambda: bare("empty"),
        "): train the run first, or name another run",
        lambda: (again("empty") and opened("empty"), opened("run")),
    ),
    "part that is a file": Case(
        lambda: again("x.npy/run"), "is a file: choose another folder", lambda: again("another")
    ),
    "a file": Case(
        lambda: again("x.npy"), "x.npy is a file: choose another folder", lambda: again("another")
    ),
    "folder that cannot be made": Case(
        lambda: again("/proc/run"), "): choose another folder", lambda: again("another")
    ),
    "other files": Case(
        lambda: again("."), "is not empty and holds no run: choose another folder", lambda: again("another")
    ),
    "a run": Case(
        again,
        "go on with it with resume=True, or choose another folder",
        lambda: (again(resume=True), again("another")),
    ),
    "a run to save over": Case(
        lambda: open_run("run").save("whole"),
        "whole already holds a run: choose another folder",
        lambda: open_run("run").save("another"),
    ),
    "names of files": Case(
        lambda: named("a/b"),
        "give a file name without folders that the folder does not use itself",
        lambda: named("b"),
    ),
    "files that cannot be read": Case(
        lambda: denied(reading, "whole", opened), "): check its permissions", opened
    ),
    "history that cannot be read": Case(
        lambda: denied(metrics.reading, "whole", lambda: metrics.read(Path("run/metrics.jsonl"))),
        "): check its permissions",
        lambda: metrics.read(Path("run/metrics.jsonl")),
    ),
    "lock": Case(
        lambda: denied(lock.reading, "handle", lambda: lock.acquire(Path("run"), 0)),
        "check that the folder exists and its permissions",
        lambda: lock.release(lock.acquire(Path("run"), 0)),
    ),
    "two writers": Case(
        lambda: twice("run", "run"),
        "wait until it ends or stop it, or choose another folder",
        lambda: (named("b"), twice("run", "whole")),
    ),
    # going on
    "other settings": Case(
        lambda: again(resume=True, lr=0.1, batch_size=5),
        "go on with what it records, or choose another folder",
        lambda: (again(resume=True), again("another", batch_size=5)),
    ),
    "what cannot change": Case(
        lambda: resume("run", batch_size=5),
        "of a run cannot change: start another one, in another folder",
        lambda: again("another", batch_size=5),
    ),
    "other objective": Case(
        lambda: resume("run", objective="iwae(k=2)", max_steps=2),
        "go on with that one, or choose another folder",
        lambda: (resume("run", objective="elbo", max_steps=2), again("another", objective="iwae(k=2)")),
    ),
    "no run folder": Case(
        lambda: fit(load("vae", **FIELDS), X, resume=True, **SHORT),
        "resume and tensorboard need a run folder: give out=...",
        lambda: fit(load("vae", **FIELDS), X, resume=True, out="another", **SHORT),
    ),
    "rows from memory": Case(
        lambda: resume("memory", max_steps=2),
        "was made in memory: give it as data=...",
        lambda: resume("memory", max_steps=2, data=X),
    ),
    "rows not at hand": Case(
        lambda: evaluate(open_run("memory")),
        "data is not at hand: give it as data=...",
        lambda: (evaluate(open_run("memory"), data=X), evaluate(open_run("memory", data=X))),
    ),
    "other rows": Case(
        lambda: resume("memory", max_steps=2, data=X + 1),
        "(its sha256 differs): give the right data as data=...",
        lambda: resume("memory", max_steps=2, data=X),
    ),
    "rows as a split": Case(
        lambda: evaluate(open_run("run"), X),
        "split is the name of a split, no ndarray: give rows as data=...",
        lambda: evaluate(open_run("run"), data=X),
    ),
    "rows that moved": Case(
        moved,
        ": say where it lies now with data=...",
        lambda: moved(data="y.npy"),
    ),
    "settings of another optimizer": Case(
        lambda: numpyro_state(optimizer="adam"),
        "is of another program or optimizer: go on with the run's own settings",
        lambda: numpyro_state(optimizer="adamw"),
    ),
    "TensorBoard elsewhere": Case(
        lambda: board.writer_to(linked("board")),
        "is a link, which is not followed: remove it",
        lambda: Path("board").unlink() or board.writer_to(Path("board")),
    ),
    "model that changed": Case(
        lambda: changed(MODEL + "# other\n"),
        "has changed since the run: restore it, or name the file with model_file=...",
        lambda: (changed(MODEL), changed(MODEL + "# other\n", model_file="mine.py")),
    ),
    "model of another gallery": Case(
        lambda: edited("config.yaml", program={"origin": "gallery", "name": "gone", "sha256": ""}),
        "is not in this gallery: name its file with model_file=...",
        lambda: opened(model_file=packaged() / "models" / "vae.py"),
    ),
    "folder as an objective": Case(
        lambda: Path("own.py").mkdir() or again("another", objective="own.py:Own"),
        "is a folder: name the objective file in it",
        lambda: Path("own.py/own.py").write_text(OWN) and again("another", objective="own.py/own.py:Own"),
    ),
    "no checkpoint": Case(
        lambda: resume(fit(load("vae", **FIELDS), X, **SHORT).save("saved"), data=X, max_steps=2),
        "not gone on with (train with out=... for that)",
        lambda: resume(fit(load("vae", **FIELDS), X, out="new", **SHORT).folder.path, data=X, max_steps=2),
    ),
    # files that verbs write
    "a folder": Case(
        lambda: disk.write("run", b""), "is a folder: name a file", lambda: disk.write("run.txt", b"")
    ),
    "no folder for a file": Case(
        lambda: disk.write("there/file", b""),
        "there is no folder there: make it first",
        lambda: Path("there").mkdir() or disk.write("there/file", b""),
    ),
    "a device": Case(
        lambda: disk.write("/dev/null", b"", overwrite=True),
        "is no ordinary file and is not replaced: name another file",
        lambda: disk.write("file", b"", overwrite=True),
    ),
    "folder that cannot be written to": Case(
        lambda: newer(disk.os, "access", lambda *_: False, lambda: disk.write("run/file", b"")),
        "name a file in another one",
        lambda: disk.write("file", b""),
    ),
    "a file that is there": Case(
        lambda: disk.write("x.npy", b""),
        "exists and is not overwritten: name another file, or add overwrite=True",
        lambda: (disk.write("y.npy", b""), disk.write("x.npy", b"", overwrite=True)),
    ),
    "a broken disk": Case(
        lambda: broken(disk, "stage", lambda: disk.write("file", b"")),
        "check the disk and permissions, or name another file",
        lambda: disk.write("file", b""),
    ),
    "a checkpoint on a broken disk": Case(
        lambda: broken(disk, "stage", lambda: resume("run", max_steps=2)),
        "then try again (a training with resume=True); what was saved before is intact",
        lambda: again(resume=True, max_steps=2),
    ),
    "a row on a broken disk": Case(
        lambda: broken(disk, "append", lambda: resume("run", max_steps=2)),
        "then go on with resume=True",
        lambda: again(resume=True, max_steps=2),
    ),
    "a path for a run": Case(
        lambda: evaluate("run"),
        "run is str: open its folder with open_run('run')",
        lambda: evaluate(open_run("run")),
    ),
    "a run for a path": Case(
        lambda: open_run(open_run("run")),
        "path is Run: give the path of a run, such as run.folder.path",
        lambda: open_run(open_run("run").folder.path),
    ),
    # configurations
    "nested": Case(
        lambda: config.read_config(b"[" * 999),
        "the configuration is nested too deeply: correct it",
        lambda: config.read_config(b"a: [1]"),
    ),
    "no YAML": Case(
        lambda: config.read_config(b"a: [1"),
        "): correct it",
        lambda: config.read_config(b"a: [1]"),
    ),
    "a list": Case(
        lambda: config.read_config(b"[1]"),
        "is not a mapping of names to values: correct it",
        lambda: config.read_config(b"a: [1]"),
    ),
    "object in a configuration": Case(
        lambda: config.write_config({"a": object()}),
        "give numbers, text, lists and mappings only",
        lambda: config.write_config({"a": 1, "b": "c", "d": [1], "e": {"f": 1}}),
    ),
    "key of a configuration": Case(
        lambda: config.write_config({(1, 2): 1}),
        ": name the entries of a configuration by text",
        lambda: config.write_config({"a": 1}),
    ),
}


TRAINED = ("settings of another optimizer", "rows that moved", "model that changed", "no checkpoint")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in TRAINED)) for case in CASES]
)
def test_the_remedy_works(case, here):
    CASES[case].carried_out()


COMMANDS = {  # a command, what it says, the command after doing that
    "no run": ("evaluate", "name the folder of a run, such as runs/first", "evaluate run"),
    "rows from memory": (
        "evaluate memory",
        "was made in memory: name the rows with --data FILE",
        "evaluate memory --data x.npy",
    ),
    "no latents": (
        "decode run",
        "name a file of latents: --latents z.npz",
        "decode run --latents z.npz",
    ),
    "ending": ("encode run --out z.txt", ": give a name that ends in .npz", "encode run --out y.npz"),
    "what to copy": ("copy", "say what to copy: ppl-vae copy NAME DEST", "copy vae new.py"),
    "place to copy to": (
        "copy vae there.py",
        "exists and is not overwritten: choose another name",
        "copy vae other.py",
    ),
    "what to do": ("data", "say what to do: ppl-vae data", "data list"),
    "data set": ("data info", "name a data set: ppl-vae data info NAME", "data info x.npy"),
    "unknown option": ("--verson", "unknown option --verson: see ppl-vae --help", "--help"),
    "unknown verb": ("xyzzy", "unknown verb 'xyzzy': see ppl-vae --help", "--help"),
    "no run to go on with": (
        "train --resume",
        "--resume needs the run folder: --out DIR",
        "train --resume --out run --max-steps 2",
    ),
    "no program": (
        "train --data x.npy",
        "name a program, such as vae, or a file of yours",
        "train mine.py",
    ),
    "recorded option": (
        "train --resume --out run --batch-size 5",
        "leave it out on --resume, or train into another folder",
        "train --resume --out run --max-steps 2",
    ),
}


LONG = ("rows from memory", "recorded option", "no run to go on with", "no program")


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in LONG)) for case in COMMANDS]
)
def test_the_remedy_of_a_command_works(case, here):
    wrong, says, right = COMMANDS[case]
    Path("mine.py").write_text(MODEL)
    Path("there.py").write_text("")
    np.savez("z.npz", z=X)
    found = cli(*wrong.split())
    assert (found.code, found.out, len(found.err)) == (2, "", 1) and says in found.err[0]
    end = "--data x.npy --max-steps 1 --batch-size 10" if right.startswith("train mine") else ""
    assert cli(*right.split(), *end.split()).code == 0


def test_fewer_rows_need_less_memory(here):
    def evaluate_some(run, split, k, *, rows, **options):
        if rows is None:
            raise MemoryError("Unable to allocate 9 TiB")
        return evaluate(run, split, k, rows=rows, **options)

    with patched(ppl_vae, "evaluate", evaluate_some):
        said = "there is not enough memory (Unable to allocate 9 TiB): take fewer rows, draws or features"
        assert cli("evaluate", "run").err == [f"ppl-vae evaluate: {said}"]
        assert cli("evaluate", "run", "--rows", 2).code == 0


def test_what_data_info_names_is_an_option(here):
    *_, last = cli("data", "info", "x.npy").err
    said, _, of_training = last.partition("(")
    for command, words in (("data", said), ("train", of_training)):
        options = re.findall(r"--\w+", words)
        assert options and set(options) <= set(re.findall(r"--\w+", cli(command, "--help").out))
