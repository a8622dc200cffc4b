"""encode, decode, sample, reconstruct, log_prob, posterior, check and the tools."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, cli, contents, ok, refused
from PIL import Image

from ppl_vae import evaluate, open_run
from ppl_vae.cli import tool_doctor

PLAIN = '''
"""A plain Pyro file."""
import pyro, torch
import pyro.distributions as dist

decoder, encoder = torch.nn.Linear(2, 64), torch.nn.Linear(64, 4)


def model(x, y=None):
    pyro.module("decoder", decoder)
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(len(x), 2), 1.0).to_event(1))
        pyro.sample("x", dist.Bernoulli(logits=decoder(z), validate_args=False).to_event(1), obs=x.flatten(1))


def guide(x, y=None):
    pyro.module("encoder", encoder)
    with pyro.plate("rows", len(x)):
        loc, log_scale = encoder(x.flatten(1)).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
'''


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "first"
    ok("train", "vae", *SMALL, "--max-steps", 20, "--out", path)
    return path


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def arrays(path):
    with np.load(path) as file:
        return dict(file)


def equal(found, expected):
    assert set(found) == set(expected)
    for name in found:
        np.testing.assert_array_equal(found[name], expected[name])


def test_data_of_another_kind_than_the_run_was_made_with_is_still_taken_whole(run, tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).integers(0, 2, (40, 8, 8)).astype(np.uint8))
    mine = tmp_path / "run"
    ok("train", "vae", *SMALL[:0], "--data", tmp_path / "mine.npy", "--kind", "image", "--batch-size", 10,
       "--max-steps", 2, "--out", mine)  # fmt: skip
    other = np.random.default_rng(1).integers(0, 2, (30, 1, 8, 8)).astype(np.float32)
    np.save(tmp_path / "other.npy", other)
    assert ok("evaluate", mine, "--data", tmp_path / "other.npy")["n"] == 30
    found = cli("evaluate", mine, "--data", "digits")  # grey levels are no bits
    assert found.code == 1 and "outside the support" in found.err[-1]


def test_evaluation_of_the_first_rows_is_that_of_the_split_cut_off(run):
    whole, few = (ok("evaluate", run, *words) for words in ((), ("--rows", 7)))
    assert (whole["n"], few["n"]) == (180, 7)
    assert whole["out"] != few["out"]
    np.testing.assert_allclose(few["elbo_nats"], evaluate(open_run(run), rows=7)["elbo_nats"], rtol=1e-6)


def test_encode_and_decode_are_those_of_the_run(run, tmp_path):
    opened, z, x = open_run(run), tmp_path / "z.npz", tmp_path / "x.npz"
    rows = opened.data.rows("valid")
    result = ok("encode", run, "--split", "valid", "--out", z)
    assert (result["arrays"], result["split"], result["out"], result["picture"]) == (
        {"z": [180, 2]},
        "valid",
        str(z),
        None,
    )
    equal(arrays(z), opened.encode(rows))
    ok("encode", run, "--split", "valid", "--draw", "--seed", 3, "--rows", 5, "--out", z, "--overwrite")
    equal(arrays(z), opened.encode({name: values[:5] for name, values in rows.items()}, draw=True, seed=3))
    result = ok("decode", run, "--latents", z, "--out", x)
    equal(arrays(x), opened.decode(arrays(z)))
    assert pixels(result["picture"]).shape == (8, 5 * 9 - 1)
    np.save(tmp_path / "z.npy", arrays(z)["z"])
    assert ok("decode", run, "--latents", tmp_path / "z.npy")["out"] == str(run / "decoded.npz")
    equal(arrays(run / "decoded.npz"), arrays(x))


def test_sample_and_decode_its_latents(run, tmp_path):
    out = tmp_path / "s.npz"
    result = ok("sample", run, "-n", 10, "--seed", 4, "--out", out)
    found = arrays(out)
    equal(found, open_run(run).sample(10, seed=4))
    assert set(found) == {"z", "x", "x_mean"} and result["n"] == 10
    assert pixels(tmp_path / "s.png").shape == (2 * 9 - 1, 8 * 9 - 1)
    ok("decode", run, "--latents", out)
    np.testing.assert_allclose(arrays(run / "decoded.npz")["x"], found["x_mean"], atol=1e-6)
    assert ok("sample", run)["out"] == str(run / "samples.npz")
    assert ok("sample", run, "-n", 3)["n"] == 3  # a file of the run's own is made anew


def test_reconstruct_puts_originals_above(run, tmp_path):
    opened, out = open_run(run), tmp_path / "r.npz"
    result = ok("reconstruct", run, "--rows", 20, "--out", out)
    found, rows = arrays(out), {name: values[:20] for name, values in opened.data.rows("test").items()}
    equal(found, {"x": rows["x"], "x_mean": opened.reconstruct(rows)["x"]})
    picture = pixels(result["picture"])
    assert picture.shape == (
        4 * 9 - 1,
        8 * 9 - 1,
    )  # two lines of eight, each original above its reconstruction
    np.testing.assert_array_equal(picture[:8, :8], np.round(255 * found["x"][0, 0]))
    np.testing.assert_array_equal(picture[9:17, 9:17], np.round(255 * found["x_mean"][1, 0].astype(float)))


def test_log_prob(run):
    result = ok("log-prob", run, "--importance-samples", 7, "--rows", 9)
    found = arrays(run / "log_prob-test.npz")["log_prob"]
    assert found.shape == (9,) and result["k"] == 7
    assert result["iw_nats"] == pytest.approx(found.mean()) and result["k"] == 7
    assert result["iw_stderr"] == pytest.approx(found.std(ddof=1) / 3)


@pytest.mark.parametrize("verb", ["encode", "decode", "sample", "reconstruct", "log_prob", "posterior"])
def test_nothing_that_a_person_named_is_overwritten(run, tmp_path, verb):
    np.save(tmp_path / "z.npy", np.zeros((1, 2), np.float32))
    ending = ".nc" if verb == "posterior" else ".npz"
    kept, picture = tmp_path / f"kept{ending}", tmp_path / "other.png"
    kept.write_text("precious")
    picture.write_text("precious")
    more = ("--latents", tmp_path / "z.npy") if verb == "decode" else ()
    before = contents(tmp_path) | contents(run)
    assert f"kept{ending} exists and is not overwritten" in refused(2, verb, run, *more, "--out", kept)
    if verb in ("decode", "sample", "reconstruct"):
        assert "other.png exists" in refused(2, verb, run, *more, "--out", tmp_path / "other.npz")
    assert f"give a name that ends in {ending}" in refused(2, verb, run, *more, "--out", tmp_path / "x.txt")
    assert "there is no folder" in refused(2, verb, run, *more, "--out", tmp_path / "no" / f"x{ending}")
    assert contents(tmp_path) | contents(run) == before


def test_posterior_opens_in_arviz(run, tmp_path):
    arviz = pytest.importorskip("arviz")
    result = ok(
        "posterior",
        run,
        "--method",
        "importance",
        "--num-samples",
        6,
        "--rows",
        4,
        "--out",
        tmp_path / "p.nc",
    )
    assert (result["n"], result["num_samples"], result["method"]) == (4, 6, "importance")
    found = arviz.from_netcdf(tmp_path / "p.nc")
    assert dict(found.posterior.sizes) == {"chain": 1, "draw": 6, "data": 4, "z_dim_0": 2}
    assert set(result["groups"]) >= {"posterior", "log_likelihood", "observed_data", "sample_stats", "prior"}
    assert ok("posterior", run, "--num-samples", 2, "--rows", 2)["out"] == str(
        run / "posterior-test-guide.nc"
    )
    assert "unknown method 'nuts'" in refused(2, "posterior", run, "--method", "nuts")


def test_posterior_of_a_run_on_numpyro(tmp_path):
    arviz, run = pytest.importorskip("arviz"), tmp_path / "run"
    ok("train", "vae", *SMALL, "--max-steps", 2, "--backend", "numpyro", "--out", run)
    result = ok("posterior", run, "--method", "importance", "--num-samples", 3, "--rows", 4)
    found = arviz.from_netcdf(result["out"])
    assert dict(found.posterior.sizes) == {"chain": 1, "draw": 3, "data": 4, "z_dim_0": 2}
    assert found.posterior_predictive["x"].shape == (1, 3, 4, 1, 8, 8)
    assert found.attrs["inference_library"] == "numpyro"


def test_a_program_with_covariates(folder):
    rng = np.random.default_rng(0)
    np.savez(
        "c.npz", x=rng.poisson(4, (60, 5)), batch=rng.integers(0, 2, 60), size=np.full(60, 0.5, np.float32)
    )
    words = ("--model.z_dim", 2, "--model.hidden", "8", "--progress", "false")
    assert (
        ok(
            "train", "counts", "--data", "c.npz", "--max-steps", 4, "--batch-size", 20, *words, "--out", "run"
        )["binarize"]
        == "none"
    )
    assert "Not shown" not in Path("run/report.html").read_text()
    drawn = {"z": [100, 2], "x": [100, 5], "x_mean": [100, 5], "batch": [100], "size": [100]}
    assert ok("sample", "run", "-n", 100)["arrays"] == drawn
    np.savez("more.npz", batch=np.zeros(3, np.int64), size=np.ones(3, np.float32))
    given = ok("sample", "run", "-n", 3, "--covariates", "more.npz", "--out", "s.npz")
    assert given["picture"] is None and not Path("s.png").exists()
    assert ok("decode", "run", "--latents", "s.npz", "--covariates", "more.npz")["arrays"] == {"x": [3, 5]}
    assert ok("reconstruct", "run", "--out", "r.npz")["arrays"] == {"x": [6, 5], "x_mean": [6, 5]}
    # Data that has moved is named, where covariates of its rows are wanted too.
    Path("c.npz").rename("moved.npz")
    assert "say where it lies now with --data" in refused(1, "sample", "run", "-n", 4)
    again = ok("sample", "run", "-n", 100, "--data", "moved.npz", "--out", "again.npz")
    np.testing.assert_array_equal(arrays("again.npz")["x"], arrays("run/samples.npz")["x"])
    assert again["arrays"] == drawn
    Path("moved.npz").rename("c.npz")
    Path("one.csv").write_text("batch,size\n1,2.5\n")
    for one in ("batch=1,size=2.5", "one.csv"):
        ok("sample", "run", "-n", 3, "--covariates", one, "--out", "o.npz", "--overwrite")
        assert arrays("o.npz")["batch"].tolist() == [1] * 3 and arrays("o.npz")["size"].tolist() == [2.5] * 3
    assert "takes no 'sizes'" in refused(2, "sample", "run", "--covariates", "batch=1,sizes=2")
    assert "NAME=VALUE ... (values with commas in a file)" in refused(
        2, "sample", "run", "--covariates", "batch="
    )
    assert "'batch' is given twice" in refused(2, "sample", "run", "--covariates", "batch=1,batch=0")
    twice = ("--covariates", "batch=1", "--covariates", "size=1")
    assert "--covariates is given twice: once is enough" in refused(2, "sample", "run", *twice)
    every = ok("log_prob", "run", "--split", "all", "--rows", 50, "--importance-samples", 2)
    assert every["arrays"] == {"log_prob": [50]} and every["out"].endswith("log_prob-all.npz")
    # Latents that were encoded decode with the covariates of their own rows.
    assert ok("encode", "run", "--out", "z.npz")["binarize"] == "none"
    ok("decode", "run", "--latents", "z.npz", "--out", "d.npz")
    np.testing.assert_allclose(arrays("d.npz")["x"], arrays("r.npz")["x_mean"], rtol=1e-5)


def test_plain_pyro(folder):
    Path("plain.py").write_text(PLAIN)
    assert (
        ok(
            "train",
            "plain.py",
            "--data",
            "digits",
            "--max-steps",
            3,
            "--progress",
            "false",
            "--binarize",
            "static",
            "--out",
            "run",
        )["program"]
        == "plain"
    )
    assert ok("evaluate", "run", "--importance-samples", 3)["n"] == 180
    assert ok("encode", "run")["arrays"] == {"z": [180, 2], "y": [180]}
    Path("plain.py").rename("elsewhere.py")
    assert "plain.py is gone: name the file with --model-file" in refused(1, "evaluate", "run")
    assert ok("evaluate", "run", "--model-file", "elsewhere.py")["n"] == 180
    assert "plain has no field 'z_dim'" in refused(2, "train", "elsewhere.py", "--model.z_dim", 3).replace(
        "elsewhere has", "plain has"
    )


def test_copy_edit_check_train(folder):
    assert ok("copy", "vae", "my.py") == {"name": "vae", "path": "my.py"}
    assert refused(2, "copy", "vae", "my.py").endswith(
        "my.py exists and is not overwritten: choose another name"
    )
    assert "say what to copy" in refused(2, "copy")
    text = Path("my.py").read_text()
    Path("my.py").write_text(
        text.replace(
            "loc, scale = net.encoder(x)", "loc, scale = net.encoder(x)\n            loc = loc - loc.mean(0)"
        )
    )
    found = cli("check", "my.py", "--data", "digits", "--model.z_dim", 2, "--model.hidden", 8)
    assert found.code == 1 and found.result["ok"] is False
    assert "rows" in [one["name"] for one in found.result["findings"] if one["status"] == "failed"]
    Path("my.py").write_text(text)
    assert ok("check", "my.py", "--data", "digits", "--model.z_dim", 2, "--model.hidden", 8)["ok"] is True
    assert ok("train", "my.py", *SMALL, "--max-steps", 1)["out"] == "runs/my-digits"


MIXTURE = """z = ppl.sample("z", two_bumps(ppl, self.z_dim))"""
TWO_BUMPS = """

