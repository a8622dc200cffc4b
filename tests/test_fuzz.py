"""Whatever is typed, and whatever lies in a file: success, or one line with exit code 1 or 2."""

import re
import shutil

import numpy as np
import pytest
from command_line import SMALL, cli, ok
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from ppl_vae.store import RunFolder

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FAST = settings(derandomize=True, deadline=None, database=None, suppress_health_check=QUIET)
RUN = "--split --rows --seed --data --device --model-file --out --overwrite"
OPTIONS = {
    "check": "--data --seed --x --label --model.z_dim --model.hidden --model.likelihood --backend",
    "copy": "",
    "data": "--x --label --batch --index --ignore --mask --delimiter --decimal --header",
    "decode": "--latents --covariates --seed --out --overwrite --device",
    "encode": f"{RUN} --draw",
    "evaluate": "--split --rows --seed --data --importance-samples --compile --per-row --overwrite --device",
    "export": "--what --data --overwrite --seed",
    "list": "",
    "log_prob": f"{RUN} --importance-samples",
    "posterior": f"{RUN} --method --num-samples",
    "reconstruct": f"{RUN} --draw",
    "sample": "--n --covariates --seed --out --overwrite --device",
    "train": "--data --out --resume --objective --beta --warm-up --backend --compile --lr --betas --ema "
    "--clip-norm --batch-size --accumulate --binarize --valid --test --split-seed --kind --levels --x "
    "--label --mask --index --ignore --delimiter --decimal --header --config --seed --device --optimizer "
    "--keep --patience --log-every --checkpoint-every --precision --model.z_dim --model.hidden "
    "--model.likelihood --model.activation --progress --model-file --weight-decay",
}
LIKELY = {
    "digits rows.npy table.csv z.npz run own.py": "--data --covariates --latents --config --model-file",
    "new.npz out.npz rows.npy run new.nc runs/new": "--out --per-row",
    "0 1 2 3 7 -1 40": "--rows --seed --n --importance-samples --warm-up --batch-size --accumulate --valid "
    "--test --split-seed --levels --patience --log-every --checkpoint-every --num-samples --model.z_dim",
    "0 1 .5 -2 1e-3 1e30 linear:0:1:10 cosine:1:0:2 nan": "--beta --lr --ema --clip-norm --weight-decay",
    ".9,.99 4,4 16 [3] 0,0 1": "--betas --model.hidden",
    "a b id a,b nan none a,a": "--x --label --batch --index --ignore --mask",
    "comma tab , . true false no": "--delimiter --decimal --header --progress --draw --overwrite --resume",
    "elbo iwae(k=2) dreg Trace_ELBO elbo(beta=cosine:1:0:2) stl(k=-1)": "--objective",
    "bernoulli normal logistic_mixture(5) categorical poisson tanh": "--model.likelihood --model.activation",
    "train valid test guide importance encode decode score auto on off": "--split --method --what --compile",
    "pyro numpyro cpu auto cuda:9 adamw adamax best last 32 bf16-mixed": "--backend --device --optimizer "
    "--keep --precision",
    "image vector counts sound static dynamic none": "--kind --binarize",
}
LIKELY = {option: values.split() for values, options in LIKELY.items() for option in options.split()}
BARE = {"--draw", "--overwrite", "--resume"}
STRANGE = """inf 1e400 999999999999999999999 [] {} [1,2 '{' ~ ~/x elbo( cuda:9 .. /dev /dev/null /dev/full
    -- - = && /proc/self/mem *a &a !!python/object:os.system @x nowhere nowhere.npz a/b.npz
    run/config.yaml iwae(k=-1)"""
WILD = [
    *STRANGE.split(),
    "",
    " ",
    "\0",
    "\x1b[31m",
    "\n",
    "é.npz",
    "\udcff.npz",
    "x" * 300,
    "a/" * 200,
    "[" * 400,
]
FIRST = {"train": "vae", "check": "vae", "copy": "vae", "data": "info", "list": None}


