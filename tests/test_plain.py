"""Files of plain Pyro and plain NumPyro train and evaluate like declared programs."""

import json

import numpy as np
import pytest

from ppl_vae import ELBO, evaluate, fit, load, open_run
from ppl_vae.cli import main

PYRO_MODULES = '''
"""Two torch modules that a class registers by name."""
import pyro
import pyro.distributions as dist
import torch
from torch import nn


class Story(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.Tanh(), nn.Linear(16, 6))
        self.decoder = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 64), nn.Sigmoid())

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("rows", len(x)):
            z = pyro.sample("latent", dist.Normal(torch.zeros(len(x), 3), torch.ones(len(x), 3)).to_event(1))
            probs = self.decoder(z)
            pyro.sample("obs", dist.Bernoulli(probs, validate_args=False).to_event(1), obs=x.reshape(-1, 64))
            return probs

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("rows", len(x)):
            loc, log_scale = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", dist.Normal(loc, log_scale.exp()).to_event(1))


story = Story()
model, guide = story.model, story.guide
'''

PYRO_PARAMS = '''
"""No module at all: every weight is a pyro.param, one of them constrained."""
import pyro
import pyro.distributions as dist
import torch
from torch.distributions import constraints


def model(x):
    w = pyro.param("w", lambda: 0.1 * torch.randn(3, 64))
    b = pyro.param("b", torch.zeros(64))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("obs", dist.Bernoulli(logits=z @ w + b).to_event(1), obs=x.flatten(1))


def guide(x):
    a = pyro.param("a", lambda: 0.1 * torch.randn(64, 3))
    scale = pyro.param("scale", torch.ones(3), constraint=constraints.positive)
    with pyro.plate("rows", len(x)):
        pyro.sample("z", dist.Normal(x.flatten(1) @ a, scale).to_event(1))
'''

PYRO_MODULE = '''
"""A PyroModule whose guide and model are PyroModules of their own."""
import torch
import pyro
import pyro.distributions as dist
from pyro.nn import PyroModule
from torch import nn


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.decoder = PyroModule[nn.Linear](3, 64)

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("obs", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x.flatten(1))


class Guide(PyroModule):
    def __init__(self):
        super().__init__()
        self.encoder = PyroModule[nn.Linear](64, 6)

    def forward(self, x):
        with pyro.plate("rows", len(x)):
            loc, log_scale = self.encoder(x.flatten(1)).chunk(2, -1)
            pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))


model, guide = Model(), Guide()
'''

NUMPYRO_STAX = '''
"""Networks of jax.example_libraries, registered by numpyro.module."""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.example_libraries import stax


def layers(width, out):
    return stax.serial(stax.Dense(width), stax.Softplus, stax.Dense(out))


def model(batch, width=16, z_dim=3):
    flat = jnp.reshape(batch, (batch.shape[0], -1))
    decode = numpyro.module("decoder", layers(width, 64), (len(flat), z_dim))
    with numpyro.plate("rows", len(flat)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([z_dim]).to_event(1))
        return numpyro.sample("obs", dist.Bernoulli(logits=decode(z)).to_event(1), obs=flat)


def guide(batch, width=16, z_dim=3):
    flat = jnp.reshape(batch, (batch.shape[0], -1))
    encode = numpyro.module("encoder", layers(width, 2 * z_dim), (len(flat), 64))
    loc, log_scale = jnp.split(encode(flat), 2, -1)
    with numpyro.plate("rows", len(flat)):
        return numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))
'''

NUMPYRO_PARAMS = '''
"""Every weight is a numpyro.param, one of them constrained."""
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax import random


def model(x):
    w = numpyro.param("w", lambda key: 0.1 * random.normal(key, (3, 64)))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(0, 1).expand([3]).to_event(1))
        numpyro.sample("obs", dist.Bernoulli(logits=z @ w).to_event(1), obs=x.reshape(len(x), -1))


def guide(x):
    a = numpyro.param("a", lambda key: 0.1 * random.normal(key, (64, 3)))
    scale = numpyro.param("scale", jnp.ones(3), constraint=dist.constraints.positive)
    with numpyro.plate("rows", len(x)):
        numpyro.sample("z", dist.Normal(x.reshape(len(x), -1) @ a, scale).to_event(1))
'''

FILES = {
    "pyro_modules": PYRO_MODULES,
    "pyro_params": PYRO_PARAMS,
    "pyro_module": PYRO_MODULE,
    "numpyro_stax": NUMPYRO_STAX,
    "numpyro_params": NUMPYRO_PARAMS,
}
DATA = ["--data", "digits", "--binarize", "static"]