def two_bumps(ppl, dims):
    means = ppl.array([[-1.0] * dims, [1.0] * dims])
    parts = ppl.dist.Normal(means, 0.5).to_event(1)
    return ppl.dist.MixtureSameFamily(ppl.dist.Categorical(logits=ppl.array([0.0, 0.0])), parts)
"""


def test_a_copy_with_a_mixture_as_prior_is_a_program_and_a_decoder_that_averages_is_caught(folder):
    ok("copy", "vae", "my.py")
    text, prior = Path("my.py").read_text(), 'z = ppl.sample("z", ppl.standard_normal(self.z_dim))'
    assert prior in text
    Path("my.py").write_text(text.replace(prior, MIXTURE) + TWO_BUMPS)
    small = ("--model.z_dim", 2, "--model.hidden", 8)
    assert ok("check", "my.py", "--data", "digits", *small)["ok"] is True
    for backend in ("pyro", "numpyro"):
        words = (*SMALL, "--max-steps", 30, "--backend", backend, "--out", backend)
        assert ok("train", "my.py", "--data", "digits", *words)["steps"] == 30
        assert ok("evaluate", backend, "--importance-samples", 5)["n"] == 180
    Path("averaging.py").write_text(text.replace("net.decoder(z)", "net.decoder(z + z.mean(0))"))
    found = cli("check", "averaging.py", "--data", "digits", *small)
    assert found.code == 1
    assert "rows" in [one["name"] for one in found.result["findings"] if one["status"] == "failed"]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to read a peak of memory")
@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_five_thousand_samples_per_row_fit_in_two_gigabytes(folder, backend):
    np.save("x.npy", np.random.default_rng(0).integers(0, 2, (60, 28, 28), dtype=np.uint8))
    words = (*SMALL, "--data", "x.npy", "--max-steps", 1, "--batch-size", 8)
    ok("train", "vae", *words, "--backend", backend, "--out", "run")
    # All at once, the logits of six rows would take 19 KB x 5,000 x 6 x 4 passes = 380 MB a tensor.
    # The peak of this process alone: `ru_maxrss` would start from that of the process that began it.
    script = (
        "import sys; from ppl_vae.cli import main; "
        "main(['evaluate', 'run', '--split', 'train', '--importance-samples', '5000']); "
        "print([line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')][0])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 2 * 2**20  # KiB


def test_list_and_data():
    listed = ok("list")
    assert {"vae", "counts", "hvae", "vqvae", "linear_gaussian"} <= {
        entry["name"] for entry in listed["models"]
    }
    assert {"train", "evaluate", "posterior"} <= set(listed["scripts"])
    assert {entry["name"]: entry["where"] for entry in ok("data", "list")["data"]}["digits"] == "built in"
    assert ok("data", "fetch", "digits")["fetched"][0]["verified"] is True
    assert ok("data", "info", "digits")["rows"] == {"train": 1437, "valid": 180, "test": 180}
    assert "say what to do" in refused(2, "data", "frobnicate")
    assert "name a data set" in refused(2, "data", "info")
    assert "unknown data 'digts'" in refused(2, "data", "info", "digts")


def test_doctor(monkeypatch):
    monkeypatch.setattr(tool_doctor, "_installed", lambda: ["pyro"])
    found = ok("doctor")
    assert found["backends"]["pyro"]["ok"] is True and found["versions"]["python"] == ".".join(
        map(str, sys.version_info[:3])
    )
    assert found["data"]["digits"] == "built in" and found["cpus"] >= 1
