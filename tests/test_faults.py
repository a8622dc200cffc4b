"""What goes wrong in a user's own model, guide, network or objective: one ProgramError that says where."""

import inspect
from dataclasses import dataclass
from importlib import import_module

import numpy as np
import pytest

from ppl_vae import Network, Objective, Program, bind, check, data, evaluate, fit
from ppl_vae.errors import ProgramError, UsageError

BACKENDS = ["pyro", "numpyro"]
ROWS = data.of(np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32), valid=8)
SHORT = {"max_steps": 1, "batch_size": 8}


@dataclass(frozen=True)
class Sound(Program):
    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (5,), 2), "decoder": nn.MLP(2, (5,), 6)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


class WrongName(Sound):
    def model(self, ppl, net, x=None):
        ppl.smaple("z", ppl.standard_normal(2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_name_that_is_not_there_is_told_with_the_nearest(backend):
    with pytest.raises(ProgramError, match="ppl has no 'smaple': did you mean sample"):
        bind(WrongName((6,)), backend).model(ROWS.rows("train")["x"])
    F, dist = (
        getattr(import_module(f"ppl_vae.backends.{backend}.{module}"), name)
        for module, name in (("functions", "F"), ("distributions", "dist"))
    )
    with pytest.raises(AttributeError, match=r"ppl\.F has no 'sigmod': did you mean sigmoid"):
        _ = F.sigmod
    with pytest.raises(AttributeError, match=r"ppl\.dist has no 'Nomal': did you mean Normal"):
        _ = dist.Nomal
    with pytest.raises(AttributeError, match=r"ppl\.F has no 'qqq': it has .*sigmoid, "):
        _ = F.qqq


class WrongWidth(Sound):
    def networks(self, nn):
        return super().networks(nn) | {"decoder": nn.MLP(3, (5,), 6)}


class WrongKind(Sound):
    def networks(self, nn):
        return super().networks(nn) | {"decoder": nn.Embedding(4, 6)}


class Raising(Network):
    def apply(self, F, net, x):
        return x + "1"  # fails


class InNetwork(Sound):
    def networks(self, nn):
        return super().networks(nn) | {"decoder": Raising()}


class NoKey(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), {}["scale"]).to_event(1), obs=x)  # fails


class Lacking(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2)) + ppl.sample("w", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x)


class Surplus(Sound):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            for name in ("z", "w"):
                ppl.sample(name, ppl.standard_normal(2))


class Clash(Sound):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("z", ppl.standard_normal(2))  # fails


class Unplaced(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5), obs=x)  # fails


class NoParameters(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.likelihood("bernoulli", net.decoder(z)), obs=x)  # fails


class NoNetwork(Sound):
    def guide(self, ppl, net, x):
        net.encodr(x)  # fails


class Unmade(Sound):
    def networks(self, nn):
        return {"encoder": nn.MLP(2, (5,), self.width)}  # fails


class Unscheduled(Sound):
    def schedules(self):
        return {"weight": 1 / 0}  # fails


class NoDistribution(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            ppl.sample("z", net.decoder(ppl.F.zeros((len(x), 2), x)))  # fails


class NoArray(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs="x")  # fails


class Forgetful(Network):
    def apply(self, F, net, x):
        F.tanh(x)


class NothingReturned(Sound):
    def networks(self, nn):
        return super().networks(nn) | {"decoder": Forgetful()}


class NoNetworks(Sound):
    def networks(self, nn):
        super().networks(nn)


class OtherPlate(Sound):
    def model(self, ppl, net, x=None):
        with ppl.plate("data", 5):  # fails
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x)


class OneNumber(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x[:, 0])


def line_of(kind):
    """Return the line of the part of a class that is marked."""
    lines, start = inspect.getsourcelines(kind)
    return start + next(number for number, line in enumerate(lines) if line.rstrip().endswith("# fails"))


MISTAKES = {
    WrongWidth: ["network 'decoder' (called by the model)", "at site 'x'", "on [8, 2]"],
    WrongKind: ["network 'decoder' (called by the model)", "at site 'x'", "on [8, 2]"],
    InNetwork: ["network 'decoder' (called by the model)", "at site 'x'", "on [8, 2]", "TypeError", Raising],
    NoKey: ["the model fails", "at site 'x'", "KeyError: 'scale'", NoKey],
    Lacking: ["site 'w' of the model has no site in the guide"],
    Surplus: ["site 'w' of the guide is not in the model"],
    Clash: ["the guide fails", "at site 'z'", "z", Clash],
    Unplaced: ["the model fails", "site 'x'", "to_event", Unplaced],
    NoParameters: ["the model fails", "ppl.likelihood takes what a network nn.Likelihood", NoParameters],
    NoNetwork: ["the guide fails", "no network 'encodr'", NoNetwork],
    NoDistribution: ["the model fails", "at site 'z'", NoDistribution],
    NoArray: ["the model fails", "site 'x' observes an array, no str", NoArray],
    NothingReturned: ["network 'decoder' (called by the model)", "at site 'x'", "it returns None"],
    NoNetworks: ["the method networks fails: it returns None: return a dict of networks by name"],
    OtherPlate: ["the model fails", "'data' has 8 rows in the guide and 5 in the model", OtherPlate],
    OneNumber: ["site 'x': its Normal has shape (6,) per row, the data ()"],
    Unmade: ["the method networks fails", "AttributeError", Unmade],
    Unscheduled: ["the method schedules fails", "ZeroDivisionError", Unscheduled],
}


