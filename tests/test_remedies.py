"""Each remedy that a message about a program, an objective or an option names is carried out."""

import re
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import pytest
import torch
from plain_pyro import guide as plain_guide
from plain_pyro import model as plain_model
from remedies import GAPS, SMALL, Case, Masked, Normal, Toy, X, short, trained

from ppl_vae import (
    ELBO,
    IWAE,
    STL,
    Network,
    Objective,
    bind,
    check,
    data,
    evaluate,
    likelihoods,
    load,
    posterior,
    schedules,
)
from ppl_vae.backends import backend as backend_named
from ppl_vae.backends.common.reading import settled
from ppl_vae.errors import PplVaeError
from ppl_vae.objectives import Loss, make, parse
from ppl_vae.options import Training
from ppl_vae.report.grid import image_grid as grid
from ppl_vae.scalars import Plan
from ppl_vae.schedules import as_schedule

BACKENDS = ("pyro", "numpyro")
STOCK = {  # for each backend: program, message, the objective that it names
    "graph": ("", "site 'k' has no reparametrised draw: use {}.infer.TraceGraph_ELBO", "TraceGraph_ELBO"),
    "enum": ("enumerated", "site 'k' is enumerated: use {}.infer.TraceEnum_ELBO", "TraceEnum_ELBO"),
}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", STOCK)
def test_the_stock_objective_that_a_message_names_trains(backend, case):
    fault, message, name = STOCK[case]
    with pytest.raises(PplVaeError, match=message.format(backend)):
        short(Toy(fault=fault), backend=backend)
    named = f"{backend}.infer.{name}"
    run = short(Toy(fault=fault), objective=named, backend=backend)
    assert np.isfinite(evaluate(run)["elbo_nats"])


normal = cache(trained)
GREY = np.random.default_rng(1).random((20, 2)).astype("f")
LEVELS = (np.arange(20 * 16).reshape(20, 16) % 256 / 255).astype("f")
COUNTS = np.arange(40).reshape(20, 2) % 7
IMAGES = (np.arange(20 * 64).reshape(20, 1, 8, 8) % 256).astype(np.uint8)
KINDS = np.arange(20) % 2
WIDE = np.random.default_rng(2).integers(0, 2**20, (20, 2))


def vae(likelihood, found, **options):
    return short(load("vae", **SMALL, likelihood=likelihood), data.of(found, **options))


COLOURS = {
    "x": np.zeros((20, 3, 2, 2), np.uint8) + np.uint8(200),
    "mask": np.arange(240).reshape(20, 3, 2, 2) % 5 > 0,
}


def planned(fault):
    return Plan(Training(), ELBO(), Normal(fault=fault), 9)


@dataclass(frozen=True)
class Halving:
    total: int = 0

    def __call__(self, step):
        return 0.5**step

    def check_fits(self, max_steps):
        pass


@dataclass(frozen=True)
class Own(Objective):
    """`wrong` is what is wrong with what its loss gives."""

    wrong: str

    def loss(self, F, terms, scalars):
        value = F.mean(terms.distortion)
        if self.wrong == "rows":
            return terms.log_likelihood
        metrics = {"rows": terms.log_likelihood} if self.wrong == "metric" else {"mean": value}
        return Loss(value, {"elbo_nats": value} if self.wrong == "name" else metrics)


def signature(*names):
    """Make an objective whose loss takes parameters of some names."""
    space = {}
    exec(f"def loss({', '.join(names)}):\n    return 0.0", space)
    kind = type("Mine", (Objective,), {"loss": space["loss"]})
    return make(dataclass(frozen=True)(kind))


def undecorated(decorated):
    space = {"loss": lambda self, F, terms, scalars: 0.0, "__annotations__": {"a": float}, "a": 1.0}
    kind = type("Mine", (Objective,), space)
    return make(dataclass(frozen=True)(kind) if decorated else kind)


