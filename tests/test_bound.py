"""A bound program is a pair of ordinary functions of its library: on Pyro with the parameters of its own
module, on NumPyro with explicit parameters and state.
"""

import copy
import pickle
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pyro
import pytest
import torch
from exact import decoder, draw, posterior, program, weights
from flax import nnx
from jax import random
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, Predictive, TraceMeanField_ELBO, log_likelihood
from small_programs import BACKENDS, NUM_DATA, ROWS, batch, bound
from training_cases import bits, same, small_data, vae

from ppl_vae import Program, bind, fit
from ppl_vae.backends.numpyro import PlainBound
from ppl_vae.backends.numpyro.distributions import dist
from ppl_vae.backends.numpyro.tracing import Tracer
from ppl_vae.backends.pyro import tracing as pyro_tracing
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.program import PlainProgram


@dataclass(frozen=True)
class Shared(Program):
    """The guide and the model call one network with statistics, and the model one of its own."""

    def networks(self, nn):
        return {"both": nn.BatchNorm(2), "own": [nn.BatchNorm(2)]}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.both(net.own[0](z)), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.both(x), 1.0).to_event(1))


@dataclass(frozen=True)
class Own(Program):
    """A network of flax's own."""

    def networks(self, nn):
        return {"enc": nnx.Linear(3, 2, rngs=nn.rngs), "drop": nnx.Dropout(0.5, rngs=nn.rngs)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.standard_normal(2))

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.drop(net.enc(x)), 1.0).to_event(1))


def after_a_pass(bound, x):
    """Return the weights and statistics after one guide/model pair."""
    if bound.backend == "pyro":
        pyro_tracing.Tracer(bound).pair({"x": torch.from_numpy(x)})
    else:
        bound.state = Tracer(bound, random.key(0)).pair({"x": x}).state
    return bound.weights()


@pytest.mark.parametrize("backend", BACKENDS)
def test_statistics_of_a_shared_network_are_written_by_the_guide_alone(backend):
    x = np.random.default_rng(0).normal(3.0, size=(64, 2)).astype("f")
    made = bind(Shared(), backend)
    still = after_a_pass(made.eval(), x)
    assert all((still[name] == 0).all() for name in ("both.mean", "own.0.mean"))
    moved = after_a_pass(made.train(), x)
    np.testing.assert_allclose(moved["both.mean"], 0.1 * x.mean(0), rtol=1e-5)
    assert (moved["own.0.mean"] != 0).all()  # a network that only the model calls is written by the model


def test_networks_of_flax_are_networks():
    made = bind(Own(), "numpyro", seed=1)
    assert set(made.weights()) == {"enc.weight", "enc.bias"}
    x = np.ones((5, 3), "f")
    drawn = Tracer(made.train(), random.key(0)).pair({"x": x}).guide["z"].inner.loc
    assert (np.asarray(drawn) == 0).any()  # dropped
    kept = Tracer(made.eval(), random.key(0)).pair({"x": x}).guide["z"].inner.loc
    np.testing.assert_allclose(
        kept, x @ made.weights()["enc.weight"].T + made.weights()["enc.bias"], rtol=1e-6
    )


@pytest.mark.parametrize("case", ["vae mlp bernoulli", "vqvae ema", "counts negative_binomial"])
def test_stock_svi_trains_within_one_scan(case):
    made, rows = bound(case, "numpyro").train(), jax.tree.map(jnp.asarray, batch(case))
    svi = numpyro.infer.SVI(made.model, made.guide, optax.adam(1e-2), TraceMeanField_ELBO())
    state = svi.init(random.key(0), **rows)
    state, losses = jax.lax.scan(lambda s, _: svi.update(s, **rows), state, None, length=25)
    assert losses[-3:].mean() < losses[:3].mean()
    before = made.weights()
    made.params, made.state = svi.get_params(state), state.mutable_state
    assert any((value != before[name]).any() for name, value in made.weights().items())
    drawn = Predictive(made.model, num_samples=3)(
        random.key(1), **{n: v for n, v in rows.items() if n != "x"}, n=ROWS
    )
    assert drawn["x"].shape == (3, ROWS, *rows["x"].shape[1:])