def one_line(error, words):
    assert isinstance(error, ProgramError)
    message = str(error)
    assert "\n" not in message and len(message) < 400
    for word in words:
        assert (f"test_faults.py, line {line_of(word)}" if callable(word) else word) in message
    return message


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", MISTAKES, ids=lambda kind: kind.__name__)
def test_a_mistake_of_a_program_is_one_line_that_says_where(kind, backend):
    with pytest.raises(ProgramError) as caught:
        fit(kind(), ROWS, backend=backend, **SHORT)
    one_line(caught.value, MISTAKES[kind])
    assert kind in (Lacking, Surplus, OneNumber) or isinstance(caught.value.__cause__, Exception)


BROKEN = {"where": None}


class Breaks(Sound):
    """Sound in training; fails where a test says."""

    def model(self, ppl, net, x=None):
        super().model(ppl, net, x)
        assert BROKEN["where"] != "model"  # fails

    def guide(self, ppl, net, x):
        super().guide(ppl, net, x)
        if BROKEN["where"] == "guide":
            raise ValueError("this way\nnot that")


@pytest.fixture(scope="module", params=BACKENDS)
def run(request, tmp_path_factory):
    return fit(Breaks(), ROWS, backend=request.param, **SHORT)


X = np.zeros((8, 6), np.float32)
VERBS = {
    "sample": ("model", lambda run: run.sample(3)),
    "decode": ("model", lambda run: run.decode(np.zeros((4, 2)))),
    "encode": ("guide", lambda run: run.encode(X)),
    "reconstruct": ("model", lambda run: run.reconstruct(X)),
    "score": ("guide", lambda run: run.score(X)),
    "log_prob": ("model", lambda run: run.log_prob(X, 3)),
    "evaluate": ("guide", lambda run: evaluate(run, importance_samples=4)),
    "draws": ("model", lambda run: run.draws(X, 3)),
    "density": ("model", lambda run: run.density(X)),
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_says_whose_fault_it_is(run, verb, monkeypatch):
    where, call = VERBS[verb]
    monkeypatch.setitem(BROKEN, "where", where)
    with pytest.raises(ProgramError) as caught:
        call(run)
    own = (
        ["AssertionError", Breaks]
        if where == "model"
        else ["ValueError: this way not that", "test_faults.py, line"]
    )
    one_line(caught.value, [f"the {where} fails", *own])


@dataclass(frozen=True)
class Misspelt(Objective):
    def loss(self, F, terms, scalars):
        return terms.distorsion  # fails


def misspelt(model, guide, batch=None, **more):
    return model.distorsion(more)  # fails


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("objective", [Misspelt(), misspelt], ids=["class", "function"])
def test_a_mistake_of_an_objective_is_one_line(objective, backend):
    with pytest.raises(ProgramError) as caught:
        fit(Sound(), ROWS, objective, backend=backend, **SHORT)
    name = objective if inspect.isfunction(objective) else type(objective)
    one_line(caught.value, [f"the objective {name.__name__} fails", "AttributeError", name])


def test_errors_of_usage_stay_what_they_are_within_a_program():
    from ppl_vae import bind

    bound = bind(Sound(x_shape=(6,)))
    with pytest.raises(UsageError, match="no number of draws"):
        bound.model()


class Refusing(Sound):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.standard_normal(2))
            raise UsageError("such rows are refused: give others")


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_error_of_usage_within_a_model_is_one_line(backend):
    with pytest.raises(UsageError) as caught:
        fit(Refusing(), ROWS, backend=backend, **SHORT)
    assert str(caught.value) == "such rows are refused: give others"


@pytest.mark.parametrize("kind", [WrongWidth, NoKey])
def test_check_says_the_same(kind):
    report = check(kind(), ROWS)
    assert [finding.name for finding in report.failed] == ["batch"]
    message = report["batch"].message
    assert all(one in message for one in MISTAKES[kind] if isinstance(one, str) and "[8" not in one)


def test_two_plain_functions_say_where_too():
    import pyro
    import pyro.distributions as dist

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(0.0, 1.0))
            pyro.sample("x", dist.Normal(z, {}["scale"]), obs=x)  # fails

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ProgramError) as caught:
        fit((model, guide), ROWS, **SHORT)
    one_line(caught.value, ["the model fails", "at site 'x'", model])
