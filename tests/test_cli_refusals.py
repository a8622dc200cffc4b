"""What the command line refuses: one line that names the cause, the exit code, and nothing written."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, cli, contents, ok, refused

GUIDELESS = "import pyro\n\n\ndef model(x):\n    pass\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with a run and with files that are wrong in many ways."""
    folder = tmp_path_factory.mktemp("made")
    ok("train", "vae", *SMALL, "--max-steps", 3, "--checkpoint-every", 0, "--out", folder / "run")
    rows = np.random.default_rng(0).random((30, 4, 4)).astype(np.float32)
    np.save(folder / "good.npy", rows)
    np.save(folder / "flat.npy", rows.reshape(30, 16))
    whole = np.arange(30) % 3
    np.savez(folder / "groups.npz", x=np.ones((30, 4, 4), int), batch=whole)
    np.savez(folder / "halves.npz", x=np.ones((30, 4), int), batch=whole / 2)
    np.savez(folder / "nox.npz", a=rows)
    np.save(folder / "odd.npy", np.zeros((30, 6, 6), np.uint8))
    rows[3, 2, 1] = np.nan
    np.save(folder / "nan.npy", rows)
    np.save(folder / "words.npy", np.array(["a", "b", "c"]))
    (folder / "broken.npz").write_bytes(b"PK\x03\x04 and no more")
    (folder / "guideless.py").write_text(GUIDELESS)
    (folder / "fails.py").write_text("import no_such_module\n")
    (folder / "unknown.yaml").write_text("program: vae\nepoch: 3\n")
    (folder / "field.yaml").write_text("program: vae\nmodel:\n  zdim: 3\n")
    (folder / "kind.yaml").write_text("program: vae\nepochs: many\n")
    (folder / "text.yaml").write_text("program: [vae\n")
    (folder / "list.yaml").write_text("- vae\n")
    return folder


@pytest.fixture
def here(made, monkeypatch):
    """The folder as working folder; nothing in it may change."""
    monkeypatch.chdir(made)
    before = contents(made)
    yield made
    assert contents(made) == before


