"""Exported graphs give the run's own numbers at every batch size, with torch or ONNX Runtime alone."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from bound_runs import run_of
from command_line import SMALL, ok, refused
from exact import decoder, draw, evidence, posterior, weights
from exact import program as linear
from toys import Toy
from training_cases import example

from ppl_vae import Run, bind, data, evaluate, export, fit, load
from ppl_vae.api import exporting
from ppl_vae.backends.pyro import exporting as pyro_exporting
from ppl_vae.backends.pyro import graph_files
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.options import stream
from ppl_vae.program import PlainProgram
from ppl_vae.store import disk

PROGRAMS = ("vae", "counts", "vqvae")
LONG = ("topdown", "hvae", "linear_gaussian")
VERBS = ("encode", "decode", "score")
EXTRA = ("onnx", "onnxscript", "onnxruntime")
LACKING = pytest.mark.skipif(not all(map(find_spec, EXTRA)), reason="needs the extra onnx")
FILES = [".pt2", pytest.param(".onnx", marks=LACKING)]


def written(name, what, suffix):
    """Return a case; of a ladder of latents the short tests write what is most of it, in torch's own form."""
    short = name in PROGRAMS or (name, what, suffix) == ("topdown", "encode", ".pt2")
    marks = [LACKING] * (suffix == ".onnx") + [pytest.mark.slow] * (not short)
    return pytest.param(name, what, suffix, marks=marks)


SEEDED = stream(3, "score")


@pytest.fixture(scope="module")
def trained(request):
    program, rows = example(request.param, 40)
    run = fit(program, rows, max_steps=4, batch_size=15)
    return run, run.data.rows("train")


def opened(path):
    """Return the file as a function of arrays."""
    if path.suffix == ".pt2":
        module = torch.export.load(path).module()
        return lambda inputs: {
            name: value.numpy()
            for name, value in module(**{n: torch.from_numpy(v) for n, v in inputs.items()}).items()
        }
    import onnxruntime

    session = onnxruntime.InferenceSession(path)
    names = [one.name for one in session.get_outputs()]
    return lambda inputs: dict(zip(names, session.run(None, dict(inputs)), strict=True))


def theirs(run, what, rows):
    """Return what goes into a verb of the run, and what the run's own verb makes of it."""
    if what == "encode":
        return rows, run.encode(rows)
    if what == "score":
        scores = run.score(rows, seed=3)
        return rows, {"elbo": scores.elbo, "rate": scores.rate, "distortion": -scores.log_likelihood}
    latents = {name: value for name, value in run.encode(rows).items() if not name.endswith("_codes")}
    covariates = {name: value for name, value in rows.items() if name != "x"}
    return latents | covariates, run.decode(latents, covariates=covariates)


def close(found, expected):
    assert list(found) == list(expected)
    for name, value in expected.items():
        assert (found[name].shape, found[name].dtype) == (value.shape, value.dtype), name
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("trained", "what", "suffix"),
    [
        written(name, what, suffix)
        for name in (*PROGRAMS, *LONG)
        for what in VERBS
        for suffix in (".pt2", ".onnx")
    ],
    indirect=["trained"],
)
def test_a_file_gives_the_runs_own_numbers_at_every_batch_size(trained, what, suffix, tmp_path):
    run, rows = trained
    path = tmp_path / f"graph{suffix}"
    if suffix == ".onnx" and what == "score" and run.name != "vqvae":  # whose guide draws nothing
        with pytest.raises(UsageError, match="score draws random numbers, which .onnx cannot repeat"):
            export(run, path, what)
        assert not path.exists()
        return
    told = export(run, path, what)
    call = opened(path)
    for n in (1, 2, 3, 5, 8, 11, 17):  # 5 and 8 are also sizes of axes of a row, 11 is that of the example
        inputs, expected = theirs(run, what, {name: value[:n] for name, value in rows.items()})
        torch.manual_seed(SEEDED)
        close(call(inputs), expected)
    described = {
        part: {name: [str(value.dtype), "rows", *value.shape[1:]] for name, value in arrays.items()}
        for part, arrays in (("inputs", inputs), ("outputs", expected))
    }
    for part, arrays in described.items():
        assert {n: [one["dtype"], *one["shape"]] for n, one in told[part].items()} == arrays
    assert told["difference"] < 1e-3 and told["out"] == str(path)


