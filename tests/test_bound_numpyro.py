"""A program bound to NumPyro is a pair of ordinary NumPyro functions with explicit parameters and state."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from exact import decoder, draw, posterior, program, weights
from flax import nnx
from jax import random
from numpyro import handlers
from numpyro.infer import MCMC, NUTS, SVI, Predictive, TraceMeanField_ELBO, log_likelihood
from small_programs import NUM_DATA, ROWS, batch, bound

from ppl_vae import Program, bind
from ppl_vae.backends.numpyro import PlainBound
from ppl_vae.backends.numpyro.distributions import dist
from ppl_vae.backends.numpyro.tracing import Tracer
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


def statistics(state):
    return {name: np.asarray(tree["state"]["mean"]) for name, tree in state.items()}


def test_statistics_of_a_shared_network_are_written_by_the_guide_alone():
    x = np.random.default_rng(0).normal(3.0, size=(64, 2)).astype("f")
    made = bind(Shared(), "numpyro").train()
    moved = statistics(Tracer(made, random.key(0)).pair({"x": x}).state)
    np.testing.assert_allclose(moved["both$state"], 0.1 * x.mean(0), rtol=1e-5)
    assert (moved["own.0$state"] != 0).all()  # a network that only the model calls is written by the model
    still = statistics(Tracer(made.eval(), random.key(0)).pair({"x": x}).state)
    assert all((value == 0).all() for value in still.values())


def test_pyro_writes_the_same_statistics():
    import torch

    from ppl_vae.backends.pyro.tracing import Tracer as Pyros

    x = np.random.default_rng(0).normal(3.0, size=(64, 2)).astype("f")
    made = bind(Shared(), "pyro").train()
    Pyros(made).pair({"x": torch.from_numpy(x)})
    np.testing.assert_allclose(made.weights()["both.mean"], 0.1 * x.mean(0), rtol=1e-5)
    assert (made.weights()["own.0.mean"] != 0).all()


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
    svi = SVI(made.model, made.guide, optax.adam(1e-2), TraceMeanField_ELBO())
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


def test_two_bound_programs_share_nothing():
    first, second = (bind(program(), "numpyro", seed=seed) for seed in (0, 1))
    before = second.weights()
    first.params = jax.tree.map(jnp.zeros_like, first.params)
    for name, value in second.weights().items():
        np.testing.assert_array_equal(value, before[name])
    assert (
        before["encoder.layers.0.weight"]
        != bind(program(), "numpyro", seed=0).weights()["encoder.layers.0.weight"]
    ).any()


def test_the_first_weights_depend_on_the_seed_alone():
    numpyro.set_host_device_count(1)
    one, same = (bind(program(), "numpyro", seed=4).weights() for _ in range(2))
    for name, value in one.items():
        np.testing.assert_array_equal(value, same[name])


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


@pytest.mark.parametrize(
    ("fields", "arguments", "error", "message"),
    [
        ({"layer": "Linaer"}, (), ProgramError, "there is no layer or network 'Linaer': choose one of act"),
        (
            {"layer": "object"},
            (),
            ProgramError,
            "network 'wrong' is a object, not a Network or a flax.nnx.Module",
        ),
        ({"network": "other"}, (np.ones(2),), ProgramError, "no network 'other': it declares made"),
        ({}, (1, 2, 3), ProgramError, "model got 3 arrays, the program declares x, y"),
        ({}, (np.ones(2), np.ones(3)), ProgramError, r"different numbers of rows: \[2, 3\]"),
        ({}, (), UsageError, "no data and no number of draws"),
    ],
)
def test_mistakes_are_named(fields, arguments, error, message):
    with pytest.raises(error, match=message):
        handlers.seed(bind(Asks(**{"layer": "ScaleTril"} | fields), "numpyro").model, 0)(*arguments)


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
