"""Pairs of functions with the structures of published examples: the bound is that of the stock ELBOs."""

import importlib
from dataclasses import dataclass
from functools import cache

import numpy as np
import pytest
import torch
from on_backend import BACKENDS, side

from ppl_vae import ELBO, Program, evaluate, fit
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import PlainProgram

RNG = np.random.default_rng(0)
TOPICS, WORDS, LENGTH, TEXTS = 3, 5, 4, 7


class Library:
    """The names that pairs of both libraries are written with."""

    def __init__(self, backend):
        library = importlib.import_module(backend)
        self.sample, self.plate, self.param = library.sample, library.plate, library.param
        self.dist, self.one = library.distributions, next(side(backend, "float32"))
        self.F, self.array = self.one.F, lambda value: self.one.array(np.asarray(value, "f"))
        self.positive = {"constraint": library.distributions.constraints.positive}
        self.markov = importlib.import_module("pyro").markov if backend == "pyro" else list


def topics(lib):
    """Words [LENGTH, TEXTS] of topics that are summed out: texts lie along the last axis of the data."""
    dist, spread, start = lib.dist, 0.2 * RNG.normal(size=(WORDS, TOPICS)), 1 + RNG.random((TOPICS, WORDS))

    def model(x):
        with lib.plate("topics", TOPICS):
            share = lib.sample("share", dist.Gamma(lib.array(0.7), 1.0))
            words = lib.sample("words", dist.Dirichlet(lib.array([0.5] * WORDS)))
        with lib.plate("texts", TEXTS):
            mixed = lib.sample("mixed", dist.Dirichlet(share))
            with lib.plate("places", LENGTH):
                hidden = {"infer": {"enumerate": "parallel"}}
                topic = lib.sample("topic", dist.Categorical(probs=mixed), **hidden)
                lib.sample("x", dist.Categorical(probs=words[topic]), obs=x)

    def guide(x):
        with lib.plate("topics", TOPICS):
            lib.sample("share", dist.Gamma(lib.param("a", lib.array([1.0, 2.0, 3.0]), **lib.positive), 1.0))
            lib.sample("words", dist.Dirichlet(lib.param("b", lib.array(start), **lib.positive)))
        counts = sum(
            lib.F.astype(x[place][:, None] == lib.F.arange(WORDS, x), lib.array(0)) for place in range(LENGTH)
        )
        with lib.plate("texts", TEXTS):
            lib.sample("mixed", dist.Dirichlet(lib.F.exp(counts @ lib.param("w", lib.array(spread)))))

    return model, guide, RNG.integers(0, WORDS, (LENGTH, TEXTS))


def sequence(lib):
    """A chain of latents whose guide reads what is observed backwards; steps beyond the end are masked."""
    dist, F, steps, reads = lib.dist, lib.F, 3, RNG.normal(size=(2, 2))

    def model(x, mask):
        before = 0 * x[:, 0]
        with lib.plate("rows", len(x)):
            for t in lib.markov(range(steps)):
                step = dist.Normal(F.tanh(before), 0.5 + before**2)
                before = lib.sample(f"z{t}", step.mask(mask[:, t : t + 1]).to_event(1))
                seen = dist.Bernoulli(logits=2 * before)
                lib.sample(f"x{t}", seen.mask(mask[:, t : t + 1]).to_event(1), obs=x[:, t])

    def guide(x, mask):
        w, states, before = lib.param("w", lib.array(reads)), [0 * x[:, 0]], 0 * x[:, 0]
        for t in reversed(range(steps)):
            states.insert(0, F.tanh(states[0] @ w + x[:, t]))
        with lib.plate("rows", len(x)):
            for t in lib.markov(range(steps)):
                step = dist.Normal(0.5 * (before + states[t]), F.exp(-states[t]))
                before = lib.sample(f"z{t}", step.mask(mask[:, t : t + 1]).to_event(1))

    lengths = np.array([3, 3, 2, 1, 1])
    return model, guide, (RNG.random((5, 3, 2)) < 0.4).astype("f"), np.arange(3) < lengths[:, None]