@pytest.mark.parametrize("suffix", FILES)
def test_codes_are_among_what_encode_gives(suffix, tmp_path):
    program, rows = example("vqvae", 40)
    run = fit(program, rows, max_steps=20, batch_size=20, lr=1e-2)
    export(run, tmp_path / f"e{suffix}")
    found = opened(tmp_path / f"e{suffix}")({"x": rows["x"][:9]})
    codes = run.encode(rows["x"][:9])["z_codes"]
    np.testing.assert_array_equal(found["z_codes"], codes)
    np.testing.assert_array_equal(found["z"], run.bound.weights()["codebook.vectors"][codes])


def test_exact_answers_of_the_linear_gaussian_program(tmp_path):
    w, b = decoder()
    bound = bind(linear(), num_data=30)
    bound.load_weights(weights(w, b))
    rows = draw(30, w, b)
    found = data.of({"train": {"x": rows}}, valid=0, binarize="none")
    run = run_of(bound, found, found)
    for what in VERBS:
        export(run, tmp_path / f"{what}.pt2", what)
    matrix, offset, _ = posterior(w, b)
    z = opened(tmp_path / "encode.pt2")({"x": rows})["z"]
    np.testing.assert_allclose(z, rows @ matrix.T + offset, atol=1e-5)
    found = opened(tmp_path / "decode.pt2")({"z": z})["x"]
    np.testing.assert_allclose(found, z @ w.T + b, atol=1e-5)
    # With the exact posterior the bound is log p(x) whatever is drawn.
    np.testing.assert_allclose(
        opened(tmp_path / "score.pt2")({"x": rows})["elbo"], evidence(rows, w, b), atol=1e-4
    )


def test_score_is_that_of_evaluate_and_its_noise_is_fresh_at_every_call(tmp_path):
    program, rows = example("counts", 40)
    run = fit(program, rows, max_steps=4, batch_size=20)
    export(run, tmp_path / "s.pt2", "score")
    call, split = opened(tmp_path / "s.pt2"), run.data.rows("test")
    torch.manual_seed(SEEDED)
    found = call(split)
    expected = evaluate(run, "test", seed=3)["per_row"]
    for name in ("elbo", "rate"):  # the rate has its share of the global latents
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-6)
    assert (call(split)["elbo"] != call(split)["elbo"]).all()


ALONE = """
import json, sys


class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("ppl_vae", "pyro"):
            raise ImportError(name)


sys.meta_path.insert(0, Refuse())
import numpy, torch

for what in ("encode", "decode", "score"):
    about = {"ppl_vae.json": ""}
    module = torch.export.load(what + ".pt2", extra_files=about).module()
    found = module(**{name: torch.from_numpy(value) for name, value in numpy.load(what + ".npz").items()})
    assert not any(value.requires_grad for value in found.values())
    print(json.dumps([json.loads(about["ppl_vae.json"]), {name: v.tolist() for name, v in found.items()}]))
"""


def test_a_pt2_needs_torch_alone_and_tells_what_it_is(folder):
    program, rows = example("counts", 40)
    run, told = fit(program, rows, max_steps=4, batch_size=20), {}
    few = {name: value[:3] for name, value in run.data.rows("train").items()}
    for what in VERBS:
        told[what] = export(run, f"{what}.pt2", what)
        np.savez(f"{what}.npz", **theirs(run, what, few)[0])
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", ALONE]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, env=clean).stdout.splitlines()
    for what, (about, found) in zip(VERBS, map(json.loads, lines), strict=True):
        assert about.items() <= told[what].items()
        assert (about["program"], about["what"], about["binarize"]) == ("counts", what, "none")
        expected = theirs(run, what, few)[1]
        for name, value in expected.items():
            assert np.shape(found[name]) == value.shape
            if what != "score":  # which draws
                np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-5)