@dataclass(frozen=True)
class Layers(Network):
    """A network of one layer; `fault` is what is wrong with it."""

    fault: str = ""

    def layers(self, nn):
        name = "parameters" if self.fault == "taken" else "one"
        return {name: nn.Linear(2, 2), "kept": nn.Buffer(2)}

    def apply(self, F, net, x):
        if self.fault == "lost":
            net.keep(gone=x[0])
        return net.two(x) if self.fault == "absent" else net.one(x)


@dataclass(frozen=True)
class WithLayers(Normal):
    init: Any = "normal"

    def networks(self, nn):
        return {"w": Layers(self.fault), "a": nn.Parameter(3, init=self.init)}


def layers(fault="", **options):
    found = bind(WithLayers(x_shape=(2,), fault=fault, **options))
    return found.guide(found.put(X))


def file(text, name="mine.py"):
    Path(name).write_text(text)
    return load(str(Path(name).absolute()))


HEAD = "import pyro\nfrom dataclasses import dataclass\nfrom ppl_vae import Program, load\n"
MODEL, GUIDE = "def model(x):\n    pass\n", "def guide(x):\n    pass\n"
ONE = "@dataclass(frozen=True)\nclass {}(Program):\n    model = guide = lambda self, ppl, net, x=None: None\n"
BARE = ONE.format("One").partition("\n")[2]


def module(name, there):
    """Load a file that imports a module, which lies in another folder."""
    with pytest.MonkeyPatch.context() as patch:
        Path("lib").mkdir(exist_ok=True)
        Path("lib", f"{name}.py").write_text("")
        if there:
            patch.syspath_prepend("lib")
        return file(f"import {name}\n{HEAD}{ONE.format('One')}")


