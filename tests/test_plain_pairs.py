"""Pairs of functions, as the libraries' examples write them, on both backends: the same terms for both."""

import importlib

import numpy as np
import plain_numpyro
import plain_pyro
import pytest

from ppl_vae import ELBO, IWAE, data, evaluate, fit, open_run, posterior, resume
from ppl_vae.errors import UsageError

both = pytest.mark.parametrize("backend", ["pyro", "numpyro"])
PAIRS = {"pyro": plain_pyro, "numpyro": plain_numpyro}
X = (np.random.default_rng(0).random((40, 6)) < 0.4).astype("f")
FOUND = data.of({"train": {"x": X}, "test": {"x": X}}, valid=0)


@both
@pytest.mark.parametrize("named", [True, False])
def test_a_pair_trains_evaluates_goes_on_and_is_opened_again(backend, named, tmp_path):
    functions, file = PAIRS[backend], PAIRS[backend].__file__
    pair, options = (functions.model, functions.guide), {"batch_size": 20, "lr": 0.01}
    given = {"backend": backend} if named else {}
    run = fit(pair, FOUND, max_steps=4, out=tmp_path / "run", **given, **options)
    assert run.backend == backend
    scores = run.score(X, seed=1).elbo
    again = open_run(tmp_path / "run", model_file=file, data=FOUND)
    np.testing.assert_array_equal(again.score(X, seed=1).elbo, scores)
    assert evaluate(again)["n"] == 40 and run.encode(X)["z"].shape == (40, 3)
    assert run.reconstruct(X)["x"].shape == (40, 6)
    assert posterior(run, X[:4], num_samples=3)["posterior"]["z"].shape == (1, 3, 4, 3)
    assert resume(tmp_path / "run", model_file=file, data=FOUND, max_steps=6).steps == 6


def test_a_pair_of_the_other_library_is_refused_by_name():
    pair = (plain_pyro.model, plain_pyro.guide)
    with pytest.raises(UsageError, match="runs on pyro only: choose backend='pyro'"):
        fit(pair, FOUND, max_steps=1, backend="numpyro")