def test_nuts_finds_the_exact_posterior():
    w, b = decoder()
    made, x = bind(program(), "numpyro", num_data=8), draw(8, w, b)
    made.load_weights(weights(w, b))
    chain = MCMC(NUTS(made.model), num_warmup=300, num_samples=1000, progress_bar=False)
    chain.run(random.key(0), x)
    matrix, offset, cov = posterior(w, b)
    z = np.asarray(chain.get_samples()["z"])
    np.testing.assert_allclose(z.mean(0), x @ matrix.T + offset, atol=0.12 * np.sqrt(cov.max()))
    np.testing.assert_allclose(z.std(0), np.broadcast_to(np.sqrt(np.diag(cov)), (8, 2)), rtol=0.15)
    assert log_likelihood(made.model, {"z": z[:4]}, x)["x"].shape == (4, 8)


def test_stock_tools_see_the_batch_under_the_scale_of_the_data():
    made, rows = bound("vae mlp bernoulli", "numpyro"), batch("vae mlp bernoulli")
    trace = handlers.trace(handlers.seed(made.guide, 0)).get_trace(**rows)
    assert trace["z"]["scale"] == NUM_DATA / ROWS
    np.testing.assert_array_equal(trace["data"]["value"], np.arange(ROWS))
    with made.unscaled():
        trace = handlers.trace(handlers.seed(made.guide, 0)).get_trace(**rows)
    assert trace["z"]["scale"] is None


