"""Torch and flax modules of a user's own, which take [B, ...] alone, in every verb; batches of one row."""

from dataclasses import dataclass
from itertools import count

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx

from ppl_vae import IWAE, Program, check, data, evaluate, export, fit, posterior
from ppl_vae.backends.common.folding import Folded
from ppl_vae.backends.pyro.functions import F
from ppl_vae.errors import ProgramError

X = np.random.default_rng(0).random((44, 1, 4, 4)).astype(np.float32)


class Encoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.features = torch.nn.Sequential(
            torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.BatchNorm2d(3), torch.nn.Flatten()
        )
        self.out = torch.nn.Linear(48, 4)

    def forward(self, x):
        b, _c, _h, _w = x.shape  # no other axes
        return self.out(self.features(x).reshape(b, -1)).chunk(2, 1)


class Decoder(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gru = torch.nn.GRU(2, 4, batch_first=True)

    def forward(self, z):
        b, k = z.shape
        return self.gru(z[:, None].expand(b, 4, k))[0].reshape(b, 1, 4, 4)


class FlaxEncoder(nnx.Module):
    def __init__(self, rngs):
        self.conv, self.norm = nnx.Conv(1, 3, (3, 3), rngs=rngs), nnx.BatchNorm(3, rngs=rngs)
        self.out = nnx.Linear(48, 4, rngs=rngs)

    def __call__(self, x):
        b, _c, _h, _w = x.shape
        features = self.norm(self.conv(x.transpose(0, 2, 3, 1))).reshape(b, -1)
        return tuple(jnp.split(self.out(features), 2, 1))


class FlaxDecoder(nnx.Module):
    def __init__(self, rngs):
        self.gru = nnx.RNN(nnx.GRUCell(2, 4, rngs=rngs))

    def __call__(self, z):
        b, k = z.shape
        return self.gru(jnp.broadcast_to(z[:, None], (b, 4, k))).reshape(b, 1, 4, 4)


@dataclass(frozen=True)
class Torchs(Program):
    x_shape: tuple[int, ...] | None = None
    backends = ("pyro",)

    def networks(self, nn):
        return {"encoder": Encoder(), "decoder": Decoder()}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.3).to_event(3), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, log_scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, ppl.F.exp(log_scale)).to_event(1))


class Flaxs(Torchs):
    backends = ("numpyro",)

    def networks(self, nn):
        return {"encoder": FlaxEncoder(nn.rngs), "decoder": FlaxDecoder(nn.rngs)}


@pytest.fixture(scope="module", params=[Torchs, Flaxs])
def run(request):
    return fit(request.param(), data.of(X, valid=8), IWAE(5), max_steps=3, batch_size=12)


def test_modules_that_take_rows_alone_serve_every_verb(run, tmp_path):
    assert evaluate(run, importance_samples=12)["iw_nats"] > run.history[-1]["elbo_nats"] - 50
    assert run.encode(X[:5])["z"].shape == (5, 2) and run.sample(3)["x"].shape == (3, 1, 4, 4)
    assert run.reconstruct(X[:4])["x"].shape == run.decode(np.zeros((4, 2)))["x"].shape == (4, 1, 4, 4)
    for method in ("guide", "importance"):
        tree = posterior(run, X[:4], method, num_samples=4)
        assert tree["posterior"]["z"].shape == (1, 4, 4, 2)
    if run.backend == "pyro":
        export(run, tmp_path / "encode.pt2")


@pytest.mark.parametrize("kind", [Torchs, pytest.param(Flaxs, marks=pytest.mark.slow)])
def test_particles_at_once_give_the_densities_of_one_by_one(kind):
    report = check(kind(), X)
    assert report.ok, str(report)
    assert report["particles"].message.startswith(
        "2 samples per row at once give the densities of one by one"
    )


@pytest.mark.parametrize("particles", [4, 7])  # as many as rows, too
def test_axes_of_particles_are_folded_and_unfolded(particles):
    seen, axes = [], {}

    def module(x, z, state=None):
        seen.append((tuple(x.shape), tuple(z.shape)))
        return torch.cat([x.sum(1), z], -1), z[None]

    x, z = torch.rand(4, 4, 3), torch.rand(particles, 4, 2)
    Folded(F, module, axes, 1, 1, 4)(x, z[0])
    out, last = Folded(F, module, axes, particles, 1, 4)(x, z)
    assert seen == [((4, 4, 3), (4, 2)), ((4 * particles, 4, 3), (4 * particles, 2))]
    assert out.shape == (particles, 4, 5) and last.shape == (1, particles, 4, 2)
    for number in range(particles):
        torch.testing.assert_close(out[number], module(x, z[number])[0])


@dataclass(frozen=True)
class Normed(Program):
    x_shape: tuple[int, ...] | None = None
    backends = ("pyro",)

    def networks(self, nn):
        norm = torch.nn.BatchNorm1d(5)
        return {"encoder": nn.Sequential(nn.Linear(6, 5), norm, nn.Linear(5, 4)), "decoder": nn.Linear(2, 6)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            h = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(h[..., :2], ppl.F.exp(h[..., 2:])).to_event(1))


@pytest.mark.parametrize(
    ("rows", "options", "refused"),
    [
        (17, {"epochs": 1, "batch_size": 8}, True),
        (17, {"max_steps": 2, "batch_size": 8}, False),
        (18, {"epochs": 1, "batch_size": 8}, False),
        (18, {"epochs": 1, "batch_size": 9, "accumulate": 5}, True),
        (16, {"epochs": 1, "batch_size": 1}, True),
    ],
)
def test_a_batch_of_one_row_is_refused_before_training(rows, options, refused):
    x = data.of(np.random.default_rng(0).normal(size=(rows + 8, 6)).astype(np.float32), valid=4, test=4)
    told = count()

    def tell(event, state):
        next(told)

    if not refused:
        fit(Normed(), x, callbacks=[tell], **options)
        return
    with pytest.raises(ProgramError, match="one row.*'encoder'.*Expected more than 1 value.*batch_size"):
        fit(Normed(), x, callbacks=[tell], **options)
    assert next(told) == 0
    assert "in train mode with one row network 'encoder'" in check(Normed(), x)["batch sizes"].message


@dataclass(frozen=True)
class Conditional(Program):
    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (5,), 2), "decoder": nn.MLP(3, (5,), 6)}

    def model(self, ppl, net, x=None, y=None):
        with ppl.minibatch(x, y):
            z = ppl.sample("z", ppl.standard_normal(2))
            loc = net.decoder(ppl.F.concat([z, y[..., None]], -1))
            ppl.sample("x", ppl.dist.Normal(loc, 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x, y=None):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_check_passes_a_program_that_draws_given_covariates(backend):
    rng = np.random.default_rng(0)
    rows = {"x": rng.normal(size=(40, 6)).astype(np.float32), "y": rng.random(40).astype(np.float32)}
    report = check(Conditional(), rows, backend=backend)
    assert report.ok, str(report)
    assert report["prior"].message == "draws x given y: so do sample and decode"