USAGE = {
    "unknown option": ("--epoch 3", "unknown option --epoch: did you mean --epochs?"),
    "unknown short option": ("-q", "unknown option -q"),
    "one word too many": ("hvae", "superfluous argument hvae"),
    "unknown field": ("--model.zdim 3", "unknown option --model.zdim: did you mean --model.z_dim?"),
    "field of the wrong kind": ("--model.z_dim few", "--model.z_dim: few is not of the kind int"),
    "tuple of the wrong kind": ("--model.hidden a,b", "--model.hidden: a is not of the kind int"),
    "latent size 0": ("--model.z_dim 0", "z_dim=0: a size must be at least 1"),
    "unknown likelihood": ("--model.likelihood foo", "unknown likelihood 'foo': choose one of bernoulli,"),
    "no number": ("--epochs many", "--epochs: many is not of the kind int, null"),
    "half an epoch": ("--epochs 1.5", "--epochs: 1.5 is not of the kind int, null"),
    "an empty number": ("--epochs=", "--epochs: '' is not of the kind int, null"),
    "no epochs": ("--epochs 0", "epochs=0: give a whole number of at least 1"),
    "negative seed": ("--seed -1", "seed=-1: a seed is not negative"),
    "enormous seed": (
        "--seed 99999999999999999999",
        "a seed is not negative and below 4294967296",
    ),
    "unknown activation": ("--model.activation foo", "unknown activation 'foo': choose one of relu,"),
    "open bracket": ("--objective elbo(", "objective 'elbo(' is not closed"),
    "no particles": (
        "--objective Trace_ELBO(num_particles=0) --backend pyro",
        "num_particles=0 is not a number that it can be made with",
    ),
    "unknown backend before the data": (
        "--backend jax --data gone.npy",
        "unknown backend 'jax': choose one of pyro, numpyro",
    ),
    "unknown device before the data": ("--device tpu --data gone.npy", "unknown device 'tpu'"),
    "unknown objective before the data": (
        "--objective Foo_ELBO --backend pyro --data gone.npy",
        "unknown ELBO of pyro.infer 'Foo_ELBO'",
    ),
    "negative rate": ("--lr -1", "lr is -1 at step 0: learning rates are finite and not negative"),
    "unknown schedule": ("--lr fast", "cannot read the schedule 'fast'"),
    "unknown optimizer": ("--optimizer sgd", "unknown optimizer 'sgd': choose one of adam, adamw, adamax"),
    "unknown precision": ("--precision 16", "unknown precision '16': choose one of 32, bf16-mixed"),
    "unknown device": ("--device tpu", "unknown device 'tpu': choose auto, cpu, cuda or cuda:N"),
    "unknown backend": ("--backend tf", "unknown backend 'tf': choose one of pyro, numpyro"),
    "unknown objective": ("--objective foo", "unknown objective 'foo'"),
    "unknown part of an objective": ("--objective elbo(gamma=1)", "elbo has no option 'gamma'"),
    "weight of another objective": (
        "--objective iwae --beta 2",
        "--beta is no option of the objective iwae",
    ),
    "negative weight": ("--beta -1", "beta=-1.0: beta must not start below 0"),
    "long warm-up": ("--warm-up 1000", "the warm-up of 1000 steps is longer than the run of 1 steps"),
    "unknown compile": ("--compile yes", "unknown compile 'yes': choose one of auto, on, off"),
    "large batch": (
        "--batch-size 5000",
        "batch_size=5000 is larger than the data (1437 rows)",
    ),
    "unknown data": ("--data mnits", "unknown data 'mnits'"),
    "unknown binarization": (
        "--binarize sometimes",
        "unknown binarize 'sometimes': choose one of auto, none, dynamic, static",
    ),
    "impossible split": ("--valid 5000", "valid=5000 leaves nothing to train on"),
    "occupied folder": (
        "--out run",
        "run already holds a run: go on with it with --resume, or choose another folder",
    ),
    "folder that is a file": ("--out good.npy", "good.npy is a file: choose another folder"),
    "folder with other files": ("--out .", ". is not empty and holds no run"),
    "resume nowhere": ("--resume", "--resume needs the run folder: --out DIR"),
    "resume something else": ("--resume --out run --model.z_dim 3", "run was trained with another model"),
    "resume otherwise": (
        "--resume --out run --model.z_dim 2 --model.hidden 16 --clip-norm 1",
        "run was trained with clip_norm=None, not 1.0",
    ),
    "unknown config": ("--config gone.yaml", "there is no config file gone.yaml"),
    "unknown recipe": ("--config vae-imagenet", "unknown recipe 'vae-imagenet'"),
    "no config": ("--config", "--config needs a file or the name of a recipe"),
    "config of an unknown key": (
        "--config unknown.yaml",
        "the config file has the unknown key 'epoch': did you mean epochs?",
    ),
    "config of an unknown field": ("--config field.yaml", "the config file has the unknown key 'model.zdim'"),
    "config of a wrong kind": ("--config kind.yaml", "--epochs: many is not of the kind int, null"),
    "config that is no YAML": ("--config text.yaml", "text.yaml: the configuration is not valid YAML"),
    "config that is a list": ("--config list.yaml", "list.yaml: the configuration is not a mapping"),
}


@pytest.mark.parametrize("case", USAGE)
def test_impossible_trainings_are_refused(here, case):
    words, line = USAGE[case]
    assert line in refused(2, "train", "vae", "--max-steps", 1, *words.split())


CONTENT = {
    "missing file": ("vae --data gone.npy", "gone.npy does not exist: correct the path"),
    "NaN": (
        "vae --data nan.npy",
        "x has 1 values that are NaN, infinite or beyond float32, the first (nan) in row 3 at (2, 1)",
    ),
    "text": ("vae --data words.npy", "is not numeric"),
    "damaged archive": ("vae --data broken.npz", "broken.npz cannot be read as arrays"),
    "unknown kind of file": ("vae --data unknown.yaml", "unknown.yaml is of no known type"),
    "another shape than declared": (
        "vae --model.x_shape 1,28,28",
        "the data's x has shape (1, 8, 8) per row, the program was made for (1, 28, 28)",
    ),
    "no guide": ("guideless.py", "guideless.py has a model but no guide: add a function guide"),
    "model file that fails": (
        "fails.py",
        "fails.py, line 1: ModuleNotFoundError: No module named 'no_such_module'",
    ),
    "no data on this machine": ("vae --data mnist --offline", "mnist is not on this machine"),
    "no classes": ("counts --data digits", "the program needs a field 'batch', the data has x"),
    "images for a table": (
        "counts --data groups.npz --batch-size 8",
        "rows of shape (1, 4, 4) are no vectors: give a table",
    ),
    "classes that are none": ("counts --data halves.npz", "the field 'batch' holds no classes"),
    "a table for codes": (
        "vqvae --data flat.npy --batch-size 8",
        "rows of shape (16,) are no images [C, H, W]",
    ),
    "images that four does not divide": (
        "vqvae --data odd.npy --batch-size 8",
        "images of 6 x 6: crop or pad them to multiples of 4",
    ),
    "a table for convolutions": (
        "vae --model.network conv --data flat.npy --batch-size 8",
        "rows of shape (16,) are no images [C, H, W]",
    ),
    "no field x": (
        "vae --data nox.npz --batch-size 8",
        "the program needs a field 'x', the data has a: give an .npz",
    ),
    "resume of no run": ("--resume --out gone", "gone does not exist"),
}


