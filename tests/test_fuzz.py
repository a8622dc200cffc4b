"""Whatever is typed, and whatever lies in a file: success, or one line with exit code 1 or 2."""

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scipy.io
import scipy.sparse
from command_line import SMALL, cli, ok
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from test_containers import cells, mat73

from ppl_vae.store import RunFolder

QUIET = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
PAIR = """
import pyro, torch
from pyro import distributions as dist

net = torch.nn.Linear(64, 2)


def model(x):
    w = pyro.param("w", torch.zeros(2, 64))
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=z @ w).to_event(1), obs=x.flatten(1).round())


def guide(x):
    pyro.module("net", net)
    with pyro.plate("data", len(x)):
        pyro.sample("z", dist.Normal(net(x.flatten(1)), 1.0).to_event(1))
"""
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
    "sample": "--num-samples --covariates --seed --out --overwrite --device",
    "train": "--data --out --resume --objective --beta --warm-up --backend --compile --lr --betas --ema "
    "--clip-norm --batch-size --accumulate --binarize --valid --test --split-seed --kind --levels --x "
    "--label --mask --index --ignore --delimiter --decimal --header --config --seed --device --optimizer "
    "--keep --patience --log-every --checkpoint-every --precision --model.z_dim --model.hidden "
    "--model.likelihood --model.activation --progress --model-file --weight-decay",
}
LIKELY = {
    "digits rows.npy table.csv z.npz run own.py": "--data --covariates --latents --config --model-file",
    "new.npz out.npz rows.npy run new.nc runs/new": "--out --per-row",
    "0 1 2 3 7 -1 40": "--rows --seed --importance-samples --warm-up --batch-size --accumulate --valid "
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
    ok("posterior", folder / "run", "--rows", 2, "--num-samples", 3)
    (folder / "pair.py").write_text(PAIR)
    ok("train", folder / "pair.py", "--max-steps", 3, "--progress", "false", "--out", folder / "pair")
    shutil.copytree(Path(__file__).parent / "old_runs" / "hvae-numpyro", folder / "jax")
    containers(folder)
    return folder


def containers(folder):
    """Write a small table in each kind of file."""
    counts = np.random.default_rng(0).poisson(3.0, (20, 4))
    names = np.array(["B", "T"])[counts[:, 0] % 2]
    frame = pd.DataFrame(counts, columns=list("abcd")).assign(kind=names)
    frame.to_csv(folder / "t.csv")
    frame.to_parquet(folder / "t.parquet")
    np.savez_compressed(folder / "named.npz", x=counts, t=names)
    scipy.sparse.save_npz(folder / "sparse.npz", scipy.sparse.csr_matrix(counts))
    scipy.io.savemat(folder / "t.mat", {"x": counts / 3, "y": names}, do_compression=True)
    mat73(folder / "t73.mat", x=counts / 3, y=counts[:, 0])
    cells(folder / "t.h5ad")


@pytest.fixture
def here(place, monkeypatch):
    monkeypatch.chdir(place)
    monkeypatch.setenv("HOME", str(place))
    before = set(place.iterdir())
    yield place
    for path in set(place.iterdir()) - before:
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


INFO = ("data", "info")
CHECKED = {  # what a file is used for, most often by verbs that say what it holds
    "rows.npy": (("encode", "run", "--data", "rows.npy", "--overwrite", "--out", "new.npz"),),
    "z.npz": (("decode", "run", "--latents", "z.npz"),),
    "own.py": (("train", "own.py", "--max-steps", "1", "--out", "new"),),
    "named.npz": ((*INFO, "named.npz", "--label", "t"),),
    "pictures/a.png": ((*INFO, "pictures"),),
    "run/posterior-test-guide.nc": (("posterior", "run", "--rows", "2", "--num-samples", "3"),),
    "table.csv": (("train", "vae", "--data", "table.csv", "--max-steps", "1", "--out", "new", *SMALL),),
}
CHECKED |= {name: ((*INFO, name),) for name in ("t.mat", "t73.mat", "sparse.npz")}
CHECKED |= {name: ((*INFO, name, "--label", "kind"),) for name in ("t.parquet", "t.h5ad", "t.csv")}
PARTS = ["config.yaml", "position.json", "metrics.jsonl", "manifest.json", "weights.safetensors", ".lock"]
RUNS = {  # verbs of a run, and its files
    "run": (("evaluate", "run", "--rows", "20"), [*PARTS, "state.pt", "evaluation-test.json", "report.html"]),
    "pair": (("encode", "pair", "--rows", "3"), [*PARTS, "state.pt", "model.py"]),
    "jax": (
        ("sample", "jax", "--num-samples", "1"),
        ["config.yaml", "weights.safetensors", "state.safetensors"],
    ),
}


def uses_of(run, steps):
    words, names = RUNS[run]
    resumed = ("train", "--resume", "--out", run, "--max-steps", str(steps), "--progress", "false")
    return {f"{run}/{name}": (words, resumed) for name in names}


QUICK = CHECKED | uses_of("run", 4) | uses_of("pair", 4)
ALL = QUICK | uses_of("jax", 13)
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
def mutations(draw, files):
    """Draw a file and what becomes of its bytes: cut off, changed in places, or another text in a place."""
    edit = st.tuples(st.floats(0, 1), st.integers(0, 12), st.sampled_from(TEXTS) | st.binary(max_size=4))
    edits, keeps_hash = draw(st.lists(edit, min_size=1, max_size=3)), draw(st.integers(0, 4)) > 0
    return (
        draw(st.sampled_from(sorted(files))),
        edits,
        draw(st.sampled_from([None, None, 0.0, 0.5])),
        keeps_hash,
    )


def changed(content, edits, kept):
    """Return bytes with stretches of them replaced, up to a part of them."""
    for where, length, text in edits:
        start = int(where * len(content))
        content = content[:start] + text + content[start + length :]
    return content if kept is None else content[: int(kept * len(content))]


def try_files(place, uses, number):
    whole = {path: path.read_bytes() for path in place.rglob("*") if path.is_file()}

    @settings(FAST, max_examples=number)
    @given(mutation=mutations(uses))
    def run(mutation):
        name, edits, kept, keeps_hash = mutation
        try:
            content = changed(whole.get(place / name, b""), edits, kept)
            run, _, part = name.partition("/")
            if run in RUNS and keeps_hash and part in RunFolder.open(run).names():
                RunFolder.open(run).write({part: content})  # as a stranger would
            else:
                (place / name).write_bytes(content)
            for words in uses[name]:
                told(words)
        finally:
            for path in list(place.rglob("*")):
                if path.is_file() and path not in whole:
                    path.unlink()
            for path, content in whole.items():
                path.write_bytes(content)

    run()


def test_some_mutated_files_give_success_or_one_line(here):
    try_files(here, QUICK, 25)


@pytest.mark.slow
def test_many_mutated_files_give_success_or_one_line(here):
    try_files(here, ALL, 1000)