def test_values_that_a_handler_gives_go_before_those_of_the_bound_program():
    made, rows = bound("linear_gaussian", "numpyro"), batch("linear_gaussian")
    zeros = jax.tree.map(jnp.zeros_like, made.params)
    guide = handlers.substitute(handlers.seed(made.guide, 0), data=zeros)
    assert (handlers.trace(guide).get_trace(**rows)["z"]["fn"].loc == 0).all()
    made.params = zeros
    guide = handlers.seed(made.guide, 0)
    assert (handlers.trace(guide).get_trace(**rows)["z"]["fn"].loc == 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_two_bound_programs_share_nothing(backend):
    first, second = (bind(program(), backend, seed=seed) for seed in (0, 1))
    before = second.weights()
    first.load_weights({name: np.zeros_like(value) for name, value in first.weights().items()})
    assert same(second.weights(), before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_weights_depend_on_the_seed_alone(backend):
    one, again, other = (bind(program(), backend, seed=seed).weights() for seed in (4, 4, 5))
    assert same(one, again)
    assert not np.array_equal(one["encoder.layers.0.weight"], other["encoder.layers.0.weight"])


@dataclass(frozen=True)
class Asks(Program):
    """Asks for what is not there."""

    network: str = ""
    layer: str = ""

    def networks(self, nn):
        return {"wrong": object()} if self.layer == "object" else {"made": getattr(nn, self.layer)(3)}

    def model(self, ppl, net, x=None, y=None):
        with ppl.minibatch(x, y):
            getattr(net, self.network)

    def guide(self, ppl, net, x):
        pass


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("fields", "arguments", "error", "message"),
    [
        (
            {"layer": "Linaer"},
            (),
            ProgramError,
            "there is no layer or network 'Linaer': did you mean Linear",
        ),
        ({"layer": "object"}, (), ProgramError, "network 'wrong' is a object, not a Network or a {module}"),
        ({"network": "other"}, (np.ones(2),), ProgramError, "no network 'other': it declares made"),
        ({}, (1, 2, 3), ProgramError, "model got 3 arrays, the program declares x, y"),
        ({}, (np.ones(2), np.ones(3)), ProgramError, r"different numbers of rows: \[2, 3\]"),
        ({}, (), UsageError, "no data and no number of draws"),
    ],
)
def test_mistakes_are_named(backend, fields, arguments, error, message):
    message = message.replace("{module}", {"pyro": "torch.nn.Module", "numpyro": "flax.nnx.Module"}[backend])
    with pytest.raises(error, match=message):
        made = bind(Asks(**{"layer": "ScaleTril"} | fields), backend)
        (made.model if backend == "pyro" else handlers.seed(made.model, 0))(*arguments)


def test_a_plain_program_starts_from_the_state_before_its_first_run():
    from numpyro.contrib.module import nnx_module

    network = nnx.BatchNorm(4, rngs=nnx.Rngs(0))

    def guide(x):
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", numpyro.distributions.Normal(nnx_module("n", network)(x), 1.0).to_event(1))

    def model(x):
        scale = numpyro.param("s", 2.0, constraint=numpyro.distributions.constraints.positive)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", numpyro.distributions.Normal(jnp.zeros(4), scale).to_event(1))

    made = PlainBound(PlainProgram(model, guide, "mine", "numpyro"), ("x",), 6)
    rows = {"x": np.random.default_rng(0).normal(3.0, size=(6, 4)).astype("f")}
    made.ensure_parameters(rows)
    assert (made.weights()["n$state['state']['mean']"] == 0).all()
    assert made.params["s"] == pytest.approx(2.0) and made.trainable()["s"] == pytest.approx(np.log(2.0))
    moved = Tracer(made, random.key(0)).pair(rows).state["n$state"]["state"]["mean"]
    np.testing.assert_allclose(moved, 0.01 * rows["x"].mean(0), rtol=1e-4)


def test_a_declared_support_goes_through_jax():
    support = dist.LogitLaplace(jnp.zeros(2), jnp.array([1.0, 2.0])).support
    values = jnp.array([-1.0, 0.5])

    @jax.jit
    def inside(support):
        return support(values)

    np.testing.assert_array_equal(inside(support), [False, True])
    assert "tree_flatten" in vars(type(support))  # of its own: NumPyro before 0.22 has none to inherit


def svi_of(bound, optimizer):
    return pyro.infer.SVI(bound.model, bound.guide, optimizer, pyro.infer.Trace_ELBO())


def test_two_programs_train_independently_in_one_process():
    # Under stock SVI, as under fit: each bound program's parameters have names of their own.
    x = torch.from_numpy(bits())
    first, second = (bind(vae().adapted_to(small_data()), num_data=70, seed=seed) for seed in (0, 1))
    before = second.weights()
    svi = [
        pyro.infer.SVI(b.model, b.guide, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO())
        for b in (first, second)
    ]
    start = [float(s.evaluate_loss(x)) for s in svi]
    for _ in range(60):
        svi[0].step(x)
    assert same(second.weights(), before)
    for _ in range(60):
        svi[1].step(x)
    assert all(float(s.evaluate_loss(x)) < 0.95 * old for s, old in zip(svi, start, strict=True))
    pyro.clear_param_store()
    together = [fit(vae(), small_data(), max_steps=5, batch_size=35, seed=s) for s in (0, 1)]
    alone = fit(vae(), small_data(), max_steps=5, batch_size=35, seed=1)
    assert same(together[1].bound.weights(), alone.bound.weights())
    assert not list(pyro.get_param_store().keys())


def pickled(bound):
    return pickle.loads(pickle.dumps(bound))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_a_trained_program_trains_by_itself(copied):
    x, adam = torch.from_numpy(bits()), pyro.optim.Adam({"lr": 1e-2})
    first = bind(vae().adapted_to(small_data()), num_data=70)
    svi_of(first, adam).step(x)
    trained = first.weights()
    second = copied(first)
    assert same(second.weights(), trained)
    svi_of(second, adam).step(x)
    assert same(first.weights(), trained)
    assert not any(np.array_equal(value, trained[name]) for name, value in second.weights().items())
    moved = second.weights()
    svi_of(first, adam).step(x)
    assert same(second.weights(), moved) and not same(first.weights(), trained)