@pytest.mark.parametrize("case", CONTENT)
def test_wrong_content_is_refused(here, case, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "cache"))
    monkeypatch.setenv("PPL_VAE_DATA", str(here))
    words, line = CONTENT[case]
    assert line in refused(1, "train", *words.split(), "--max-steps", 1)


PROGRAMS = {
    "no program": ("", "name a program, such as vae, or a file of yours"),
    "unknown program": ("vea", "unknown model 'vea': did you mean vae?"),
    "missing program file": ("gone.py", "there is no model file gone.py"),
    "program without its ending": (
        "guideless",
        "unknown model 'guideless': for the file of this folder write guideless.py",
    ),
    "option of a run": (
        "--resume --out run --clip-norm 1",
        "--clip-norm is recorded in the run, which goes on with it: leave it out on --resume",
    ),
    "another way to compile": (
        "--resume --out run --compile on",
        "--compile is recorded in the run, which goes on with it: leave it out on --resume",
    ),
    "field of a run": (
        "--resume --out run --model.z_dim 1",
        "--model is recorded in the run, which goes on with it: leave it out on --resume",
    ),
}


FIELDS = {
    "linear_gaussian --model.sigma -1": "sigma=-1.0: a standard deviation is above 0",
    "vqvae --model.sigma 0": "sigma=0.0: a standard deviation is above 0",
    "vqvae --model.commitment -1": "commitment=-1.0: a penalty is not negative",
    "vqvae --model.hidden 1": "hidden=1: the outer layers have half as many channels",
    "counts --model.likelihood bernoulli": "unknown likelihood 'bernoulli': choose one of",
    "hvae --model.hidden 8": "need one number for each layer",
}


@pytest.mark.parametrize("words", FIELDS)
def test_impossible_fields_of_a_program_are_refused(here, words):
    assert FIELDS[words] in refused(2, "train", *words.split(), "--data", "digits", "--max-steps", 1)


@pytest.mark.parametrize("case", PROGRAMS)
def test_impossible_programs_are_refused(here, case):
    words, line = PROGRAMS[case]
    assert line in refused(2, "train", *words.split())


def test_an_option_like_no_other_is_refused_without_a_guess(here):
    assert refused(2, "train", "vae", "--bogus", 3).endswith("unknown option --bogus")


RUNS = {
    "no run": (2, "evaluate", "name the folder of a run"),
    "missing run": (1, "sample gone", "gone does not exist"),
    "no run folder": (1, "sample .", ". is not a run folder: it has no manifest.json"),
    "unknown split": (
        2,
        "evaluate run --split exam",
        "digits has no split 'exam': it has train, valid, test",
    ),
    "no samples": (
        2,
        "evaluate run --importance-samples 0",
        "importance_samples=0: give a whole number of at least 1",
    ),
    "no draws": (2, "sample run -n 0", "n=0: give a whole number of at least 1"),
    "draws beyond memory": (2, f"sample run -n {10**15}", "of which this machine's memory holds"),
    "samples beyond memory": (2, f"posterior run --num-samples {10**15}", "take num_samples of at most"),
    "samples beyond counting": (
        2,
        f"log_prob run --importance-samples {10**30}",
        f"importance_samples={10**30}: give a whole number of at most 2147483647",
    ),
    "no rows": (2, "encode run --rows 0", "rows=0: give a whole number of at least 1"),
    "no rows to score": (2, "evaluate run --rows 0", "rows=0: give a whole number of at least 1"),
    "negative seed": (2, "sample run --seed -1", "seed=-1: a seed is not negative"),
    "unknown device": (2, "sample run --device tpu", "unknown device 'tpu'"),
    "unknown option": (2, "encode run --spilt test", "unknown option --spilt: did you mean --split?"),
    "missing latents": (1, "decode run --latents gone.npz", "gone.npz does not exist"),
    "no latents": (2, "decode run", "name a file of latents: --latents z.npz"),
    "latents of another shape": (
        1,
        "decode run --latents good.npy",
        "latent 'z' has shape (4, 4) per row, the model's is (2,)",
    ),
    "missing model file": (2, "evaluate run --model-file gone.py", "there is no model file"),
    "model file without a guide": (1, "evaluate run --model-file guideless.py", "has a model but no guide"),
}