@LACKING
def test_an_onnx_file_tells_what_it_is(small, tmp_path):
    import onnxruntime

    told = export(small, tmp_path / "e.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "e.onnx")
    about = json.loads(session.get_modelmeta().custom_metadata_map["ppl_vae.json"])
    assert about.items() <= told.items() and about["program"] == "vae"
    assert [(one.name, one.shape) for one in session.get_inputs()] == [("x", ["rows", 6])]
    assert [(one.name, one.shape) for one in session.get_outputs()] == [("z", ["rows", 2])]
    assert str(Path(exporting.__file__).parent).encode() not in (tmp_path / "e.onnx").read_bytes()


def test_other_shapes_and_fields_are_refused_by_the_graph(tmp_path):
    program, rows = example("counts", 40)
    run = fit(program, rows, max_steps=1, batch_size=20)
    export(run, tmp_path / "e.pt2")
    module = torch.export.load(tmp_path / "e.pt2").module()
    good = {name: torch.from_numpy(value[:4]) for name, value in run.data.rows("train").items()}
    assert module(**dict(reversed(good.items())))["z"].shape == (4, 5)  # by name, in any order
    for wrong in (
        good | {"x": good["x"][:, :4]},
        good | {"batch": good["batch"][:3]},
        {"x": good["x"]},
        good | {"more": good["x"]},
    ):
        with pytest.raises((AssertionError, ValueError, RuntimeError, TypeError)):
            module(**wrong)


def test_a_file_holds_no_rows_no_paths_and_no_weights_but_its_own(tmp_path):
    rows = np.random.default_rng(0).random((40, 1, 4, 4)).astype("f")
    run = fit(load("vae", hidden=(300,), z_dim=2, likelihood="normal"), rows, max_steps=2, batch_size=20)
    noise, mode, before = torch.get_rng_state(), run.bound.training, run.bound.weights()
    for what in ("encode", "decode"):
        export(run, tmp_path / f"{what}.pt2", what)
        graph = torch.export.load(tmp_path / f"{what}.pt2")
        part = "encoder" if what == "encode" else "decoder"
        held = {name.removeprefix("bound.networks.") for name in graph.state_dict}
        assert held == {name for name in before if name.startswith(part)}
        content = (tmp_path / f"{what}.pt2").read_bytes()
        assert str(Path(exporting.__file__).parent).encode() not in content
        examples = list(graph.example_inputs[1].values())
        assert all(not value.any() for value in examples)
    assert torch.equal(torch.get_rng_state(), noise) and run.bound.training is mode
    assert all(parameter.requires_grad for parameter in run.bound.parameters())
    for name, value in run.bound.weights().items():
        np.testing.assert_array_equal(value, before[name])


@pytest.fixture(scope="module")
def small():
    return fit(load("vae", z_dim=2, hidden=(8,)), bits(), max_steps=1, batch_size=10)


def bits(n=30):
    return np.random.default_rng(0).integers(0, 2, (n, 6)).astype(np.float32)


def test_existing_files_are_kept_unless_asked(small, tmp_path):
    path = tmp_path / "e.pt2"
    path.write_text("precious")
    with pytest.raises(UsageError, match=r"e.pt2 exists and is not overwritten"):
        export(small, path)
    assert path.read_text() == "precious"
    export(small, path, overwrite=True)
    assert opened(path)({"x": bits(4)})["z"].shape == (4, 2)
    assert [one.name for one in tmp_path.iterdir()] == ["e.pt2"]


def test_a_file_that_appears_meanwhile_is_kept(small, tmp_path, monkeypatch):
    path, stage = tmp_path / "e.pt2", disk.stage

    def racing(part, content):
        path.write_bytes(b"precious")
        return stage(part, content)

    monkeypatch.setattr(disk, "stage", racing)
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        export(small, path)
    assert {one.name: one.read_bytes() for one in tmp_path.iterdir()} == {"e.pt2": b"precious"}


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_an_interrupted_write_leaves_what_was_there(small, tmp_path, monkeypatch, error):
    path = tmp_path / "e.pt2"
    path.write_text("old")

    def fail(*args):
        raise error

    monkeypatch.setattr(disk.os, "fsync", fail)
    with pytest.raises((RunError, KeyboardInterrupt)) as caught:
        export(small, path, overwrite=True)
    if isinstance(error, OSError):
        assert "No space left on device" in str(caught.value)
    assert {one.name: one.read_text() for one in tmp_path.iterdir()} == {"e.pt2": "old"}


@pytest.mark.parametrize(
    ("name", "what", "line"),
    [
        ("e.pt", "encode", r"a graph is no \.pt: name it \.pt2 or \.onnx"),
        ("e", "encode", "a graph is no file without a suffix: name it"),
        ("no/e.pt2", "encode", "there is no folder .*no: make it first"),
        ("e.pt2", "sample", "there is no graph of 'sample': choose encode, decode, score"),
    ],
)
def test_impossible_requests_are_refused(small, tmp_path, name, what, line):
    with pytest.raises(UsageError, match=line):
        export(small, tmp_path / name, what)
    assert not list(tmp_path.iterdir())


def test_onnx_without_its_libraries_names_the_extra(small, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_files, "find_spec", lambda name: None if "onnx" in name else True)
    with pytest.raises(UsageError, match=r"onnx, onnxscript, onnxruntime: pip install 'ppl-vae\[onnx\]'"):
        export(small, tmp_path / "e.onnx")


def test_a_run_on_numpyro_is_refused(tmp_path):
    bound = bind(load("vae", x_shape=(6,), z_dim=2, hidden=(8,)), "numpyro")
    run = run_of(bound, data.of(bits()))
    with pytest.raises(UsageError, match="graph of torch and the run is on numpyro: train .* backend pyro"):
        export(run, tmp_path / "e.pt2")


def test_plain_functions_are_refused(tmp_path):
    bound = PlainBound(PlainProgram(lambda x: None, lambda x: None), ("x",))
    run = run_of(bound, data.of(bits()))
    with pytest.raises(
        UsageError, match="<lambda> is plain Pyro, .*only a declared Program can be one graph"
    ):
        export(run, tmp_path / "e.pt2")


def test_a_loaders_run_asks_for_rows(tmp_path):
    x = torch.from_numpy(bits())
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x), batch_size=10)
    run = fit(load("vae", z_dim=2, hidden=(8,)), loader, max_steps=1)
    with pytest.raises(UsageError, match="data is not at hand: give rows to compare on as data="):
        export(run, tmp_path / "e.pt2")
    export(run, tmp_path / "e.pt2", data=bits(2))
    close(opened(tmp_path / "e.pt2")({"x": bits(4)}), run.encode(bits(4)))


