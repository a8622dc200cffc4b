"""Sound small programs, data for them, and the list of those that break the contract, each in one way."""

from dataclasses import dataclass
from importlib import import_module

import numpy as np
from torch import nn

from ppl_vae import Program, data

RNG = np.random.default_rng(3)
BITS = data.of(RNG.integers(0, 2, (40, 6)).astype(np.uint8), name="bits")
GREY = data.of(RNG.integers(0, 17, (40, 1, 4, 4)).astype(np.uint8), levels=17, name="grey")
REALS = data.of(RNG.normal(size=(40, 6)), name="reals")
COUNTS = data.of(RNG.poisson(3, (40, 6)), name="counts")

_BROKEN = []


def breaks(rule, words, rows=BITS, **fields):
    """Register a program under the one rule that it breaks."""

    def register(kind):
        _BROKEN.append((rule, kind, rows, words, fields))
        return kind

    return register


def broken_programs():
    """Return (rule, program, data, words of the message, fields of the program) of every broken program."""
    for name in ("structure", "values", "rows"):
        import_module(f"broken_{name}")
    return _BROKEN


@dataclass(frozen=True)
class Toy(Program):
    """A sound program: every other one changes a part of it."""

    backends = ("pyro",)
    x_shape: tuple[int, ...] | None = None
    z_dim: int = 3
    likelihood: str = "bernoulli"

    def networks(self, nn):
        return {
            "encoder": nn.NormalHead(self.x_shape, 8, self.z_dim),
            "decoder": nn.Likelihood(self.likelihood, self.z_dim, 8, self.x_shape),
        }

    def prior(self, ppl):
        return ppl.standard_normal(self.z_dim)

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", self.prior(ppl))
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)

    def posterior(self, ppl, net, x):
        loc, scale = net.encoder(x)
        return ppl.dist.Normal(loc, scale).to_event(1)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", self.posterior(ppl, net, x))


@dataclass(frozen=True)
class Linear(Toy):
    """A sound program with networks of its own."""

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, 8, self.z_dim), "decoder": self.decoder()}

    def decoder(self):
        return nn.Linear(self.z_dim, 6)

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.decoder(z)).to_event(1), obs=x)


class Function(nn.Module):
    """A linear layer within a function of it and its input."""

    def __init__(self, inputs, outputs, function):
        super().__init__()
        self.layer, self.function = nn.Linear(inputs, outputs), function

    def forward(self, x):
        return self.function(self.layer, x)


class Around(nn.Module):
    """A function around a network."""

    def __init__(self, inner, function):
        super().__init__()
        self.inner, self.function = inner, function

    def forward(self, x):
        return self.function(self.inner, x)


@dataclass(frozen=True)
class OnCounts(Toy):
    """A sound program of whole numbers, which have no gradient."""

    likelihood: str = "poisson"

    def encoded(self, head, x):
        return head(x.float())

    def decoded(self, layer, z):
        return layer(z)

    def networks(self, nn):
        made = super().networks(nn)
        return {
            "encoder": Around(made["encoder"], self.encoded),
            "decoder": Around(made["decoder"], self.decoded),
        }
