"""The contract of plain Pyro programs; and that a check leaves nothing behind."""

import random

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from toys import BITS, GREY, Toy, broken_programs

from ppl_vae import contract, data, load
from ppl_vae.backends.pyro.check import probe
from ppl_vae.program import PlainProgram

COLOUR = data.of(np.random.default_rng(5).integers(0, 256, (40, 3, 8, 8)).astype(np.uint8), name="colour")


def check(program, rows=BITS):
    return contract.check(program, rows, {"pyro": probe}, "pyro")


def failed(report):
    return [finding.name for finding in report.failed]


ENCODER = torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 6))
DECODER = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Dropout(0.5))


def plain_model(x):
    pyro.module("decoder", DECODER)
    scale = pyro.param("scale", torch.ones(3), constraint=pyro.distributions.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(3), scale).to_event(1))
        pyro.sample("x", pyro.distributions.Bernoulli(logits=DECODER[0](z)).to_event(1), obs=x)


def plain_guide(x):
    pyro.module("encoder", ENCODER)
    with pyro.plate("data", len(x)):
        loc, raw = ENCODER(x).chunk(2, -1)
        pyro.sample("z", pyro.distributions.Normal(loc, raw.exp()).to_event(1))


def leaky_guide(x):
    pyro.module("encoder", ENCODER)
    with pyro.plate("data", len(x)):
        loc, raw = ENCODER(x - x.mean(0)).chunk(2, -1)
        pyro.sample("z", pyro.distributions.Normal(loc, raw.exp()).to_event(1))


def dead_guide(x):
    pyro.param("unused", torch.zeros(2))
    plain_guide(x)


def needy(x, y):
    pass


class Owner(torch.nn.Module):
    """Pyro's own example keeps model and guide as methods."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(6, 6), torch.nn.Linear(3, 6)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("obs", pyro.distributions.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", pyro.distributions.Normal(loc, raw.exp()).to_event(1))


def test_a_plain_program_is_checked_by_the_rules_that_apply():
    report = check(PlainProgram(plain_model, plain_guide, "plain"))
    assert report.ok, str(report)
    skipped = {finding.name: finding.message for finding in report if finding.status == "skipped"}
    assert set(skipped) == {"networks", "independence", "particles", "prior", "decoding", "parity"}
    assert skipped["prior"] == "a plain program says itself how to draw from it"
    assert skipped["parity"] == "the program runs on pyro only"
    assert report["parameters"].message == "gradients reach all 7 trainable parameters"
    assert report.program == "plain"


def test_methods_of_a_module_are_checked():
    owner = Owner()
    report = check(PlainProgram(owner.model, owner.guide, "owner"))
    assert report.ok, str(report)
    assert report["sites"].message == "latent latent; observed obs"


@pytest.mark.parametrize(
    ("model", "guide", "rule", "words"),
    [
        (plain_model, leaky_guide, "rows", "site 'z' of the guide mixes rows"),
        (plain_model, dead_guide, "parameters", "no gradient reaches network 'unused'"),
        (plain_model, lambda x: None, "sites", "site 'z' of the model is not in the guide"),
        (needy, plain_guide, "fields", "needs 'y': the data has the fields x"),
    ],
)
def test_broken_plain_programs_are_caught(model, guide, rule, words):
    report = check(PlainProgram(model, guide))
    assert failed(report) == [rule], str(report)
    assert words in report[rule].message


# -- nothing is left behind


def world():
    """Everything global that a check could change."""
    store = pyro.get_param_store()
    _, numpy_state, position, *_ = np.random.get_state()  # noqa: NPY002
    return {
        "parameters": {name: store[name].detach().clone() for name in store},
        "owners": {name: id(store._params[name]) for name in store},
        "torch": torch.get_rng_state(),
        "numpy": torch.from_numpy(numpy_state.astype(np.int64)),
        "more": (
            position,
            random.getstate(),
            torch.is_grad_enabled(),
            pyro.distributions.is_validation_enabled(),
        ),
        "modes": [module.training for module in (*DECODER.modules(), *ENCODER.modules())],
        "weights": {
            name: value.clone() for part in (DECODER, ENCODER) for name, value in part.state_dict().items()
        },
    }


def same(a, b):
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


class Registers(Toy):
    """A declared program that uses Pyro's parameter store itself."""

    def guide(self, ppl, net, x):
        super().guide(ppl, net, x)
        pyro.param("mine too", torch.zeros(3))


@pytest.mark.parametrize(
    ("program", "rows"),
    [
        (Toy(), BITS),
        (Registers(), BITS),
        (load("vqvae", codes=12, code_dim=3, hidden=8), COLOUR),
        (Toy(), GREY),
        (PlainProgram(plain_model, plain_guide), BITS),
        (PlainProgram(plain_model, leaky_guide), BITS),
        *(
            (kind(**fields), rows)
            for rule, kind, rows, _, fields in broken_programs()
            if rule in ("batch", "seeds", "networks")
        ),
    ],
)
def test_a_check_leaves_no_trace(program, rows):
    pyro.get_param_store().clear()
    pyro.param("mine", torch.tensor([1.0, 2.0]))
    DECODER.train(), ENCODER.eval()
    DECODER[1].eval()
    before = world()
    check(program, rows)
    assert same(before, world())
    pyro.get_param_store().clear()


def test_hooks_are_removed_from_a_network_that_lives_on():
    broken = {kind.__name__: kind for _, kind, *_ in broken_programs()}
    program = broken["SharedDecoder"]()
    check(program)
    shared = program.decoder()
    assert not shared._forward_hooks and not shared._forward_pre_hooks


class Batched(torch.nn.Module):
    """A guide with a buffer that train mode writes, and one that every run writes."""

    def __init__(self):
        super().__init__()
        self.norm, self.encoder = torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 6)
        self.register_buffer("calls", torch.zeros(()))
        self.decoder = torch.nn.Linear(3, 6)

    model = Owner.model

    def guide(self, x):
        pyro.module("guide", self)
        self.calls += 1
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(self.norm(x) if len(x) > 1 else x).chunk(2, -1)
            pyro.sample("latent", pyro.distributions.Normal(loc, raw.exp()).to_event(1))


@pytest.mark.parametrize("mode", [True, False])
def test_modules_of_a_plain_program_keep_weights_buffers_and_modes(mode):
    owner = Batched().train(mode)
    before = {name: value.clone() for name, value in owner.state_dict().items()}
    check(PlainProgram(owner.model, owner.guide))
    after = owner.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(module.training is mode for module in owner.modules())
    assert all(parameter.grad is None for parameter in owner.parameters())


def test_training_goes_on_after_a_check_as_without():
    """A bound program in the middle of stock SVI does not notice a check."""

    def train(checks):
        pyro.get_param_store().clear()
        torch.manual_seed(0)
        network = torch.nn.Linear(3, 6)

        def model(x):
            pyro.module("network", network)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1))
                pyro.sample("x", pyro.distributions.Bernoulli(logits=network(z)).to_event(1), obs=x)

        def guide(x):
            loc = pyro.param("loc", torch.zeros(3))
            with pyro.plate("data", len(x)):
                pyro.sample("z", pyro.distributions.Normal(loc, 1.0).to_event(1))

        svi = SVI(model, guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        x = torch.from_numpy(BITS.raw("train")["x"][:10])
        losses = []
        for _ in range(4):
            losses.append(svi.step(x))
            if checks:
                assert check(PlainProgram(model, guide)).ok
        pyro.get_param_store().clear()
        return losses

    assert train(checks=True) == train(checks=False)
