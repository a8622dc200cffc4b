"""Each remedy that a message names is carried out: the state, the message, the remedy, success."""

from dataclasses import dataclass

import numpy as np
import plain_pyro
import pyro
import pytest

from ppl_vae import ELBO, IWAE, Program, data, evaluate, fit, load
from ppl_vae.errors import PplVaeError

X = np.random.default_rng(0).normal(size=(20, 2)).astype("f")
GAPS = np.where(np.arange(40).reshape(20, 2) % 7 == 0, np.nan, X)
SMALL = {"hidden": (4,), "z_dim": 2}


@dataclass(frozen=True)
class Toy(Program):
    """A row of two numbers around a latent; `fault` is what is wrong with it, "" nothing."""

    x_shape: tuple | None = None
    fault: str = ""

    def networks(self, nn):
        return {"w": nn.MLP(2, (4,), 3), "c": nn.Embedding(3, 2)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            k = ppl.sample("k", ppl.dist.Categorical(ppl.array([0.2, 0.3, 0.5])))
            ppl.sample("x", ppl.dist.Normal(net.c(k), 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            enumerated = {"enumerate": "parallel"} if self.fault == "enumerated" else {}
            ppl.sample("k", ppl.dist.Categorical(logits=net.w(x)), infer=enumerated)


@dataclass(frozen=True)
class Normal(Program):
    """A latent as wide as the row; `fault` is what is wrong with it, "" nothing."""

    x_shape: tuple | None = None
    fault: str = ""

    def networks(self, nn):
        return {"w": nn.MLP(2, (4,), 2)}

    def model(self, ppl, net, x=None):
        if self.fault == "global":
            ppl.sample("g", ppl.dist.Normal(ppl.array(0.0), 1.0))
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            if self.fault == "model":
                ppl.sample("y", ppl.dist.Normal(z[..., 0], 1.0))
            if self.fault == "plate":
                with ppl.plate("columns", 2, dim=-2):
                    ppl.sample("v", ppl.dist.Normal(ppl.array(0.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(z, 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        if self.fault == "global":
            ppl.sample("g", ppl.dist.Normal(ppl.array(0.1), 1.0))
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.dist.Normal(net.w(x), 1.0).to_event(1))
            if self.fault == "guide":
                ppl.sample("y", ppl.dist.Normal(z[..., 0], 1.0))
            if self.fault == "plate":
                with ppl.plate("columns", 2, dim=-2):
                    ppl.sample("v", ppl.dist.Normal(ppl.array(0.0), 1.0))


@dataclass(frozen=True)
class Masked(Normal):
    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            seen = ppl.dist.Normal(z, 0.5)
            ppl.sample("x", (seen if mask is None else seen.mask(mask)).to_event(1), obs=x)

    def guide(self, ppl, net, x, mask=None):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.w(x), 1.0).to_event(1))


def short(program, found=X, objective=None, **options):
    return fit(program, found, objective, **{"max_steps": 1, "batch_size": 10} | options)


def trained(fault=""):
    return short(Normal(fault=fault))


STOCK = {  # for each backend: program, message, the objective that it names
    "graph": ("", "site 'k' has no reparametrised draw: use {}.infer.TraceGraph_ELBO", "TraceGraph_ELBO"),
    "enum": ("enumerated", "site 'k' is enumerated: use {}.infer.TraceEnum_ELBO", "TraceEnum_ELBO"),
}


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("case", STOCK)
def test_the_stock_objective_that_a_message_names_trains(backend, case):
    fault, message, name = STOCK[case]
    with pytest.raises(PplVaeError, match=message.format(backend)):
        short(Toy(fault=fault), backend=backend)
    named = f"{backend}.infer.{name}"
    run = short(Toy(fault=fault), objective=named, backend=backend)
    assert np.isfinite(evaluate(run)["elbo_nats"])


CASES = {  # what is done, the message, what it says to do instead
    "latent of the model": (
        lambda: trained("model"),
        "'y' of the model has no site in the guide: sample it there, or observe it",
        trained,
    ),
    "latent of the guide": (
        lambda: trained("guide"),
        "'y' of the guide is not in the model: remove it",
        trained,
    ),
    "further plate": (
        lambda: trained("plate"),
        "the plate 'columns'.*stock ELBO and without validation rows",
        lambda: short(Normal(fault="plate"), data.of(X, valid=0, test=0), "Trace_ELBO"),
    ),
    "mask": (
        lambda: short(Normal(), data.of(GAPS, mask="nan")),
        "takes no mask: give its model and guide a parameter mask",
        lambda: short(Masked(), data.of(GAPS, mask="nan")),
    ),
    "global weights": (
        lambda: trained("global").draws(X, 2, method="importance"),
        "site 'g' is global.*use method='guide'",
        lambda: trained("global").draws(X, 2, method="guide"),
    ),
    "global and IWAE": (
        lambda: short(Normal(fault="global"), objective=IWAE(2)),
        "site 'g' is global.*use the ELBO",
        lambda: short(Normal(fault="global"), objective=ELBO()),
    ),
    "class of an objective": (
        lambda: short(Normal(), objective=pyro.infer.Trace_ELBO),
        r"is a class: give an object, Trace_ELBO\(\)",
        lambda: short(Normal(), objective=pyro.infer.Trace_ELBO()),
    ),
    "batch size": (
        lambda: short(Normal(), batch_size=50),
        "choose a batch size .* of at most 16",
        lambda: short(Normal(), batch_size=16),
    ),
    "patience": (
        lambda: short(Normal(), data.of(X, valid=0), patience=1),
        "hold some out with valid=",
        lambda: short(Normal(), data.of(X, valid=4), patience=1),
    ),
    "other library": (
        lambda: short((plain_pyro.model, plain_pyro.guide), np.zeros((20, 6), "f"), backend="numpyro"),
        "choose backend='pyro'",
        lambda: short((plain_pyro.model, plain_pyro.guide), np.zeros((20, 6), "f"), backend="pyro"),
    ),
    "compile off": (
        lambda: short(Normal(), backend="numpyro", compile="off"),
        "NumPyro always compiles, leave it away",
        lambda: short(Normal(), backend="numpyro"),
    ),
    "outside of the support": (
        lambda: short(load("vae", **SMALL), X),
        "choose the likelihood normal",
        lambda: short(load("vae", **SMALL, likelihood="normal"), X),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_remedy_of_a_message_works(case):
    wrong, message, right = CASES[case]
    with pytest.raises(PplVaeError, match=message):
        wrong()
    assert right() is not None


def test_a_path_that_is_corrected_is_read(tmp_path):
    np.save(tmp_path / "rows.npy", X)
    with pytest.raises(PplVaeError, match="does not exist: correct the path"):
        data.load(tmp_path / "row.npy")
    assert data.load(tmp_path / "rows.npy").num_rows("train")