def layers(lib):
    """Layers of gamma variables with global weights in plates of their own, of which the guide has a mean for
    each row.
    """
    dist, F, start = lib.dist, lib.F, 1 + RNG.random((6, 8))

    def model(x):
        with lib.plate("tops", 6):
            top = lib.sample("top", dist.Gamma(lib.array(0.3), 0.5))
        with lib.plate("lows", 8):
            low = lib.sample("low", dist.Gamma(lib.array(0.3), 0.5))
        with lib.plate("rows", len(x)):
            u = lib.sample("u", dist.Gamma(lib.array([0.4] * 3), 0.5).to_event(1))
            z = lib.sample("z", dist.Gamma(lib.array(0.4), 0.5 / (u @ top.reshape(3, 2))).to_event(1))
            lib.sample("x", dist.Poisson(z @ low.reshape(2, 4)).to_event(1), obs=x)

    def guide(x):
        for name, size in (("top", 6), ("low", 8)):
            a = lib.param(f"a_{name}", lib.array(start[0, :size]), **lib.positive)
            with lib.plate(f"{name}s", size):
                lib.sample(name, dist.Gamma(a, a))
        with lib.plate("rows", len(x)):
            for name, size in (("u", 3), ("z", 2)):
                a = F.softplus(lib.param(f"a_{name}", lib.array(start[: len(x), :size])))
                lib.sample(name, dist.Gamma(a, a).to_event(1))

    return model, guide, RNG.poisson(2, (5, 4)).astype("f")


class Batches:
    """A loader of batches."""

    def __init__(self, *batches):
        self.all = batches

    def __len__(self):
        return len(self.all)

    def __iter__(self):
        return iter(self.all)


@cache
def made(make, backend):
    model, guide, *arrays = make(Library(backend))
    bound = importlib.import_module(f"ppl_vae.backends.{backend}.plain").PlainBound
    return bound(PlainProgram(model, guide, backend=backend)), arrays


def loss_of(bound, objective, arrays, seed):
    """Return the loss of a batch at a seed, per entry of the plate over the rows."""
    loss = importlib.import_module(f"ppl_vae.backends.{bound.backend}.objectives").Objective
    loss, scalars = loss(bound, objective, len(arrays[0])), {"beta": 1.0}
    batch = bound.as_batch(tuple(arrays))
    bound.ensure_parameters(batch)
    loss.check(batch, scalars, lambda: None)
    if bound.backend == "pyro":
        import torch

        torch.manual_seed(seed)
        return float(loss(batch, scalars).value.detach())
    import jax

    return float(loss(bound.trainable(), bound.state, jax.random.key(seed), batch, scalars).value)


STOCK = {
    topics: ("TraceEnum_ELBO", {"max_plate_nesting": 2}),
    sequence: ("Trace_ELBO", {}),
    layers: ("Trace_ELBO", {}),
}
SLOW = [pytest.param(name, marks=[pytest.mark.slow] if name == "numpyro" else []) for name in BACKENDS]


def stock_of(make, backend):
    name, options = STOCK[make]
    return getattr(importlib.import_module(f"{backend}.infer"), name)(**options)


@pytest.mark.parametrize("backend", SLOW)  # NumPyro runs one operation after the other here
@pytest.mark.parametrize("make", STOCK)
def test_our_bound_is_that_of_the_stock_elbo_at_the_same_draws(backend, make):
    bound, arrays = made(make, backend)
    theirs = loss_of(bound, stock_of(make, backend), arrays, 3)
    assert loss_of(bound, ELBO(analytic_kl=False), arrays, 3) == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize(
    "make", [topics, *(pytest.param(m, marks=pytest.mark.slow) for m in (sequence, layers))]
)
def test_a_run_counts_rows_as_its_plate_does(make):
    """Of texts along the last axis of the data, one batch of all."""
    model, guide, *arrays = make(Library("pyro"))
    arrays, rows = tuple(map(torch.from_numpy, arrays)), TEXTS if make is topics else 5
    ours, theirs = (
        fit((model, guide), Batches(arrays), objective, max_steps=2)
        for objective in (ELBO(analytic_kl=False), stock_of(make, "pyro"))
    )
    assert ours.history[0]["elbo_nats"] == pytest.approx(theirs.history[0]["elbo_nats"], rel=1e-5)
    found = [evaluate(theirs, data=[arrays], seed=seed)["elbo_nats"] for seed in range(25)]
    stock = [-loss_of(theirs.bound, stock_of(make, "pyro"), arrays, seed) for seed in range(25)]
    noise = np.hypot(np.std(found), np.std(stock)) / np.sqrt(25)
    assert abs(np.mean(found) - np.mean(stock)) < 5 * noise
    assert evaluate(theirs, data=[arrays])["n"] == rows