def test_a_size_of_the_program_may_be_that_of_the_example(tmp_path):
    n = pyro_exporting.EXAMPLE
    rows = {"x": np.random.default_rng(0).normal(size=(n, n)).astype("f")}
    layers = {"z_dims": (n, n), "hidden": (n, n), "likelihood": "normal"}
    for name, fields in (("linear_gaussian", {"z_dim": n}), ("hvae", layers)):
        run = fit(load(name, **fields), rows, max_steps=1, batch_size=5)
        export(run, tmp_path / f"{name}.pt2")
        call = opened(tmp_path / f"{name}.pt2")
        for count in (n, n - 1):
            close(call({"x": rows["x"][:count]}), run.encode(rows["x"][:count]))


def test_the_decoder_has_a_gradient_for_latents(small, tmp_path):
    export(small, tmp_path / "d.pt2", "decode")
    z = torch.zeros(3, 2, requires_grad=True)
    torch.export.load(tmp_path / "d.pt2").module()(z=z)["x"].sum().backward()
    assert (z.grad != 0).any(1).all()


def test_without_data_rows_are_asked_for_and_any_will_do(small, tmp_path):
    run = Run(small.bound, None, small.record)
    with pytest.raises(UsageError, match="data is not at hand: give rows to compare on as data="):
        export(run, tmp_path / "e.pt2")
    export(run, tmp_path / "e.pt2", data=bits(1))  # one row is enough
    x = bits(7)
    close(opened(tmp_path / "e.pt2")({"x": x}), small.encode(x))


@dataclass(frozen=True)
class Branching(Toy):
    """Looks at values of the data."""

    def posterior(self, ppl, net, x):
        loc, scale = net.encoder(x)
        return ppl.dist.Normal(loc if x.mean() > 0.5 else -loc, scale).to_event(1)


@dataclass(frozen=True)
class Counting(Toy):
    """Makes the number of rows a number."""

    def posterior(self, ppl, net, x):
        loc, scale = net.encoder(x)
        return ppl.dist.Normal(loc / len(x), scale).to_event(1)


@pytest.mark.parametrize("program", [Branching, Counting])
def test_a_program_that_is_no_graph_is_refused_with_the_reason(program, tmp_path, capfd):
    run = fit(program(), bits(), max_steps=1, batch_size=10)
    with pytest.raises(ProgramError, match=rf"{program.__name__} is no single graph \(.+\): its Python"):
        export(run, tmp_path / "e.pt2")
    assert capfd.readouterr() == ("", "")  # torch itself would print the graph
    assert not list(tmp_path.iterdir())


CALLS = []


@dataclass(frozen=True)
class Remembering(Toy):
    """Counts its calls: a graph has the count of the call that made it."""

    def posterior(self, ppl, net, x):
        CALLS.append(0)
        loc, scale = net.encoder(x)
        return ppl.dist.Normal(loc + len(CALLS), scale).to_event(1)


def test_a_graph_that_gives_other_numbers_is_not_written(tmp_path):
    run = fit(Remembering(), bits(), max_steps=1, batch_size=10)
    with pytest.raises(ProgramError, match=r"other numbers than .* \('z' of 5 rows differs by \d"):
        export(run, tmp_path / "e.pt2")
    assert not list(tmp_path.iterdir())