def written(backend, shape=None, size=True):
    """Return a pair whose decoder flattens to `shape`, and whose plate over the rows may have no size."""
    library = importlib.import_module(backend)
    dist = library.distributions
    ones = importlib.import_module("torch" if backend == "pyro" else "jax.numpy").ones

    def rows(x):
        return library.plate("data", len(x)) if size else library.plate("data")

    def decoded(z):
        flat = z if shape is None else z.reshape(*shape)
        loc = library.param("bias", 0.5 * ones(2)) + 2.0 * flat
        return loc if shape is None else loc.reshape(z.shape)

    def model(x):
        with rows(x):
            z = library.sample("z", dist.Normal(0 * x, 1.0).to_event(1))
            library.sample("seen", dist.Normal(decoded(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with rows(x):
            library.sample("z", dist.Normal(library.param("w", ones(2)) * x, 1.0).to_event(1))

    return model, guide


ROWS = np.random.default_rng(1).normal(size=(12, 2)).astype("f")


def mixing(backend, axis):
    """Return a pair whose decoder is a softmax: over axis 1 it has no wrong shape in a plate of particles,
    where it mixes rows.
    """
    library = importlib.import_module(backend)
    softmax = importlib.import_module({"pyro": "torch", "numpyro": "jax.nn"}[backend]).softmax

    def model(x):
        with library.plate("data", len(x)):
            z = library.sample("z", library.distributions.Normal(0 * x, 1.0).to_event(1))
            library.sample("x", library.distributions.Normal(softmax(z, axis), 1.0).to_event(1), obs=x)

    return model, written(backend)[1]


@both
def test_importance_weights_are_drawn_one_by_one_where_axes_are_mixed(backend):
    one, other = (
        evaluate(
            fit(mixing(backend, axis), data.of(ROWS, valid=0, test=0), max_steps=1, batch_size=12),
            "train",
            importance_samples=400,
        )
        for axis in (-1, 1)
    )
    assert one["elbo_nats"] == pytest.approx(other["elbo_nats"], rel=1e-5)
    assert one["iw_nats"] == pytest.approx(other["iw_nats"], abs=0.1)


@both
def test_importance_weights_need_no_plate_of_particles(backend):
    exact = -0.5 * (((ROWS - 0.5) ** 2).sum(1) / 5 + 2 * np.log(2 * np.pi * 5))
    for shape in (None, (-1, 2)):
        run = fit(
            written(backend, shape), data.of(ROWS, valid=0, test=0), max_steps=1, batch_size=12, lr=1e-6
        )
        result = evaluate(run, "train", importance_samples=300)
        assert result["iw_nats"] == pytest.approx(exact.mean(), abs=0.1)


@both
def test_an_objective_of_several_particles_needs_no_plate_of_them(backend):
    found = data.of(np.tile(ROWS, (60, 1)), valid=0, test=0)
    plate, loop = (
        fit(mixing(backend, axis), found, IWAE(4), max_steps=1, batch_size=720, lr=1e-6) for axis in (-1, 1)
    )
    assert loop.bound.loops and not plate.bound.loops
    assert loop.history[0]["loss"] == pytest.approx(plate.history[0]["loss"], abs=0.1)


@pytest.mark.parametrize("objective", [ELBO(), IWAE(2), "Trace_ELBO", "JitTrace_ELBO"])
def test_a_plate_without_a_size_takes_any_number_of_rows(objective):
    runs = [
        fit(written("pyro", size=size), data.of(ROWS, valid=0, test=0), objective, max_steps=4, batch_size=5)
        for size in (True, False)
    ]
    one, other = (evaluate(run, "train", importance_samples=5) for run in runs)
    assert one["elbo_nats"] == other["elbo_nats"] and one["iw_nats"] == other["iw_nats"]


def loss_of(bound, objective, seed):
    """Return an objective's bound of all rows at a seed, in nats per row."""
    loss = importlib.import_module(f"ppl_vae.backends.{bound.backend}.objectives").Objective
    scalars = {"beta": 1.0}
    if bound.backend == "pyro":
        import torch

        torch.manual_seed(seed)
        value = loss(bound, objective, len(X))({"x": torch.from_numpy(X)}, scalars).value
    else:
        import jax

        key = jax.random.key(seed)
        value = loss(bound, objective, len(X))(bound.trainable(), bound.state, key, {"x": X}, scalars).value
    return -float(value.detach() if bound.backend == "pyro" else value)


@both
def test_our_bound_is_that_of_the_stock_elbos_at_the_same_draws(backend):
    infer = importlib.import_module(f"{backend}.infer")
    functions = PAIRS[backend]
    bound = fit((functions.model, functions.guide), FOUND, max_steps=1, batch_size=20).bound
    names = {"Trace_ELBO": False, "TraceMeanField_ELBO": True}
    names |= {"JitTrace_ELBO": False, "TraceEnum_ELBO": False} if backend == "pyro" else {}
    for name, analytic in names.items():
        options = {"max_plate_nesting": 1, "strict_enumeration_warning": False} if "Enum" in name else {}
        stock = loss_of(bound, getattr(infer, name)(**options), 3)
        assert loss_of(bound, ELBO(analytic_kl=analytic), 3) == pytest.approx(stock, rel=1e-5), name


def half_labelled():
    """Return a pair with labels, which the guide sums out of the batches without, and these batches."""
    import pyro
    import torch
    from pyro import distributions as dist

    def model(x, y=None):
        loc = pyro.param("loc", torch.tensor([[0.0, 1.0], [2.0, -1.0], [-2.0, 0.5]]))
        with pyro.plate("data"):
            y = pyro.sample("y", dist.OneHotCategorical(torch.ones(len(x), 3) / 3), obs=y)
            pyro.sample("x", dist.Normal(y @ loc, 1.0).to_event(1), obs=x)

    def guide(x, y=None):
        weight = pyro.param("weight", torch.tensor([[0.1, 0.5, -0.2], [0.3, -0.4, 0.0]]))
        with pyro.plate("data"):
            if y is None:
                pyro.sample("y", dist.OneHotCategorical(logits=x @ weight))

    y = torch.eye(3)[torch.arange(60) % 3]
    x = y @ torch.tensor([[0.0, 1.0], [2.0, -1.0], [-2.0, 0.5]]) + torch.from_numpy(np.tile(ROWS, (5, 1)))
    batches = [(x[:20], y[:20]), (x[20:40],), (x[40:],)]
    return (model, pyro.infer.config_enumerate(guide, "parallel", expand=True)), batches


def test_half_labelled_batches_train_as_the_stock_loop_does():
    """Where the guide has labels alone the stock loss has no noise: step by step it is equal."""
    import pyro
    import torch

    pair, batches = half_labelled()
    elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1, strict_enumeration_warning=False)
    losses = []
    store = pyro.get_param_store()
    with store.scope():
        elbo.loss(*pair, *batches[1])  # makes the parameters
        # SVI.step gives a weight that a batch does not reach a gradient of zero; here it has none.
        optimizer = torch.optim.Adam([value for _, value in store.named_parameters()], lr=0.05)
        for batch in 4 * batches:
            optimizer.zero_grad()
            loss = elbo.differentiable_loss(*pair, *batch) / 20
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    loader = torch.utils.data.DataLoader(batches, batch_size=None)
    run = fit(pair, loader, elbo, epochs=4, lr=0.05, log_every=1)
    np.testing.assert_allclose([-row["elbo_nats"] for row in run.history if "elbo_nats" in row], losses, 1e-5)
    with pyro.get_param_store().scope(run.bound._store), torch.no_grad():
        bounds = [-elbo.loss(run.bound.model, run.bound.guide, *batch) / 20 for batch in batches]
    for batch, bound in zip(batches, bounds, strict=True):  # the labels of a pass are drawn
        many = [tuple(value.repeat(50, 1) for value in batch)]
        found = evaluate(run, data=many)
        assert found["elbo_nats"] == pytest.approx(bound, abs=1e-5 if len(batch) == 2 else 0.1)


@pytest.mark.slow
def test_batch_norm_and_dropout_of_flax_have_the_stock_losses_and_statistics():
    nn, numpyro = pytest.importorskip("flax.linen"), pytest.importorskip("numpyro")
    jax, dist = importlib.import_module("jax"), numpyro.distributions
    flax_module = importlib.import_module("numpyro.contrib.module").flax_module

    class Net(nn.Module):
        width: int

        @nn.compact
        def __call__(self, x):
            h = nn.Dropout(0.3, deterministic=False)(nn.Dense(5)(x))
            return nn.Dense(self.width)(nn.BatchNorm(use_running_average=False)(h))

    def net(name, inputs, width):
        options = {"input_shape": (1, inputs), "apply_rng": ["dropout"], "mutable": ["batch_stats"]}
        called = flax_module(name, Net(width), **options)
        return lambda x: called(x, rngs={"dropout": numpyro.prng_key()})

    def model(x):
        decoder = net("decoder", 3, 6)
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0, jax.numpy.ones(3)).to_event(1))
            numpyro.sample("x", dist.Bernoulli(logits=decoder(z)).to_event(1), obs=x)

    def guide(x):
        encoder = net("encoder", 6, 3)
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", dist.Normal(encoder(x), 0.5).to_event(1))

    infer = numpyro.infer
    objectives = infer.Trace_ELBO(), ELBO(analytic_kl=False), infer.TraceMeanField_ELBO(), ELBO()
    runs = [
        fit((model, guide), FOUND, one, max_steps=5, batch_size=40, log_every=1, backend="numpyro")
        for one in objectives
    ]
    curves = [[row["elbo_nats"] for row in run.history if "loss" in row] for run in runs]
    assert len(curves[0]) == 5
    for stock, own in ((0, 1), (2, 3)):
        np.testing.assert_allclose(curves[own], curves[stock], rtol=1e-4)
        for one, other in zip(*(jax.tree.leaves(runs[n].bound.state) for n in (own, stock)), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)
    losses = [loss_of(runs[0].bound, objectives[0], seed) for seed in range(30)]
    bounds = [evaluate(runs[0], "test", seed=seed)["elbo_nats"] for seed in range(30)]
    error = np.hypot(np.std(losses), np.std(bounds)) / 30**0.5
    assert np.mean(bounds) == pytest.approx(np.mean(losses), abs=4 * error)
