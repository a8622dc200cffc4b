"""Exported files compute what the program computes, without the library."""

import json
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from test_training import example

from ppl_vae import export, fit, load
from ppl_vae.api import exporting
from ppl_vae.backends.pyro import export as exports
from ppl_vae.errors import ProgramError, UsageError

PROGRAMS = ("vae", "hvae", "counts", "vqvae", "linear_gaussian")
X = (np.random.default_rng(0).random((40, 1, 4, 4)) < 0.4).astype(np.float32)
onnx = pytest.mark.skipif(
    not (find_spec("onnxscript") and find_spec("onnxruntime")), reason="the extra onnx is not installed"
)


def trained(name, **options):
    program, rows = example(name, 30)
    return fit(program, rows, max_steps=2, batch_size=8, **options), rows


@pytest.fixture(scope="module")
def run():
    return fit(load("vae", hidden=(8,), z_dim=2), X, max_steps=2, batch_size=8)


def called(path, rows, seed=0):
    torch.manual_seed(seed)
    module = torch.export.load(path).module()
    return {k: v.numpy() for k, v in module({k: torch.from_numpy(v) for k, v in rows.items()}).items()}


def first(rows, n):
    return {name: values[:n] for name, values in rows.items()}


@pytest.mark.parametrize("n", [1, 2, 7])
@pytest.mark.parametrize("name", PROGRAMS)
def test_encoder_and_decoder_are_the_runs_own(name, n, tmp_path):
    run, rows = trained(name)
    for what in ("encode", "decode"):
        export(run, tmp_path / f"{what}.pt2", what)
    found, expected = called(tmp_path / "encode.pt2", first(rows, n)), run.encode(first(rows, n))
    assert found.keys() == expected.keys()
    for site, value in expected.items():
        np.testing.assert_allclose(found[site], value, rtol=1e-5, atol=1e-6, err_msg=site)
    latents = {site: value for site, value in expected.items() if not site.endswith("_codes")}
    covariates = {field: values for field, values in first(rows, n).items() if field != "x"}
    centre = run.decode(latents, covariates=covariates)
    again = called(tmp_path / "decode.pt2", latents | covariates)
    assert again.keys() == centre.keys() == {"x"}
    np.testing.assert_allclose(again["x"], centre["x"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_score_is_the_runs_own_in_expectation(name, tmp_path):
    run, rows = trained(name)
    export(run, tmp_path / "score.pt2", "score")
    found = [called(tmp_path / "score.pt2", rows, seed) for seed in range(60)]
    ours = np.stack([run.score(rows, seed=seed).elbo for seed in range(60)])
    elbo = np.stack([one["elbo"] for one in found])
    np.testing.assert_allclose(elbo, -np.stack([one["rate"] + one["distortion"] for one in found]), rtol=1e-4)
    # Means of 60 draws differ by their standard errors; five of them, and the rounding of single precision.
    error = np.sqrt((elbo.var(0) + ours.var(0)) / 60)
    assert (np.abs(elbo.mean(0) - ours.mean(0)) < 5 * error + 1e-4 * np.abs(ours.mean(0))).all()


def test_a_file_needs_neither_the_library_nor_pyro(run, tmp_path):
    export(run, tmp_path / "z.pt2")
    np.save(tmp_path / "x.npy", X[:3])
    text = f"""
import sys
sys.modules["ppl_vae"] = sys.modules["pyro"] = None
import json, numpy, torch
files = {{"ppl_vae.json": ""}}
program = torch.export.load(r"{tmp_path / "z.pt2"}", extra_files=files)
x = torch.from_numpy(numpy.load(r"{tmp_path / "x.npy"}"))
print(json.dumps([program.module()({{"x": x}})["z"].tolist(), json.loads(files["ppl_vae.json"])]))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    found, about = json.loads(done.stdout)
    np.testing.assert_allclose(found, run.encode(X[:3])["z"], rtol=1e-5, atol=1e-6)
    assert about["inputs"] == {"x": {"shape": ["rows", 1, 4, 4], "dtype": "float32"}}
    assert about["outputs"] == {"z": {"shape": ["rows", 2], "dtype": "float32"}}
    assert (about["program"], about["what"], about["steps"]) == ("vae", "encode", 2)


def test_an_encoder_does_not_carry_the_decoder(tmp_path):
    run = fit(load("vae", hidden=(300,), z_dim=2), X, max_steps=1, batch_size=8)
    sizes = {what: export(run, tmp_path / f"{what}.pt2", what)["bytes"] for what in ("encode", "score")}
    decoder = sum(v.nbytes for n, v in run.bound.weights().items() if n.startswith("decoder"))
    assert sizes["score"] - sizes["encode"] > 0.9 * decoder


def test_the_run_is_as_it_was(run, tmp_path):
    before, noise = run.bound.weights(), torch.get_rng_state()
    run.bound.train()
    export(run, tmp_path / "z.pt2")
    assert run.bound.training
    run.bound.eval()
    assert torch.equal(torch.get_rng_state(), noise)
    for name, value in run.bound.weights().items():
        np.testing.assert_array_equal(value, before[name])


def test_a_file_that_computes_something_else_is_not_written(run, tmp_path, monkeypatch):
    reader = exports._reader

    def wrong(content, form):
        call = reader(content, form)
        return lambda batch: {name: value + 1e-3 for name, value in call(batch).items()}

    monkeypatch.setattr(exports, "_reader", wrong)
    with pytest.raises(ProgramError, match="computes another 'z' than the program: not written"):
        export(run, tmp_path / "z.pt2")
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_exported_is_refused(run, tmp_path, monkeypatch):
    (tmp_path / "there.pt2").write_bytes(b"mine")
    for path, options, message in (
        ("z.pt", {}, "ends in .pt2 or .onnx"),
        ("z.pt2", {"what": "dream"}, "what='dream': choose one of encode, decode, score"),
        ("there.pt2", {}, "exists and is not overwritten"),
        ("no/z.pt2", {}, "there is no folder"),
        ("z.onnx", {"what": "score"}, "export score as .pt2"),
    ):
        with pytest.raises(UsageError, match=message):
            export(run, tmp_path / path, **options)
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"install the extra: pip install 'ppl-vae\[onnx\]'"):
        export(run, tmp_path / "z.onnx")
    assert (tmp_path / "there.pt2").read_bytes() == b"mine"
    export(run, tmp_path / "there.pt2", overwrite=True)
    assert (tmp_path / "there.pt2").read_bytes() != b"mine"
    numpyro = fit(load("vae", hidden=(8,), z_dim=2), X, max_steps=1, batch_size=8, backend="numpyro")
    with pytest.raises(UsageError, match="a NumPyro run cannot be exported"):
        export(numpyro, tmp_path / "z.pt2")


def test_a_single_row_is_enough_to_compare_on(run, tmp_path):
    export(run, tmp_path / "z.pt2", data=X[:1])
    np.testing.assert_allclose(called(tmp_path / "z.pt2", {"x": X})["z"], run.encode(X)["z"], atol=1e-6)


@onnx
@pytest.mark.slow
@pytest.mark.parametrize("name", PROGRAMS)
def test_onnx_runtime_encodes_and_decodes_as_the_run(name, tmp_path):
    import onnxruntime

    run, rows = trained(name)
    for what in ("encode", "decode"):
        export(run, tmp_path / f"{what}.onnx", what)
    session = onnxruntime.InferenceSession(tmp_path / "encode.onnx")
    assert [given.name for given in session.get_inputs()] == [
        name for name in rows if name in ("x", "batch", "size")
    ]
    for n in (1, 3):
        expected = run.encode(first(rows, n))
        found = dict(
            zip([out.name for out in session.get_outputs()], session.run(None, first(rows, n)), strict=True)
        )
        for site, value in expected.items():
            np.testing.assert_allclose(found[site], value, rtol=1e-4, atol=1e-5, err_msg=site)