def told(words) -> None:
    """Run a command line, which must work or be refused in one line."""
    found = cli(*words)
    assert found.code in (0, 1, 2), (words, found)
    if found.code:
        assert "Traceback" not in "\n".join(found.err), (words, "\n".join(found.err))
        if words[0] == "check" and re.search(r"\d+ ok, [1-9]\d* failed", found.err[-1]):
            return  # a report of what does not hold, which has many lines
        said = [line for line in found.err if line.startswith("ppl-vae")]
        assert len(said) == 1 and said == found.err[-1:], (words, found.err)
        assert all(character.isprintable() for line in found.err for character in line), found.err


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A working folder with a run and some files."""
    folder = tmp_path_factory.mktemp("fuzz")
    ok("train", "vae", *SMALL, "--max-steps", 3, "--checkpoint-every", 0, "--out", folder / "run")
    rows = np.random.default_rng(0).random((30, 64)).astype(np.float32)
    np.save(folder / "rows.npy", rows.reshape(30, 1, 8, 8))
    np.savez(folder / "z.npz", z=np.zeros((4, 2), np.float32))
    (folder / "table.csv").write_text("id,a,b\nr1,1,2.5\nr2,3,4\nr3,5,6\n")
    (folder / "own.py").write_text("import pyro\ndef model(x): pass\ndef guide(x): pass\n")
    (folder / "pictures").mkdir()
    Image.new("L", (8, 8)).save(folder / "pictures" / "a.png")
    ok("evaluate", folder / "run", "--rows", 20)
    return folder


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    yield place
    for path in place.iterdir():
        if path.name not in ("run", "pictures", "rows.npy", "z.npz", "table.csv", "own.py"):
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


@st.composite
def lines(draw):
    """Draw the words of a command that is nearly right."""
    verb = draw(st.sampled_from(sorted(OPTIONS)))
    words = [] if verb == "list" else [FIRST.get(verb, "run")]
    if verb in ("copy", "data", "export"):
        words.append(draw(st.sampled_from(["table.csv", "digits", "out.pt2", "out.onnx", *WILD])))
    for option in draw(st.lists(st.sampled_from(OPTIONS[verb].split()), max_size=4)) if OPTIONS[verb] else ():
        words.append(option)
        if option not in BARE:
            values = WILD if draw(st.integers(0, 4)) == 0 else LIKELY[option]
            words.append(draw(st.sampled_from(values)))
    if draw(st.integers(0, 7)) == 0:
        words.insert(draw(st.integers(0, len(words))), draw(st.sampled_from(WILD)))
    if verb in ("data", "train"):
        words.append("--offline")
    if verb == "train":  # short, whatever is drawn
        words += ["--epochs", "1", "--max-steps", "2"]
    return [verb, *words]


def try_lines(number):
    @settings(FAST, max_examples=number)
    @given(words=lines())
    def run(words):
        told(words)

    run()


def test_some_command_lines_give_success_or_one_line(here):
    try_lines(40)


@pytest.mark.slow
def test_many_command_lines_give_success_or_one_line(here):
    try_lines(500)


USES = {
    "rows.npy": ("encode", "run", "--data", "rows.npy", "--overwrite", "--out", "new.npz"),
    "z.npz": ("decode", "run", "--latents", "z.npz"),
    "table.csv": ("data", "info", "table.csv"),
    "own.py": ("train", "own.py", "--max-steps", "1", "--out", "new"),
    "pictures/a.png": ("data", "info", "pictures"),
}
FILES = ("run/config.yaml", "run/position.json", "run/metrics.jsonl", "run/state.pt", "run/manifest.json")
FILES += (
    "run/weights.safetensors",
    "rows.npy",
    "z.npz",
    "table.csv",
    "own.py",
    "pictures/a.png",
    "run/.lock",
)
FILES += ("run/evaluation-test.json",)
RESUMED = ("train", "--resume", "--out", "run", "--max-steps", "4", "--progress", "false")
TEXTS = (
    b"",
    b"0",
    b"-1",
    b"1e999",
    b"null",
    b"NaN",
    b"[]",
    b"{}",
    b'"',
    b"\0",
    b"\xff",
    b"\n",
    b"a: b",
    b"x" * 200,
)


@st.composite
def mutations(draw):
    """Draw a file and what becomes of its bytes: cut off, changed in places, or another text in a place."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(TEXTS) | st.binary(max_size=4))
    edits, keeps_hash = draw(st.lists(edit, min_size=1, max_size=3)), draw(st.integers(0, 4)) > 0
    return draw(st.sampled_from(FILES)), edits, draw(st.sampled_from([None, None, 0.0, 0.5])), keeps_hash


def changed(content, edits, kept):
    """Return bytes with stretches of them replaced, up to a part of them."""
    for where, length, text in edits:
        start = int(where * len(content))
        content = content[:start] + text + content[start + length :]
    return content if kept is None else content[: int(kept * len(content))]


def try_files(place, number):
    whole = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    @settings(FAST, max_examples=number)
    @given(mutation=mutations())
    def run(mutation):
        name, edits, kept, keeps_hash = mutation
        try:
            content = changed(whole.get(place / name, b""), edits, kept)
            guarded = name.startswith("run/") and RunFolder.open("run").names()
            if keeps_hash and guarded and name.removeprefix("run/") in guarded:
                RunFolder.open("run").write({name.removeprefix("run/"): content})  # as a stranger would
            else:
                (place / name).write_bytes(content)
            for words in (USES[name],) if name in USES else (("evaluate", "run", "--rows", "20"), RESUMED):
                told(words)
        finally:
            for path in list(place.rglob("*")):
                if path.is_file() and path not in whole:
                    path.unlink()
            for path, content in whole.items():
                path.write_bytes(content)

    run()


def test_some_mutated_files_give_success_or_one_line(here):
    try_files(here, 25)


@pytest.mark.slow
def test_many_mutated_files_give_success_or_one_line(here):
    try_files(here, 1000)