def test_the_verb(folder):
    ok("train", "vae", *SMALL, "--max-steps", 3, "--out", "run")
    told = ok("export", "run", "e.pt2")
    assert (told["what"], told["out"], told["program"]) == ("encode", "e.pt2", "vae")
    assert told["inputs"] == {"x": {"dtype": "float32", "shape": ["rows", 1, 8, 8]}}
    assert told["outputs"] == {"z": {"dtype": "float32", "shape": ["rows", 2]}}
    ok("encode", "run", "--split", "test", "--out", "z.npz")
    rows = {"x": data.load("digits", binarize="dynamic").rows("test")["x"]}
    close(opened(Path("e.pt2"))(rows), dict(np.load("z.npz")))
    assert "e.pt2 exists and is not overwritten" in refused(2, "export", "run", "e.pt2")
    assert ok("export", "run", "e.pt2", "--what", "decode", "--overwrite")["what"] == "decode"
    np.save("x.npy", rows["x"][:3])
    ok("export", "run", "s.pt2", "--what", "score", "--data", "x.npy", "--seed", 5)
    assert "name the run and the file to write" in refused(2, "export", "run")
    assert "name it .pt2 or .onnx" in refused(2, "export", "run", "e.bin")
    assert "there is no folder no: make it first" in refused(2, "export", "run", "no/e.pt2")
    assert "'sample': choose encode" in refused(2, "export", "run", "f.pt2", "--what", "sample")
    assert "nothing" in refused(1, "export", "nothing", "f.pt2")


class Layered(torch.nn.Module):
    """An encoder with a layer that draws in training and is at rest afterwards, or is named like one."""

    def __init__(self, layer):
        super().__init__()
        self.layer, self.recurrent = layer, isinstance(layer, torch.nn.RNNBase)
        self.out = torch.nn.Linear(16 if self.recurrent else 8, 4)

    def forward(self, x):
        steps = self.layer(x[..., 0, :, :])
        return self.out((steps[0] if self.recurrent else steps).mean(-2))


LAYERS = {
    "dropout": lambda: torch.nn.Dropout(0.5),
    "alpha dropout": lambda: torch.nn.AlphaDropout(0.5),
    "gru": lambda: torch.nn.GRU(8, 16, batch_first=True),
    "lstm": lambda: torch.nn.LSTM(8, 16, batch_first=True),
    "transformer": lambda: torch.nn.TransformerEncoderLayer(8, 2, 16, 0.5, batch_first=True),
}


@dataclass(frozen=True)
class AtRest(Toy):
    layer: str = "dropout"
    noisy: bool = False
    backends = ("pyro",)

    def networks(self, nn):
        return {"e": Layered(LAYERS[self.layer]()), "d": nn.MLP(2, (16,), (1, 8, 8))}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.d(z), 0.3).to_event(3), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, raw = net.e(x).chunk(2, -1)
            if self.noisy:
                loc = loc + 0.0 * torch.randn_like(loc)  # what is drawn need not be seen
            ppl.sample("z", ppl.dist.Normal(loc, raw.exp()).to_event(1))


@pytest.mark.parametrize(
    ("layer", "suffix"),
    [
        *(pytest.param(layer, ".onnx", marks=LACKING) for layer in LAYERS),
        # A .pt2 keeps torch's own operators, so that one kind of them is enough for the short tests.
        *(pytest.param(one, ".pt2", marks=() if "drop" in one else pytest.mark.slow) for one in LAYERS),
    ],
)
def test_what_is_at_rest_is_written_whatever_its_operators_are_called(layer, suffix, tmp_path):
    rows = np.random.default_rng(0).random((12, 1, 8, 8)).astype("f")
    run = fit(AtRest(layer=layer), rows, max_steps=1, batch_size=6, compile="off")
    path = tmp_path / f"e{suffix}"
    export(run, path, what="encode")
    call = opened(path)
    for n in (1, 7):
        close(call({"x": rows[:n]}), run.encode(rows[:n]))


@LACKING
def test_what_draws_is_refused_as_onnx_even_where_the_draw_is_not_seen(tmp_path):
    rows = np.random.default_rng(0).random((12, 1, 8, 8)).astype("f")
    run = fit(AtRest(noisy=True), rows, max_steps=1, batch_size=6, compile="off")
    with pytest.raises(UsageError, match="encode draws random numbers"):
        export(run, tmp_path / "e.onnx", what="encode")
    assert export(run, tmp_path / "e.pt2", what="encode")["difference"] < 1e-6