def test_a_plate_of_as_many_entries_as_the_rows_may_be_either():
    model, guide, x = layers(Library("pyro"))
    with pytest.raises(ProgramError, match="'top' lies in the plate 'tops'.* as many entries"):
        fit((model, guide), Batches((torch.from_numpy(np.tile(x, (2, 1))[:6]),)), ELBO(), max_steps=1)


def test_packed_sequences_go_through_every_bound_and_have_no_rows():
    import pyro
    import pyro.distributions as dist

    gru = torch.nn.GRU(2, 2, batch_first=True)

    def model(x, packed):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", dist.Normal(z[..., None, :], 1.0).expand([len(x), 3, 2]).to_event(2), obs=x)

    def guide(x, packed):
        pyro.module("gru", gru)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", dist.Normal(gru(packed)[1][0], 0.5).to_event(1))

    x = torch.from_numpy(RNG.normal(size=(4, 3, 2)).astype("f"))
    lengths = torch.tensor([3, 2, 2, 1])
    item = (x, torch.nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True))
    run = fit((model, guide), Batches(item), max_steps=2)
    assert evaluate(run, data=[item])["n"] == 4 and np.isfinite(run.log_prob([item], 3)).all()
    with pytest.raises(DataError, match="PackedSequence, which has no rows"):
        run.encode(item)


@dataclass(frozen=True)
class TwoTopics(Program):
    """A row is a mixture of two global vectors, which lie in a plate of their own."""

    def networks(self, nn):
        return {"weight": nn.Linear(4, 1), "vectors": nn.FreeNormal((2, 4))}

    def model(self, ppl, net, x=None):
        with ppl.plate("topics", 2):
            vectors = ppl.sample("vectors", ppl.standard_normal(4))
        with ppl.minibatch(x):
            share = ppl.F.sigmoid(ppl.sample("z", ppl.standard_normal(1)))
            centre = share * vectors[..., 0, :] + (1 - share) * vectors[..., 1, :]
            ppl.sample("x", ppl.dist.Normal(centre, 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        vectors = net.vectors()
        with ppl.plate("topics", 2):
            ppl.sample("vectors", ppl.dist.Normal(vectors.loc, vectors.scale).to_event(1))
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.weight(x), 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_global_latents_in_a_plate_are_the_guides_in_whatever_verb_comes_first(backend):
    verbs = backend_named(backend)
    for verb in ("sample", "decode", "encode", "score"):
        bound = verbs.bind(TwoTopics(), num_data=10)
        weights = bound.weights()
        bound.load_weights(weights | {"vectors.loc": np.full((2, 4), 50, "f")})
        if verb == "sample":
            drawn = verbs.sample(bound, 5)
            assert set(drawn) == {"z", "x", "x_mean"} and np.abs(drawn["x"] - 50).max() < 10
        elif verb == "decode":
            assert np.abs(verbs.decode(bound, {"z": np.zeros((3, 1), "f")})["x"] - 50).max() < 10
        elif verb == "encode":
            assert set(verbs.encode(bound, {"x": np.ones((3, 4), "f")})) == {"z"}
        else:  # of as many rows as the plate has entries, too
            scores = verbs.score(bound, {"x": np.ones((2, 4), "f")})
            assert scores.kl["z"].shape == (2,) and scores.kl_global["vectors"] > 8 * 50**2 / 2
