"""Sound small programs, data for them, and the list of those that break the contract, each in one way."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from ppl_vae import Network, Program, data

RNG = np.random.default_rng(3)
BITS = data.of(RNG.integers(0, 2, (40, 6)).astype(np.uint8), name="bits")
GREY = data.of(RNG.integers(0, 17, (40, 1, 4, 4)).astype(np.uint8), levels=17, name="grey")
REALS = data.of(RNG.normal(size=(40, 6)), name="reals")
COUNTS = data.of(RNG.poisson(3, (40, 6)), name="counts")

BOTH = ("pyro", "numpyro")

_BROKEN = []


class Case(NamedTuple):
    """A broken program: the one rule that it breaks, words of the message, its data, fields and backends."""

    rule: str
    kind: type
    rows: data.Data
    words: list[str]
    fields: dict
    backends: tuple[str, ...]


def breaks(rule, words, rows=BITS, backends=("pyro",), **fields):
    """Register a program under the one rule that it breaks."""

    def register(kind):
        _BROKEN.append(Case(rule, kind, rows, words, fields, backends))
        return kind

    return register


def broken_programs(backend="pyro"):
    """Return the cases of one backend."""
    for name in ("structure", "values", "rows", *(["jax"] if backend == "numpyro" else [])):
        import_module(f"broken_{name}")
    return [case for case in _BROKEN if backend in case.backends]


def broken(name, **fields):
    """Return a broken program of Pyro by the name of its class."""
    return next(case.kind(**fields) for case in broken_programs() if case.kind.__name__ == name)


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
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z))

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.decoder(z)).to_event(1), obs=x)


@dataclass(frozen=True)
class Function(Network):
    """A linear layer within a function of the array functions, of it and of its input."""

    inputs: int
    outputs: int
    function: Any

    def layers(self, nn):
        return {"layer": nn.Linear(self.inputs, self.outputs)}

    def apply(self, F, net, x):
        return self.function(F, net.layer, x)


@dataclass(frozen=True)
class Mixed(Network):
    """Logits of entries from latents and from other entries: all, those before, or all but the own one."""

    z_dim: int
    width: int
    of: str

    def layers(self, nn):
        return {
            "own": nn.Parameter((self.width, self.width), "normal:1.0"),
            "z": nn.Linear(self.z_dim, self.width),
        }

    def apply(self, F, net, z, x):
        own = net.own
        others = {"all": own, "before": F.tril(own, -1), "others": own - F.diag(F.diagonal(own))}[self.of]
        return x @ others.mT + net.z(z)


@dataclass(frozen=True)
class Autoregressive(Toy):
    """A sound program: each bit given the latent and the bits before it."""

    backends = BOTH
    of: str = "before"

    def networks(self, ppl_nn):
        (width,) = self.x_shape
        return super().networks(ppl_nn) | {"decoder": Mixed(self.z_dim, width, self.of)}

    def read(self, ppl, z, x):
        return x

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            logits = net.decoder(z, self.read(ppl, z, x))
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)


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