@pytest.mark.parametrize("name", FILES)
def test_a_plain_file_trains_and_evaluates_from_the_command_line(folder, capsys, name):
    (folder / f"{name}.py").write_text(FILES[name])
    train = ["train", f"{name}.py", *DATA, "--epochs", "15", "--lr", "0.02", "--seed", "1", "--out", "run"]
    assert main(train) == 0
    trained = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert trained["backend"] == name.split("_")[0]
    assert main(["evaluate", "run", "--importance-samples", "10"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    # Independent fair bits cost 64 log 2 = 44.4 nats.
    assert -40 < result["elbo_nats"] < -20
    # Each bound takes draws of its own: with k=10 noise is about as large as the gain.
    assert result["iw_nats"] > result["elbo_nats"] - 0.2
    assert open_run("run").steps == trained["steps"]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("objective", ["Trace_ELBO", ELBO(), ELBO(beta=0.5)])
def test_objectives_agree_on_a_plain_file(folder, name, objective):
    (folder / f"{name}.py").write_text(FILES[name])
    x = (np.random.default_rng(0).random((60, 1, 8, 8)) < 0.3).astype(np.float32)
    run = fit(load(f"./{name}.py"), x, objective, max_steps=60, batch_size=24, lr=0.03, log_every=10)
    losses = [row["loss"] for row in run.history if row["split"] == "train"]
    assert losses[-1] < losses[0] - 1
    assert evaluate(run)["n"] == 6


def test_two_copies_of_a_plain_file_share_nothing(folder):
    (folder / "story.py").write_text(PYRO_MODULES)
    x = (np.random.default_rng(0).random((60, 1, 8, 8)) < 0.3).astype(np.float32)
    one, other = load("./story.py"), load("./story.py")
    before = [p.detach().clone() for p in other.model.__self__.parameters()]
    fit(one, x, max_steps=5, batch_size=24)
    assert all((p == old).all() for p, old in zip(other.model.__self__.parameters(), before, strict=True))


NAMED_MODULE = '''
"""A function that names a module with dropout and a running mean."""
import pyro
import pyro.distributions as dist
import torch
from torch import nn

encoder = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Dropout(0.5), nn.Linear(64, 6))


def model(x):
    w = pyro.param("w", lambda: 0.1 * torch.randn(3, 64))
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", dist.Normal(torch.zeros(3), 1.0).to_event(1))
        pyro.sample("obs", dist.Bernoulli(logits=z @ w).to_event(1), obs=x.flatten(1))


def guide(x):
    pyro.module("encoder", encoder)
    with pyro.plate("rows", len(x)):
        loc, log_scale = encoder(x).chunk(2, -1)
        pyro.sample("z", dist.Normal(loc, log_scale.exp()).to_event(1))
'''


def test_modules_that_a_function_names_are_evaluated_in_eval_mode_and_saved_with_their_buffers(folder):
    (folder / "named.py").write_text(NAMED_MODULE)
    x = (np.random.default_rng(0).random((60, 1, 8, 8)) < 0.3).astype(np.float32)
    run = fit(load("./named.py"), x, max_steps=20, batch_size=20, out=folder / "run")
    # Dropout or batch statistics would make a row's bound depend on its neighbours.
    scores = [run.score(x[part], seed=0).kl["z"] for part in (slice(0, 10), slice(0, 30))]
    np.testing.assert_allclose(scores[0], scores[1][:10], rtol=1e-5)
    again = open_run(folder / "run", data=x)
    np.testing.assert_allclose(again.score(x[:10], seed=0).kl["z"], scores[0], rtol=1e-6)


NOT_TRAINED = NAMED_MODULE.replace(
    "def guide(x):", "features = nn.Linear(64, 64)\n\n\ndef guide(x):"
).replace("encoder(x)", "encoder(features(x.flatten(1)).reshape(x.shape))")


@pytest.mark.filterwarnings("ignore:.* was not registered in the param store")  # Pyro's, of frozen layers
@pytest.mark.parametrize("frozen", [True, False])
def test_weights_that_are_not_trained_are_kept(folder, frozen, caplog):
    """A module that no `pyro.module` registers, and a frozen layer of one."""
    register = 'features.requires_grad_(False)\n    pyro.module("features", features)\n    pyro.module('
    text = NOT_TRAINED.replace("pyro.module(", register) if frozen else NOT_TRAINED
    (folder / "fixed.py").write_text(text)
    x = (np.random.default_rng(0).random((60, 1, 8, 8)) < 0.3).astype(np.float32)
    run = fit(load("./fixed.py"), x, max_steps=3, batch_size=20, out=folder / "run")
    again = open_run(folder / "run", data=x)  # executes the file, which draws other weights
    assert np.array_equal(again.score(x, seed=0).elbo, run.score(x, seed=0).elbo)
    weights = {name: v for name, v in run.bound.weights().items() if not name.startswith("fixed")}
    assert len(weights) == len(run.bound.weights()) - 2
    with caplog.at_level("WARNING", logger="ppl_vae"):
        again.bound.load_weights(weights)  # of a run of an earlier version
    assert "not trained" in caplog.text and "weight" in caplog.text