CASES = {
    # sites
    "latent of the model": Case(
        lambda: trained("model"), "has no site in the guide: sample it there, or observe it", trained
    ),
    "latent of the guide": Case(
        lambda: trained("guide"), "of the guide is not in the model: remove it, or sample it", trained
    ),
    "further plate": Case(
        lambda: short(Normal(fault="plate"), objective=IWAE(2)),
        ", or train with a stock ELBO and without validation rows",
        lambda: short(Normal(fault="plate"), data.of(X, valid=0, test=0), "Trace_ELBO"),
    ),
    "axis of a further plate": Case(
        lambda: short(Normal(fault="plate"), objective=IWAE(2)),
        ": make its axis part of the event with .to_event",
        lambda: short(Normal(fault="event"), objective=IWAE(2)),
    ),
    "hidden in several plates": Case(
        lambda: short(Crossed()),
        "draw them in the guide, or use a stock TraceEnum_ELBO without validation rows",
        lambda: short(Crossed(), data.of(X, valid=0, test=0), "TraceEnum_ELBO"),
    ),
    "axes": Case(lambda: trained("axes"), "into the event with .to_event(number of axes)", trained),
    "mask": Case(
        lambda: short(Normal(), data.of(GAPS, mask="nan")),
        "takes no mask: give its model and guide a parameter mask",
        lambda: (
            short(Masked(), data.of(GAPS, mask="nan")),
            short(Normal(), data.of(np.nan_to_num(GAPS))),
        ),
    ),
    "global weights": Case(
        lambda: trained("global").draws(X, 2, method="importance"),
        "is global: no weight belongs to one row alone; use method='guide'",
        lambda: trained("global").draws(X, 2, method="guide"),
    ),
    "global and IWAE": Case(
        lambda: short(Normal(fault="global"), objective=IWAE(2)),
        "importance weights per row are wrong for it; use the ELBO",
        lambda: short(Normal(fault="global"), objective=ELBO()),
    ),
    # options
    "class of an objective": Case(
        lambda: short(Normal(), objective=pyro.infer.Trace_ELBO),
        "is a class: give an object, Trace_ELBO()",
        lambda: short(Normal(), objective=pyro.infer.Trace_ELBO()),
    ),
    "no objective": Case(
        lambda: short(Normal(), objective=3),
        "is no objective: use ELBO(), IWAE(k) or another of ppl_vae, a callable, or ",
        lambda: [short(Normal(), objective=one) for one in (ELBO(), IWAE(2), pyro.infer.Trace_ELBO())],
    ),
    "batch size": Case(
        lambda: short(Normal(), batch_size=50),
        "choose a batch size (batch_size=...) of at most 16",
        lambda: short(Normal(), batch_size=16),
    ),
    "patience": Case(
        lambda: short(Normal(), data.of(X, valid=0), patience=1),
        "needs validation rows: hold some out with valid=... of the data, or leave it away",
        lambda: (short(Normal(), data.of(X, valid=4), patience=1), short(Normal(), data.of(X, valid=0))),
    ),
    "plateau": Case(
        lambda: short(Normal(), data.of(X, valid=0), lr="plateau:1e-3"),
        "needs validation rows: hold some out with valid=... of the data",
        lambda: short(Normal(), data.of(X, valid=4), lr="plateau:1e-3"),
    ),
    "other library": Case(
        lambda: short((plain_model, plain_guide), np.zeros((20, 6), "f"), backend="numpyro"),
        "only: choose backend='pyro'",
        lambda: short((plain_model, plain_guide), np.zeros((20, 6), "f"), backend="pyro"),
    ),
    "compile off": Case(
        lambda: short(Normal(), backend="numpyro", compile="off"),
        "NumPyro always compiles, leave it away",
        lambda: short(Normal(), backend="numpyro"),
    ),
    "no program": Case(
        lambda: short(3),
        "is no program: give a Program, a pair (model, guide), or a name or path",
        lambda: (short(Normal()), short((plain_model, plain_guide), np.zeros((20, 6), "f"))),
    ),
    "kind of option": Case(
        lambda: Training(weight_decay="x"),
        "weight_decay='x': give a number",
        lambda: Training(weight_decay=1),
    ),
    "whole number": Case(
        lambda: Training(epochs=0), ": give a whole number of at least 1", lambda: Training(epochs=1)
    ),
    "choice": Case(
        lambda: Training(optimizer="sgd"), "choose one of adam, adamw", lambda: Training(optimizer="adamw")
    ),
    "device": Case(
        lambda: Training(device="gpu"),
        ": choose auto, cpu, cuda or cuda:N",
        lambda: [Training(device=device) for device in ("auto", "cpu", "cuda", "cuda:1")],
    ),
    "betas": Case(
        lambda: Training(betas=(1.0, 0.9)),
        ": give two decays in [0, 1)",
        lambda: Training(betas=(0.0, 0.9)),
    ),
    "number of importance samples": Case(
        lambda: normal().score(X, 2**31),
        ": give a whole number of at most 2147483647",
        lambda: normal().score(X, 2),
    ),
    "large result": Case(
        lambda: normal().sample(2**31 - 1),
        ": take n of at most ",
        lambda: normal().sample(3),
    ),
    "many levels": Case(
        lambda: data.of(WIDE, levels=2**20),
        "round to fewer, or take the numbers as reals (divided, with the likelihood normal)",
        lambda: (
            data.of(WIDE // 2**8, kind="vector", levels=2**12),
            short(load("vae", **SMALL, likelihood="normal"), (WIDE / 2.0**20).astype("f")),
        ),
    ),
    # schedules
    "schedule": Case(
        lambda: as_schedule("linea:0:1:1000"),
        "write a number, linear:0:1:1000",
        lambda: [as_schedule(one) for one in (0.1, *re.findall(r"[a-z]+:[\w.:-]*\d", FORMS))],
    ),
    "function as a schedule": Case(
        lambda: as_schedule(lambda step: 0.5),
        ", or give an object with __call__(step) and check_fits(max_steps)",
        lambda: as_schedule(Halving()),
    ),
    "schedule of a class": Case(
        lambda: as_schedule("<Halving>"),
        "was an object of a class of Python: give it again",
        lambda: as_schedule(Halving()),
    ),
    "long schedule": Case(
        lambda: short(Normal(), objective=ELBO(beta="linear:0:1:9"), max_steps=8),
        "shorten the schedule or train longer",
        lambda: [
            short(Normal(), objective=ELBO(beta=f"linear:0:1:{steps}"), max_steps=longer)
            for steps, longer in ((8, 8), (9, 9))
        ],
    ),
    "schedules of a program": Case(
        lambda: planned("list"),
        "return a dict of numbers, schedules or their texts by name",
        lambda: planned(""),
    ),
    "plateau of a program": Case(
        lambda: planned("plateau"), "is for learning rates alone; choose another", lambda: planned("")
    ),
    "name of a scalar": Case(
        lambda: planned("lr"), "schedules 'lr', which the run does too: rename it", lambda: planned("")
    ),
    # objectives
    "text of an objective": Case(
        lambda: parse("elboo"),
        "rite elbo(",
        lambda: [parse(one) for one in re.findall(r"\w+\(.*?\)", "elbo(beta=1.0,warm_up=0) iwae(k=5)")],
    ),
    "open bracket": Case(
        lambda: parse("iwae(k=5"), "is not closed: write name(option=value,...)", lambda: parse("iwae(k=5)")
    ),
    "object in a text": Case(
        lambda: parse("elbo(beta=<Halving>)"), "give the objective as an object", lambda: ELBO(beta=Halving())
    ),
    "needed option": Case(lambda: make(Own), "needs wrong: write Own(wrong=...)", lambda: Own(wrong="")),
    "parameters of a loss": Case(
        lambda: signature("self", "terms"),
        ": write loss(self, F, terms, scalars)",
        lambda: signature("self", "F", "terms", "scalars"),
    ),
    "class without fields": Case(
        lambda: undecorated(False), "put @dataclass(frozen=True) above class Mine", lambda: undecorated(True)
    ),
    "loss of rows": Case(
        lambda: short(Normal(), objective=Own("rows")),
        "not one number: take the mean over rows",
        lambda: short(Normal(), objective=Own("")),
    ),
    "metric of rows": Case(
        lambda: short(Normal(), objective=Own("metric")),
        ": take the mean over rows",
        lambda: short(Normal(), objective=Own("")),
    ),
    "name of a metric": Case(
        lambda: short(Normal(), objective=Own("name")),
        "which the history holds already: rename it",
        lambda: short(Normal(), objective=Own("")),
    ),
    # networks
    "first values": Case(
        lambda: layers(init="gauss"),
        ": give a number, an array, normal, or normal:0.02",
        lambda: [layers(init=init) for init in (0.5, np.zeros(3, "f"), "normal", "normal:0.02")],
    ),
    "name of a layer": Case(lambda: layers("taken"), "is taken: give the layer another", layers),
    "absent layer": Case(lambda: layers("absent"), "has no layer 'two': return it from layers()", layers),
    "buffer": Case(lambda: layers("lost"), "return it from layers() as nn.Buffer", layers),
    "no width": Case(
        lambda: bind(load("vae", network="conv", hidden=(), z_dim=2, x_shape=(1, 8, 8))),
        "hidden=() names no width: give at least one",
        lambda: bind(load("vae", network="conv", hidden=(8,), z_dim=2, x_shape=(1, 8, 8))),
    ),
    "vectors": Case(
        lambda: (
            load("counts").adapted_to(data.of({"x": IMAGES, "batch": KINDS}))
            and bind(load("counts").adapted_to(data.of({"x": IMAGES, "batch": KINDS})))
        ),
        "are no vectors: give a table",
        lambda: bind(load("counts").adapted_to(data.of({"x": COUNTS, "batch": KINDS}))),
    ),
    "images": Case(
        lambda: bind(load("vae", network="conv", x_shape=(2,))),
        "are no images [C, H, W]: give images, or choose other networks",
        lambda: (bind(load("vae", network="conv", x_shape=(1, 8, 8))), bind(load("vae", x_shape=(2,)))),
    ),
    "odd images": Case(
        lambda: bind(load("vqvae", x_shape=(3, 7, 7))),
        "crop or pad them to multiples of 4",
        lambda: [bind(load("vqvae", x_shape=(3, size, size))) for size in (4, 8)],
    ),
    # files
    "several programs": Case(
        lambda: file(HEAD + ONE.format("One") + ONE.format("Two")),
        "say which is meant with a line such as program = One",
        lambda: file(HEAD + ONE.format("One") + ONE.format("Two") + "program = One\n"),
    ),
    "model alone": Case(
        lambda: file(HEAD + MODEL), "but no guide: add a function guide", lambda: file(HEAD + MODEL + GUIDE)
    ),
    "no program in a file": Case(
        lambda: file("x = 1\n"),
        "write a class that inherits from ppl_vae.Program, or two functions, model and guide",
        lambda: (file(HEAD + ONE.format("One")), file(HEAD + MODEL + GUIDE)),
    ),
    "class of a file": Case(
        lambda: file(HEAD + BARE),
        "put @dataclass(frozen=True) above class One",
        lambda: file(HEAD + ONE.format("One")),
    ),
    "both libraries": Case(
        lambda: file("import pyro\nimport numpyro\n" + MODEL + GUIDE),
        'say which one its functions are written in with a line backend = "pyro" or backend = "numpyro"',
        lambda: [
            file(f'import pyro\nimport numpyro\nbackend = "{one}"\n' + MODEL + GUIDE) for one in BACKENDS
        ],
    ),
    "module elsewhere": Case(
        partial(module, "not_installed_here", False),
        " (install it, or put its folder on PYTHONPATH)",
        partial(module, "not_installed_here", True),
    ),
    "name of a program": Case(
        lambda: load("vea"),
        ": did you mean vae?",
        lambda: load("vae"),
    ),
    "unlike any name": Case(
        lambda: load("xyzzy"),
        ", or give a path to a file",
        lambda: (load("vae"), file(HEAD + ONE.format("One"))),
    ),
    "file of this folder": Case(
        lambda: file(HEAD + ONE.format("One"), "own.py") and load("own"),
        ": for the file of this folder write own.py",
        lambda: load("own.py"),
    ),
    # data of a program
    "classes": Case(
        lambda: load("counts").adapted_to(data.of({"x": COUNTS, "batch": GREY[:, 0]})),
        "holds no classes: give whole numbers from 0 on",
        lambda: load("counts").adapted_to(data.of({"x": COUNTS, "batch": KINDS})),
    ),
    "lacking field": Case(
        lambda: short(Conditional()),
        "give an .npz or a dict of arrays that holds y too, or name the column of a table with label=...",
        lambda: (
            short(Conditional(), {"x": X, "y": KINDS}),
            short(Conditional(), data.of({"x": X, "kind": KINDS}, label="kind")),
        ),
    ),
    "any fields": Case(
        lambda: short(Starred()), "name the data fields that it uses one by one", lambda: short(Normal())
    ),
    "no number of draws": Case(
        lambda: bind(Normal(x_shape=(2,))).model(),
        "call model(x) or model(n=64)",
        lambda: (
            bind(Normal(x_shape=(2,))).model(n=64),
            bind(Normal(x_shape=(2,))).model(bind(Normal(x_shape=(2,))).put(X)),
        ),
    ),
    # likelihoods
    "likelihood": Case(
        lambda: likelihoods.parse(3),
        "give a text such as 'normal', or an object of a class",
        lambda: (likelihoods.parse("normal"), likelihoods.parse(likelihoods.KNOWN["normal"]())),
    ),
    "mask of a likelihood of pixels": Case(
        lambda: vae("rgb_logistic_mixture", COLOURS),
        "it draws several numbers at once, and none can be masked: choose another",
        lambda: vae("discretized_logistic", COLOURS),
    ),
    "support of bits": Case(
        lambda: vae("bernoulli", X),
        "choose the likelihood normal, or scale the data to [0, 1] and use binarize='dynamic'",
        lambda: (vae("normal", X), vae("bernoulli", (X - X.min()) / np.ptp(X), binarize="dynamic")),
    ),
    "grey levels as bits": Case(
        lambda: vae("bernoulli", LEVELS, binarize="none"),
        "draw bits with binarize='dynamic', or choose the likelihood discretized_logistic:256 or normal",
        lambda: (
            vae("bernoulli", LEVELS, binarize="dynamic"),
            vae("discretized_logistic:256", LEVELS),
            vae("normal", LEVELS),
        ),
    ),
    "counts as bits": Case(
        lambda: vae("bernoulli", COUNTS, kind="vector"),
        "choose the likelihood poisson, or normal for other numbers",
        lambda: (vae("poisson", COUNTS, kind="vector"), vae("normal", COUNTS, kind="vector")),
    ),
    "numbers as counts": Case(
        lambda: vae("poisson", X),
        "it needs whole numbers from 0, without scaling; for other data choose the likelihood normal",
        lambda: (vae("poisson", COUNTS), vae("normal", X)),
    ),
    "number of classes": Case(
        lambda: vae("categorical:3", COUNTS),
        "to the number of classes - 1: name that number, such as categorical:7",
        lambda: vae("categorical:7", COUNTS),
    ),
    "levels": Case(
        lambda: vae("discretized_logistic:16", LEVELS),
        "the data has 256 levels: choose the likelihood discretized_logistic:256",
        lambda: vae("discretized_logistic:256", LEVELS),
    ),
    "no levels": Case(
        lambda: vae("discretized_logistic:16", GREY),
        "round the data to its levels, or choose the likelihood continuous_bernoulli or normal",
        lambda: (
            vae("discretized_logistic:16", np.round(GREY * 15) / 15),
            vae("continuous_bernoulli", GREY),
            vae("normal", GREY),
        ),
    ),
    "scale": Case(
        lambda: vae("continuous_bernoulli", X),
        ": scale the data, or choose the likelihood normal",
        lambda: (vae("continuous_bernoulli", (X - X.min()) / np.ptp(X)), vae("normal", X)),
    ),
    "channels": Case(
        lambda: vae("rgb_logistic_mixture", IMAGES),
        "not rows of shape (1, 8, 8): choose logistic_mixture",
        lambda: vae("logistic_mixture", IMAGES),
    ),
    # rows that a run is given
    "lacking rows": Case(
        lambda: normal().encode({"z": X}),
        "give a dict of arrays by name, with x",
        lambda: normal().encode({"x": X}),
    ),
    "covariates": Case(
        lambda: normal().sample(3, covariates=X),
        ": give a dict of arrays by name",
        lambda: conditional().sample(3, covariates={"y": KINDS[:3]}),
    ),
    "number of covariates": Case(
        lambda: conditional().sample(3, covariates={"y": KINDS[:2]}),
        "give 3 rows, or one for all",
        lambda: [conditional().sample(3, covariates={"y": KINDS[:n]}) for n in (3, 1)],
    ),
    "covariate that is needed": Case(
        lambda: conditional().sample(3),
        "which is missing: give it in covariates=...",
        lambda: conditional().sample(3, covariates={"y": KINDS[:1]}),
    ),
    "a dict for arrays": Case(
        lambda: conditional().bound.model({"x": torch.from_numpy(X), "y": torch.from_numpy(KINDS)}),
        "model got a dict: give its arrays by name, as model(**rows)",
        lambda: conditional().bound.model(x=torch.from_numpy(X), y=torch.from_numpy(KINDS)),
    ),
    "field that the model needs": Case(
        lambda: conditional().bound.model(torch.from_numpy(X)),
        "give it with the rows",
        lambda: conditional().bound.model(torch.from_numpy(X), y=torch.from_numpy(KINDS)),
    ),
    "a number as latents": Case(
        lambda: normal().decode(np.float32(3)),
        "a latent is a single number: give rows",
        lambda: normal().decode(X),
    ),
    "several latents": Case(
        lambda: two_latents().decode(X),
        ": give a dict of arrays by name",
        lambda: two_latents().decode({"z_1": X, "z_2": X}),
    ),
    "no latents": Case(
        lambda: normal().decode(X[:0]),
        "there are no latents: give at least one row",
        lambda: normal().decode(X),
    ),
    "no rows": Case(
        lambda: normal().encode(X[:0]), "there are no rows: give at least one", lambda: normal().encode(X[:1])
    ),
    "rows of another shape": Case(
        lambda: evaluate(of_bits(), data=9 * X[:, :1]),
        ": give rows of that shape",
        lambda: evaluate(of_bits(), data=GREY),
    ),
    "rows of another likelihood": Case(
        lambda: of_bits().score(COUNTS),
        "give rows like those of the training, or in another training ",
        lambda: (of_bits().score(GREY), vae("poisson", COUNTS).score(COUNTS)),
    ),
    "a loader": Case(
        lambda: evaluate(of_a_loader()),
        "was trained on a loader: give what to evaluate on as data=...",
        lambda: evaluate(of_a_loader(), data=X),
    ),
    "global latents of a conditional": Case(
        lambda: counts().sample(3),
        ", which needs 'batch': give it as a covariate",
        lambda: counts().sample(3, covariates={"batch": KINDS[:3]}),
    ),
    "one field twice": Case(
        lambda: labelled().sample(3, covariates={"y": KINDS[:1], "kind": KINDS[:1]}),
        "two of them are one field, give one",
        lambda: [labelled().sample(3, covariates={name: KINDS[:1]}) for name in ("y", "kind")],
    ),
    "names of axes": Case(
        lambda: posterior(normal(), X, num_samples=2, dims={"z": ["draw"]}),
        "names of their own with dims",
        lambda: posterior(normal(), X, num_samples=2, dims={"z": ["axis"]}),
    ),
    "sizes of axes": Case(
        lambda: posterior(two_latents(), X, num_samples=3, dims={"z_1": ["draw"]}),
        "names of their own with dims",
        lambda: posterior(two_latents(), X, num_samples=3, dims={"z_1": ["axis"]}),
    ),
    "diverged": Case(
        lambda: short(Normal(), lr=1e30, max_steps=9, optimizer="adam"),
        ": lower lr=..., or set clip_norm=...",
        lambda: short(Normal(), lr=1e-3, max_steps=9),
    ),
    "groups of plain functions": Case(
        lambda: short((plain_model, plain_guide), np.zeros((20, 6), "f"), objective=STL(2)),
        "cannot be held constant: declare a Program, or use another objective",
        lambda: (
            short(Normal(), objective=STL(2)),
            short((plain_model, plain_guide), np.zeros((20, 6), "f"), objective=IWAE(2)),
        ),
    ),
    "support without a name": Case(
        lambda: short(Positive(), X),
        "transform the data, or choose another likelihood",
        lambda: (short(Positive(), np.exp(X)), short(Normal(), X)),
    ),
    "draws in order": Case(
        lambda: settled(lambda x: {"x": x["x"] + 1}, {"x": np.zeros((1, 2))}, 1),
        "do not settle: see ppl-vae check",
        lambda: check(Normal(), X).raise_if_failed(),
    ),
    # reports
    "columns of a grid": Case(
        lambda: grid(GREY.reshape(10, 2, 2), columns=0),
        "is impossible: give 1 or more",
        lambda: grid(GREY.reshape(10, 2, 2), columns=1),
    ),
    "shape of a grid": Case(
        lambda: grid(GREY),
        ": give [N, C, H, W] with 1 or 3 channels, or [N, H, W]",
        lambda: [grid(GREY.reshape(shape)) for shape in ((10, 2, 2), (10, 1, 2, 2))],
    ),
    "empty grid": Case(lambda: grid(IMAGES[:0]), "): give at least one", lambda: grid(IMAGES[:1] / 255.0)),
    "whole numbers in a grid": Case(
        lambda: grid(IMAGES.astype(int)),
        ": divide them, so that they lie in [0, 1]",
        lambda: grid(IMAGES / 255.0),
    ),
    "latents of a density": Case(
        lambda: normal().density(X).unconstrain({"y": X[None]}),
        "got latents y: give z",
        lambda: normal().density(X).unconstrain({"z": X[None]}),
    ),
    "shape of latents": Case(
        lambda: normal().density(X).constrain(X),
        ": give [draws, 20, 2], 20 rows",
        lambda: normal().density(X).constrain(X[None]),
    ),
}
SLOW = {  # which train several times
    *("support without a name", "one field twice", "lacking field", "covariate that is needed"),
    *("support of bits", "grey levels as bits", "counts as bits", "numbers as counts", "levels", "no levels"),
    *("scale", "number of classes", "channels", "no objective", "plateau", "long schedule", "loss of rows"),
    *(
        "metric of rows",
        "name of a metric",
        "compile off",
        "number of covariates",
        "draws in order",
        "global and IWAE",
    ),
    *("covariates", "latent of the guide", "latent of the model", "other library", "no program"),
}


@dataclass(frozen=True)
class Conditional(Normal):
    def model(self, ppl, net, x=None, *, y):
        with ppl.minibatch(x, y):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(z + ppl.F.to_float(y)[:, None], 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x, y):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.w(x), 1.0).to_event(1))


