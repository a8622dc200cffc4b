"""What is defined in a session, a notebook's or a script's, is kept with its source and comes back without
it.
"""

import functools
import linecache
import subprocess
import sys
from dataclasses import dataclass, replace
from typing import Any

import nbformat
import numpy as np
import pyro
import pytest
import torch
from nbclient import NotebookClient

from ppl_vae import ELBO, Objective, Program, fit, gallery, load, open_run, session
from ppl_vae.api import resume
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.objectives import scheduled
from ppl_vae.program import PlainProgram

BACKENDS = ("pyro", "numpyro")
X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
SHORT = {"epochs": 2, "batch_size": 16}

IMPORTS = """
from dataclasses import dataclass
from typing import Any
import numpy as np
from ppl_vae import Program, Objective, fit
from ppl_vae import functions as unused
X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
"""
HELPERS = """
WIDTH, SCALES = 6, np.array([1.0, 0.5, 2.0, 1.0, 1.5], np.float32)
def widths():
    return (WIDTH,)
class Doubled:
    def __init__(self, by):
        self.by = by
doubled = Doubled(1)
doubled.by = 2.0
"""
CLASSES = """
@dataclass(frozen=True)
class Base(Program):
    x_shape: tuple[int, ...] | None = None
    z_dim: int = 2

@dataclass(frozen=True)
class Mine(Base):
    by: Any = doubled
    def networks(self, nn):
        sizes = widths()
        enc, dec = nn.MLP(self.x_shape, sizes, self.z_dim), nn.MLP(self.z_dim, sizes, self.x_shape)
        return {"enc": enc, "dec": dec}
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            loc = net.dec(z) * self.by.by
            ppl.sample("x", ppl.dist.Normal(loc, ppl.array(SCALES)).to_event(1), obs=x)
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.enc(x), ppl.array(1.0)).to_event(1))

class Halving:
    def __init__(self, start):
        self.start = start
    def __call__(self, step):
        return self.start * 0.5 ** (step // 3)
    def check_fits(self, max_steps):
        pass

@dataclass(frozen=True)
class Weighed(Objective):
    weigh: Any = None
    def loss(self, F, terms, scalars):
        return F.mean(terms.distortion + self.weigh(terms.rate))
"""
TRAIN = """
run = fit(Mine(z_dim=3), X, Weighed(lambda rate: rate * WIDTH), epochs=2, batch_size=16, lr=Halving(0.01),
          out={out!r}, backend={backend!r})
np.save({encoded!r}, run.encode(X)["z"])
"""


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A user's cache of one's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(one, other):
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def cells(folder, backend):
    places = {"out": str(folder / "run"), "encoded": str(folder / "z.npy"), "backend": backend}
    return [IMPORTS, HELPERS, CLASSES, TRAIN.format(**places)]


def in_kernel(folder, backend):
    # A cell's magic and a cell that fails do no harm.
    first, helpers, *others = cells(folder, backend)
    code = [first, "%matplotlib inline", "%%time\n" + helpers.lstrip(), "WIDTH = = 3", *others]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in code])
    NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        allow_errors=True,
        resources={"metadata": {"path": folder}},
    ).execute()
    failed = [out for cell in notebook.cells for out in cell.get("outputs", ()) if out.output_type == "error"]
    assert [out.ename for out in failed] == ["SyntaxError"], failed


def as_cells(folder, backend):
    space = {"__name__": "__console__"}
    for number, cell in enumerate(cells(folder, backend)):
        name = f"<cell {number} {folder}>"
        linecache.cache[name] = (len(cell), None, cell.splitlines(keepends=True), name)
        exec(compile(cell, name, "exec", dont_inherit=True), space)


def in_script(folder, backend):
    (folder / "script.py").write_text("\n".join(cells(folder, backend)))
    done = subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (folder / "script.py").unlink()


@pytest.mark.parametrize(
    ("session_of", "backend"),
    [
        (in_kernel, "pyro"),
        pytest.param(as_cells, "numpyro", marks=pytest.mark.slow),
        (as_cells, "pyro"),
        pytest.param(in_script, "pyro", marks=pytest.mark.slow),
    ],
)
def test_a_run_of_a_session_reopens_and_goes_on_without_it(tmp_path, session_of, backend, cache):
    session_of(tmp_path, backend)
    run = open_run(tmp_path / "run", data=X)
    assert np.array_equal(run.encode(X)["z"], np.load(tmp_path / "z.npy"))
    assert run.program.by.by == 2.0 and run.program.z_dim == 3
    going_on = resume(tmp_path / "run", data=X, epochs=3)
    rates = [row["lr"] for row in going_on.history if row["split"] == "train"]
    assert (rates[0], rates[-1], going_on.steps) == (0.01, 0.005, 6)
    # What the folder itself holds is read, and executed only where it is named.
    for kept in (cache / "ppl_vae/sources").iterdir():
        kept.unlink()
    with pytest.raises(
        RunError, match=r"'Mine' was defined in a session .*program=.*copy to read is .*model.py"
    ):
        open_run(tmp_path / "run", data=X)
    given = open_run(tmp_path / "run", data=X, model_file=tmp_path / "run/model.py")
    assert same(given.bound.weights(), going_on.bound.weights())
    with pytest.raises(RunError, match=r"objective .* session .*give it with objective="):
        resume(tmp_path / "run", data=X, epochs=4, lr=0.1, model_file=tmp_path / "run/model.py")


