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


def test_the_axis_of_the_rows_is_that_of_calls_with_other_numbers_of_rows():
    """Two layers of a recurrent network, two particles, one row; a table of as many lines as rows."""
    gru, axes = torch.nn.GRU(3, 2, num_layers=2, batch_first=True), {}

    def module(z, table):
        out, last = gru(z)
        return out @ table[:2], last

    z, table = torch.rand(2, 4, 5, 3), torch.rand(4, 2)
    for rows in (4, 3):
        Folded(F, module, axes, 1, 1, rows)(z[0, :rows], table[: rows + 1])
    out, last = Folded(F, module, axes, 2, 1, 1)(z[:, :1], table)
    assert out.shape == (2, 1, 5, 2) and last.shape == (2, 2, 1, 2)
    for number in range(2):
        expected = module(z[number, :1], table)
        torch.testing.assert_close(out[number], expected[0])
        torch.testing.assert_close(last[:, number], expected[1])
    assert Folded(F, module, axes, 2, 1, 4)(z, table)[0].shape == (2, 4, 5, 2)


class Attentive(torch.nn.Module):
    """Convolution, normalization, a recurrent network and attention, of z and of what has no particles."""

    def __init__(self):
        super().__init__()
        self.of_label, self.conv = torch.nn.Embedding(3, 2), torch.nn.Conv1d(2, 4, 1)
        self.norm, self.attention = (
            torch.nn.BatchNorm1d(4),
            torch.nn.MultiheadAttention(4, 2, batch_first=True),
        )
        self.gru, self.out = torch.nn.GRU(4, 4, batch_first=True), torch.nn.Linear(4, 4)
        self.log_scale = torch.nn.Parameter(torch.zeros(4, 4))

    def forward(self, z, *, label, level):
        b, k = z.shape
        steps = (z + self.of_label(label))[:, :, None].expand(b, k, 4)
        h = self.norm(self.conv(steps)).transpose(1, 2)
        h, last = self.gru(h, level[None].expand(1, b, 4).contiguous())
        h, weights = self.attention(h, h, h)
        return {
            "loc": (self.out(h) + last[0][:, None])[:, None],
            "places": weights.argmax(-1),
        }, self.log_scale


class FlaxAttentive(nnx.Module):
    def __init__(self, rngs):
        self.of_label, self.conv = nnx.Embed(3, 2, rngs=rngs), nnx.Conv(2, 4, (1,), rngs=rngs)
        self.norm, self.out = nnx.BatchNorm(4, rngs=rngs), nnx.Linear(4, 4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.gru, self.log_scale = nnx.RNN(nnx.GRUCell(4, 4, rngs=rngs)), nnx.Param(jnp.zeros((4, 4)))

    def __call__(self, z, *, label, level):
        b, k = z.shape
        steps = jnp.broadcast_to((z + self.of_label(label))[:, None], (b, 4, k))
        h = self.norm(self.conv(steps))
        last, h = self.gru(h, initial_carry=level, return_carry=True)
        h = self.attention(h)
        places = h.argmax(-1)
        return {"loc": (self.out(h) + last[:, None])[:, None], "places": places}, self.log_scale[...]


@dataclass(frozen=True)
class Labelled(Torchs):
    def networks(self, nn):
        return {"encoder": Encoder(), "decoder": Attentive()}

    def model(self, ppl, net, y, x=None):
        level = ppl.F.to_float(y)[:, None] * ppl.F.ones((4,), ppl.F.to_float(y))
        with ppl.minibatch(x, y):
            z = ppl.sample("z", ppl.standard_normal(2))
            found, log_scale = net.decoder(z, label=y, level=level)
            loc = found["loc"] + 0.01 * ppl.F.to_float(found["places"])[..., None, :, None]
            ppl.sample("x", ppl.dist.Normal(loc, ppl.F.exp(log_scale)).to_event(3), obs=x)


@dataclass(frozen=True)
class FlaxLabelled(Labelled):
    backends = ("numpyro",)

    def networks(self, nn):
        return {"encoder": FlaxEncoder(nn.rngs), "decoder": FlaxAttentive(nn.rngs)}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Labelled, FlaxLabelled])
def test_modules_with_names_labels_and_several_outputs_serve_every_verb(kind):
    rows = {"x": X, "y": np.arange(len(X)) % 3}
    report = check(kind(), rows)
    assert report.ok, str(report)
    assert report["particles"].message.startswith("2 samples per row at once give the densities")
    run = fit(kind(), data.of(rows, valid=8), IWAE(5), max_steps=3, batch_size=12)
    few = {name: values[:2] for name, values in rows.items()}
    many = run.log_prob(few, 4000, seed=1)
    assert np.abs(many - run.log_prob(few, 4000, seed=2)).max() < 0.5 and np.isfinite(many).all()
    assert evaluate(run, importance_samples=12)["iw_nats"] > run.history[-1]["elbo_nats"] - 50
    drawn = run.draws(few, 3, method="importance")
    assert drawn.posterior_predictive["x"].shape == (3, 2, 1, 4, 4)
    one = {name: values[:1] for name, values in rows.items()}
    assert run.draws(one, 2).log_likelihood["x"].shape == (2, 1)
    assert (
        run.sample(3, covariates={"y": 1})["x"].shape
        == run.reconstruct({n: v[:3] for n, v in rows.items()})["x"].shape
    )


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