@dataclass(frozen=True)
class Positive(Normal):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Gamma(ppl.F.exp(z), 1.0).to_event(1), obs=x)


@cache
def of_a_loader():
    from torch.utils.data import DataLoader, TensorDataset

    return short(Normal(), DataLoader(TensorDataset(torch.from_numpy(X)), 10))


@dataclass(frozen=True)
class Crossed(Normal):
    """Two latents of the model alone, in different plates."""

    def model(self, ppl, net, x=None):
        hidden = {"infer": {"enumerate": "parallel"}}
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            k = ppl.sample("k", ppl.dist.Categorical(ppl.array([0.2, 0.8])), **hidden)
            with ppl.plate("columns", 2, dim=-2):
                ppl.sample("w", ppl.dist.Categorical(ppl.array([0.5, 0.5])), **hidden)
            ppl.sample("x", ppl.dist.Normal(z + k[..., None], 0.5).to_event(1), obs=x)


@dataclass(frozen=True)
class Starred(Normal):
    def guide(self, ppl, net, *x):
        super().guide(ppl, net, *x)


FORMS = schedules.text._FORMS
of_bits = cache(lambda: short(load("vae", **SMALL), data.of(GREY, binarize="dynamic")))
counts = cache(lambda: short(load("counts", z_dim=2, hidden=(4,)), {"x": COUNTS, "batch": KINDS}))
labelled = cache(lambda: short(Conditional(), data.of({"x": X, "kind": KINDS}, label="kind")))
conditional = cache(lambda: short(Conditional(), {"x": X, "y": KINDS}))
two_latents = cache(lambda: short(load("hvae", z_dims=(2, 2), hidden=(4, 4), likelihood="normal")))


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.slow] * (case in SLOW)) for case in CASES]
)
def test_the_remedy_works(case, folder):
    CASES[case].carried_out()


@pytest.mark.slow
def test_axes_that_numpyro_does_not_place():
    says = "into the event with .to_event(number of axes)"
    numpyro = partial(short, backend="numpyro")
    Case(lambda: numpyro(Normal(fault="axes")), says, lambda: numpyro(Normal())).carried_out()


def test_whole_numbers_that_jax_does_not_hold():
    from ppl_vae.backends.numpyro.devices import Devices, narrow

    large = np.array([2**40])
    for right in (large >> 20, large.astype("f")):
        says = "scale it down, give it with fractions, or use the backend pyro"
        Case(lambda: narrow(large), says, lambda right=right: narrow(right)).carried_out()
    assert backend_named("pyro").bind(Normal(x_shape=(2,))).put(large)[0] == 2**40
    shared = Devices("cpu", 1)
    shared.count = 3
    Case(
        lambda: shared.check_fits(8), "over devices=3: choose a multiple", lambda: shared.check_fits(9)
    ).carried_out()