DECODER = torch.nn.Linear(2, 5)
OTHER = torch.nn.Linear(3, 5)


class Pair(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.encoder = torch.nn.Sequential(torch.nn.Linear(5, size), torch.nn.Linear(size, 2))

    def model(self, x):
        pyro.module("decoder", DECODER)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(DECODER(z), 1.0).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("pair", self)
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(self.encoder(x), 1.0).to_event(1))


PAIR = Pair(3)


def wide(x):
    pyro.module("decoder", OTHER)


@dataclass(frozen=True)
class Gaussian(Program):
    """With fields that text gives."""

    x_shape: tuple[int, ...] | None = None
    z_dim: int = 2

    def networks(self, nn):
        return {"enc": nn.MLP(self.x_shape, (), self.z_dim), "dec": nn.MLP(self.z_dim, (), self.x_shape)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Normal(net.dec(z), ppl.array(1.0)).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.enc(x), ppl.array(1.0)).to_event(1))


def test_functions_of_an_object_of_a_session_reopen_with_the_networks_that_they_name(tmp_path):
    run = fit((PAIR.model, PAIR.guide), X, out=tmp_path / "run", **SHORT)
    text = (tmp_path / "run/model.py").read_text()
    assert "PAIR = Pair(3)" in text and "DECODER = torch.nn.Linear(2, 5)" in text and "OTHER" not in text
    again = open_run(tmp_path / "run", data=X)
    assert again.program.model.__self__ is not PAIR
    assert np.array_equal(again.encode(X)["z"], run.encode(X)["z"])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_opens_with_a_program_that_its_weights_fit(tmp_path, backend):
    run = fit(Gaussian(z_dim=3), X, out=tmp_path / "run", backend=backend, **SHORT)
    for given in (Gaussian, Gaussian(z_dim=3)):
        assert same(open_run(tmp_path / "run", program=given).encode(X), run.encode(X))
    with pytest.raises(RunError, match="weights do not fit"):
        open_run(tmp_path / "run", program=Gaussian(z_dim=2))
    with pytest.raises(ProgramError, match="declared Program, and plain is a pair of functions"):
        open_run(tmp_path / "run", program=PlainProgram(len, len, backend=backend))
    with pytest.raises(ProgramError, match="is no program: give a Program"):
        open_run(tmp_path / "run", program=PAIR)


def test_weights_of_another_shape_are_refused_for_plain_functions_too(tmp_path):
    fit((PAIR.model, PAIR.guide), X, out=tmp_path / "run", **SHORT)
    narrow = Pair(1)
    other = open_run(tmp_path / "run", program=(narrow.model, narrow.guide))
    with pytest.raises(RunError, match=r"weights do not fit plain: pair\$\$\$encoder.*differ in shape"):
        other.encode(X)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_run_in_memory_is_saved_and_a_saved_one_is_copied(tmp_path, backend):
    run = fit(Gaussian(), X, ELBO(beta=0.5), backend=backend, **SHORT)
    run.save(tmp_path / "saved")
    opened = open_run(tmp_path / "saved", data=X)
    assert same(opened.bound.weights(), run.bound.weights()) and opened.history == run.history
    with pytest.raises(UsageError, match="already holds a run"):
        run.save(tmp_path / "saved")
    with pytest.raises(RunError, match="without a checkpoint, as Run.save writes one from memory"):
        resume(tmp_path / "saved", data=X, epochs=3)
    kept = fit(Gaussian(), X, ELBO(beta=0.5), backend=backend, out=tmp_path / "kept", **SHORT)
    kept.save(tmp_path / "copy")
    names = {path.name for path in (tmp_path / "kept").iterdir()} - {"manifest.json", ".lock"}
    for name in names:
        assert (tmp_path / "copy" / name).read_bytes() == (tmp_path / "kept" / name).read_bytes()
    going_on = resume(tmp_path / "copy", data=X, epochs=3)
    assert same(going_on.bound.weights(), resume(tmp_path / "kept", data=X, epochs=3).bound.weights())


def test_a_copy_of_a_run_opened_with_a_program_holds_that_program(tmp_path, cache):
    fit(load("linear_gaussian", z_dim=2), X, out=tmp_path / "run", **SHORT)
    kind = type(load("linear_gaussian"))
    gallery._sources.pop(kind)  # as if a session had defined it
    open_run(tmp_path / "run", program=kind).save(tmp_path / "copy")
    assert open_run(tmp_path / "copy").record.program["origin"] == "session"
    assert "class LinearGaussian" in (tmp_path / "copy/model.py").read_text()


