"""A check leaves nothing behind in Pyro and torch."""

import random

import numpy as np
import pyro
import pytest
import torch
from plain_pyro import DECODER, ENCODER, Owner, guide, leaky_guide, model
from pyro.infer import SVI, Trace_ELBO
from toys import BITS, GREY, Toy, broken, broken_programs

from ppl_vae import contract, data, load
from ppl_vae.backends.pyro.check import probe
from ppl_vae.program import PlainProgram

COLOUR = data.of(np.random.default_rng(5).integers(0, 256, (40, 3, 8, 8)).astype(np.uint8), name="colour")


def check(program, rows=BITS):
    return contract.check(program, rows, {"pyro": probe}, "pyro")


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
        (PlainProgram(model, guide), BITS),
        (PlainProgram(model, leaky_guide), BITS),
        *(
            (case.kind(**case.fields), case.rows)
            for case in broken_programs()
            if case.rule in ("batch", "seeds", "networks")
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
    program = broken("SharedDecoder")
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

        def own_model(x):
            pyro.module("network", network)
            with pyro.plate("data", len(x)):
                z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1))
                pyro.sample("x", pyro.distributions.Bernoulli(logits=network(z)).to_event(1), obs=x)

        def own_guide(x):
            loc = pyro.param("loc", torch.zeros(3))
            with pyro.plate("data", len(x)):
                pyro.sample("z", pyro.distributions.Normal(loc, 1.0).to_event(1))

        svi = SVI(own_model, own_guide, pyro.optim.Adam({"lr": 0.1}), Trace_ELBO())
        x = torch.from_numpy(BITS.raw("train")["x"][:10])
        losses = []
        for _ in range(4):
            losses.append(svi.step(x))
            if checks:
                assert check(PlainProgram(own_model, own_guide)).ok
        pyro.get_param_store().clear()
        return losses

    assert train(checks=True) == train(checks=False)