@pytest.mark.parametrize("case", RUNS)
def test_impossible_verbs_are_refused(here, case):
    code, words, line = RUNS[case]
    assert line in refused(code, *words.split())


@pytest.mark.parametrize("verb", ["evaluate", "encode", "reconstruct", "log_prob", "posterior"])
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("flat", "x has shape (16,) per row, the program was trained on (1, 8, 8)"),
        ("nan", "x has 1 values that are NaN"),
    ],
)
def test_wrong_rows_are_refused(here, verb, name, line):
    found = cli(verb, "run", "--data", f"{name}.npy")
    assert (found.code, found.out) == (1, "") and line in found.err[-1]


@pytest.mark.parametrize(
    "name", ["weights.safetensors", "state.pt", "config.yaml", "position.json", "manifest.json"]
)
def test_flipped_bits_are_refused(here, tmp_path, name):
    run = tmp_path / "run"
    shutil.copytree(here / "run", run)
    content = bytearray((run / name).read_bytes())
    content[len(content) // 2] ^= 4
    (run / name).write_bytes(content)
    before = contents(run)
    going_on, opening = (
        ("train", "--resume", "--out", run, "--max-steps", 5),
        ("sample", run, "--out", tmp_path / "s.npz"),
    )
    for words in {"state.pt": [going_on], "position.json": [going_on], "weights.safetensors": [opening]}.get(
        name, [going_on, opening]
    ):
        assert name in refused(1, *words)
    assert {path: content for path, content in contents(run).items() if path != ".lock"} == {
        path: content for path, content in before.items() if path != ".lock"
    }
    assert not (tmp_path / "s.npz").exists()


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(tmp_path):
    rows = np.random.default_rng(0).random((40, 4)).astype(np.float32)
    np.save(tmp_path / "x.npy", rows * 1e18)
    out = tmp_path / "run"
    found = cli(
        "train",
        "vae",
        *SMALL,
        "--data",
        tmp_path / "x.npy",
        "--model.likelihood",
        "normal_fixed",
        "--lr",
        1e30,
        "--batch-size",
        8,
        "--max-steps",
        50,
        "--log-every",
        1,
        "--out",
        out,
    )
    assert (found.code, found.out) == (1, "")
    assert "lower --lr, or set --clip-norm; check names a site that is so from the start" in found.err[-1]


@pytest.mark.parametrize("exists", [False, True])
def test_nothing_is_left_of_a_training_that_is_refused(here, tmp_path, exists):
    out = tmp_path / "new" / "run"
    if exists:
        out.mkdir(parents=True)
    negative = ("--data", "words.npy"), ("--data", "good.npy", "--model.likelihood", "poisson")
    for words in (*negative, ("--data", "good.npy", "--model.likelihood", "poisson", "--tensorboard")):
        found = cli("train", "vae", *SMALL, *words, "--max-steps", 1, "--out", out)
        assert (found.code, found.out) == (1, "")
        assert [path.name for path in tmp_path.rglob("*")] == (["new", "run"] if exists else [])


def test_a_folder_that_is_in_use_is_left_alone(here, tmp_path):
    from ppl_vae.store import RunFolder

    run = tmp_path / "run"
    shutil.copytree(here / "run", run)
    with RunFolder.open(run).lock():
        assert "is in use by process" in refused(1, "train", "--resume", "--out", run, "--max-steps", 5)
    assert Path(run, "manifest.json").read_bytes() == (here / "run" / "manifest.json").read_bytes()