def local(number):
    big = np.zeros(20_000)

    class Local(Gaussian):
        def model(self, ppl, net, x=None):
            return big, number

    class Small(Gaussian):
        def model(self, ppl, net, x=None):
            return number

    return Local, Small


def test_a_program_without_source_is_warned_of_at_the_start(tmp_path, caplog):
    big, _ = local(1)
    source = gallery.source_of(big())
    assert source.origin == "python" and "an array of shape (20000,)" in source.lacking
    namespace = {"Gaussian": Gaussian}
    exec("class Hidden(Gaussian):\n    pass\n", namespace)
    made = dataclass(frozen=True)(namespace["Hidden"])
    fit(made(), X, out=tmp_path / "run", **SHORT)
    assert "does not keep the source of Hidden (the source of 'Hidden' is not to be had)" in caplog.text
    with pytest.raises(RunError, match=r"'Hidden' was defined in Python.* program="):
        open_run(tmp_path / "run")
    assert open_run(tmp_path / "run", program=made).steps == 4


def test_what_a_function_closes_over_is_part_of_its_source():
    _, small = local(7)
    text = gallery.source_of(small()).text
    assert "number = 7" in text and "class Small(Gaussian)" in text and "class Gaussian(Program)" in text


@dataclass(frozen=True)
class Priced(Objective):
    price: Any = None
    beta: Any = scheduled(1.0)

    def loss(self, F, terms, scalars):
        return F.mean(terms.distortion + self.price(terms.rate) * scalars["beta"])


def times(rate, by=1.0):
    return rate * by


class Ramp:
    def __init__(self, by):
        self.by = by

    def __call__(self, step):
        return self.by * step

    def check_fits(self, max_steps):
        pass


class Rising:
    __slots__ = ("by",)

    def __init__(self, by):
        self.by = by

    def __call__(self, step):
        return self.by * (step + 1)

    def check_fits(self, max_steps):
        pass


PRICES = {
    "partial": lambda: Priced(functools.partial(times, by=0.5)),
    "lambda": lambda: Priced(lambda rate: times(rate, 0.5), beta="linear:0:1:2"),
    "two lambdas": lambda: [Priced(lambda rate: rate * 0.5), Priced(lambda rate: rate * 0.25)][1],
    "function": lambda: Priced(times),
    "a library's": lambda: ELBO(beta=Ramp(0.25)),
}


@pytest.mark.parametrize(
    ("case", "backend"),
    [
        *((case, "pyro") for case in PRICES),
        *(pytest.param(case, "numpyro", marks=[pytest.mark.slow] * (case != "partial")) for case in PRICES),
    ],
)
def test_objectives_of_ones_own_objects_come_back(tmp_path, case, backend):
    made = PRICES[case]()
    program, options = load("linear_gaussian"), {"batch_size": 16, "backend": backend}
    fit(program, X, made, epochs=1, out=tmp_path / "run", **options)
    going_on = resume(tmp_path / "run", data=X, epochs=2)
    assert same(going_on.bound.weights(), fit(program, X, made, epochs=2, **options).bound.weights())


def test_what_has_no_source_is_refused_before_training(tmp_path):
    for options in ({"objective": Priced(eval("lambda rate: rate"))}, {"lr": Rising(1e-3)}):
        with pytest.raises(
            UsageError, match=r"cannot hold the (objective|schedule) .*: define it.*top level"
        ):
            fit("linear_gaussian", X, epochs=1, out=tmp_path / "run", **options)
        assert not (tmp_path / "run").exists()
        fit("linear_gaussian", X, max_steps=1, **options)  # in memory it trains


def test_a_session_source_is_that_of_the_objects_as_they_are_now():
    values = {
        "numbers": [1, 2.5, float("inf"), (3,), {"a": {1, 2}}, None, b"x"],
        "array": np.array([[1.0, np.nan]], np.float32),
        "scalar": np.float64(0.1),
        "tensor": torch.arange(3),
        "type": torch.float32,
        "shared": replace(ELBO(), beta=0.5),
        "call": functools.partial(times, by=3),
    }
    space: dict = {}
    for name, value in values.items():
        source = session.source(name, {"it": [times, value]})
        assert source.origin == "session", source.lacking
        exec(source.text, space)
        (_, made), kind = space["it"], type(value)
        assert type(made) is kind and (repr(made) == repr(value) or made(2) == value(2))


def test_a_text_that_begins_like_an_object_stays_with_the_program_of_a_file(tmp_path):
    text = (gallery.packaged() / "models/linear_gaussian.py").read_text()
    path = tmp_path / "noted.py"
    path.write_text(text.replace("    z_dim: int", '    note: str = "none"\n    z_dim: int', 1))
    fit(load(path, note="<s>"), X, max_steps=1, out=tmp_path / "run")
    assert open_run(tmp_path / "run").program.note == "<s>"
    assert open_run(tmp_path / "run", program=path).program.note == "<s>"
    assert open_run(tmp_path / "run", model_file=path).program.note == "<s>"
