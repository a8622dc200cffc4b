"""Models that read x beside observing it: densities, draws, and the verbs that do not apply."""

import importlib
import itertools
from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import torch
from on_backend import BACKENDS
from toys import Autoregressive

from ppl_vae import bind, contract, data, fit
from ppl_vae.backends.pyro.check import probe as pyro_probe
from ppl_vae.errors import ProgramError
from ppl_vae.program import PlainProgram

WIDTH = 4
RNG = np.random.default_rng(0)
BITS = data.of(RNG.integers(0, 2, (40, WIDTH)).astype(np.uint8), name="bits")
ALL = np.array(list(itertools.product([0, 1], repeat=WIDTH)), np.float32)
LIKE = {"x": np.zeros((1, WIDTH), np.float32)}


@dataclass(frozen=True)
class FromZeros(Autoregressive):
    """Reads zeros where there is no data: what it draws then is not what it scores."""

    def read(self, ppl, z, x):
        return ppl.F.zeros((*z.shape[:-1], WIDTH), z) if x is None else x


@dataclass(frozen=True)
class OneByOne(Autoregressive):
    """A site for each bit, which reads what `ppl.sample` returned for those before."""

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            seen = ppl.F.zeros((*z.shape[:-1], WIDTH), z)
            for place in range(WIDTH):
                bit = ppl.dist.Bernoulli(logits=net.decoder(z, self.among(x, seen))[..., place])
                drawn = ppl.sample(f"x{place}", bit, obs=None if x is None else x[..., place])
                here = ppl.F.to_float(ppl.F.arange(WIDTH, z) == place)
                seen = seen + ppl.F.expand_dims(ppl.F.to_float(drawn), -1) * here

    def among(self, x, seen):
        return seen


@dataclass(frozen=True)
class OneByOneOfData(OneByOne):
    def among(self, x, seen):
        return x


def slowly(*names):
    """Return kinds of programs as parameters, those of some names among the long tests."""
    kinds = Autoregressive, FromZeros, OneByOne, OneByOneOfData
    return [pytest.param(one, marks=pytest.mark.slow if one.__name__ in names else ()) for one in kinds]


def bound_program(kind, backend):
    bound = bind(kind(x_shape=(WIDTH,)), backend=backend, seed=3)
    return bound, importlib.import_module(f"ppl_vae.backends.{backend}")


def from_prior(ppl, net, x):
    return ppl.standard_normal(3).expand((x.shape[0],))


SLOW = [
    pytest.param(
        kind, backend, marks=pytest.mark.slow if backend == "numpyro" and kind is not Autoregressive else ()
    )
    for kind in (Autoregressive, FromZeros, OneByOne)
    for backend in BACKENDS
]


@pytest.mark.parametrize(("kind", "backend"), SLOW)
def test_draws_have_the_density_that_scores_them(kind, backend):
    """With the prior for a guide the importance weighted bound is the density, up to noise."""
    kind = type(kind.__name__, (kind,), {"posterior": staticmethod(from_prior)})
    bound, verbs = bound_program(kind, backend)
    density = np.exp(verbs.score(bound, {"x": ALL}, 1000).iw)
    assert density.sum() == pytest.approx(1, abs=0.02)
    drawn = verbs.sample(bound, 4000, seed=1, like=LIKE)
    x = drawn["x"] if "x" in drawn else np.stack([drawn[f"x{place}"] for place in range(WIDTH)], -1)
    often = (x[:, None] == ALL).all(-1).mean(0)
    assert np.abs(often - density).max() < 0.025


class Counts(Autoregressive):
    """Torch's draws of counts take more or less noise: rows are drawn one by one. y is observed too."""

    backends = ("pyro",)

    def model(self, ppl, net, x=None, y=None):
        with ppl.minibatch(x, y):
            ppl.sample("z", ppl.standard_normal(self.z_dim))
            y = ppl.sample("y", ppl.dist.Bernoulli(ppl.array(0.5)), obs=y)
            before = ppl.F.concat([0 * x[..., :1], x[..., :-1]])
            rate = 0.5 + 0.5 * before + ppl.F.expand_dims(y, -1)
            ppl.sample("x", ppl.dist.Poisson(rate).to_event(1), obs=x)


@pytest.mark.slow
def test_counts_are_drawn_in_order_at_covariates():
    bound, verbs = bound_program(Counts, "pyro")
    drawn = verbs.sample(bound, 300, covariates={"y": np.ones(300, np.float32)}, like=LIKE)
    assert "y" not in drawn or (drawn["y"] == 1).all()
    # E x_t = 1.5 + E x_{t-1} / 2; the noise is that of 300 counts.
    assert np.abs(drawn["x"].mean(0) - [1.5, 2.25, 2.625, 2.8125]).max() < 0.35
    assert np.corrcoef(drawn["x"][:, 0], drawn["x"][:, 1])[0, 1] == pytest.approx(0.378, abs=0.2)


@pytest.mark.parametrize("backend", BACKENDS)
def test_verbs_that_do_not_apply_are_refused_by_name(backend, caplog):
    bound, verbs = bound_program(Autoregressive, backend)
    latents = {"z": np.zeros((2, 3), np.float32)}
    for verb in (
        lambda: verbs.decode(bound, latents, like=LIKE),
        lambda: verbs.reconstruct(bound, {"x": ALL}),
    ):
        with pytest.raises(ProgramError, match="does not apply: the likelihood of 'x' .* reads x itself"):
            verb()
    drawn = verbs.draws(bound, {"x": ALL}, 2)
    assert drawn.posterior["z"].shape == (2, len(ALL), 3)
    assert not drawn.posterior_predictive and not drawn.prior_predictive
    assert "no predictive draws: the likelihood of 'x' reads x itself; draw rows with sample" in caplog.text


def test_sites_that_read_the_data_of_others_are_not_drawn():
    bound, verbs = bound_program(OneByOneOfData, "pyro")
    with pytest.raises(ProgramError, match="site 'x0' reads x, .*: let it read what ppl.sample returns"):
        verbs.sample(bound, 3, like=LIKE)
    bound, verbs = bound_program(OneByOne, "pyro")
    assert set(verbs.draws(bound, {"x": ALL}, 2).posterior_predictive) == {f"x{n}" for n in range(WIDTH)}
    with pytest.raises(ProgramError, match=r"reconstruct does not apply.*\(site 'x0'\)"):
        verbs.reconstruct(bound, {"x": ALL})


def test_a_likelihood_that_is_no_density_is_told_wherever_it_draws(caplog):
    @dataclass(frozen=True)
    class Leaky(FromZeros):
        of: str = "all"

    bound, verbs = bound_program(Leaky, "pyro")
    assert abs(np.exp(verbs.score(bound, {"x": ALL}, 300).iw).sum() - 1) > 0.05
    verbs.sample(bound, 3, like=LIKE)
    assert "sample: the likelihood of 'x' reads the value that it scores" in caplog.text


def test_a_run_draws_in_order_and_evaluates():
    run = fit(Autoregressive(), BITS, max_steps=1, batch_size=20)
    drawn = run.sample(5)
    assert set(np.unique(drawn["x"])) <= {0, 1} and drawn["x_mean"].shape == (5, WIDTH)
    with pytest.raises(ProgramError, match="decode does not apply"):
        run.decode(np.zeros((2, 3)))


def check(program, rows=BITS):
    return contract.check(program, rows, {"pyro": pyro_probe}, "pyro")


@pytest.mark.parametrize("kind", slowly("FromZeros", "OneByOneOfData"))
def test_check_passes_them_and_says_which_verbs_do_not_apply(kind):
    report = check(kind())
    assert report.ok, str(report)
    assert "reads x itself, entries depend on others in an order; reconstruct" in report["entries"].message
    assert "decode does not apply" in report["decoding"].message
    drawn = {OneByOne: "draws x0, x1, x2, x3 without data", OneByOneOfData: "sample does not apply"}
    assert drawn.get(kind, "sample draws its entries") in report["prior"].message


DECODER = torch.nn.Linear(WIDTH + 1, WIDTH)


def model(x):
    pyro.module("decoder", DECODER)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", pyro.distributions.Normal(0.0, 1.0))
        for place in range(WIDTH):
            seen = torch.cat([x * (torch.arange(WIDTH) < place), z[..., None]], -1)
            pyro.sample(
                f"x{place}", pyro.distributions.Bernoulli(logits=DECODER(seen)[..., place]), obs=x[:, place]
            )


def guide(x):
    loc = pyro.param("loc", torch.zeros(()))
    with pyro.plate("data", len(x)):
        pyro.sample("z", pyro.distributions.Normal(loc, 1.0))


def test_a_pair_that_loops_over_entries_passes():
    report = check(PlainProgram(model, guide))
    assert report.ok, str(report)
    assert "site 'x0' reads x itself" in report["entries"].message


class Pixels(torch.nn.Module):
    """A convolution of the pixels above and to the left of each one."""

    def __init__(self, itself):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 1, 3, padding=1)
        mask = torch.ones(3, 3)
        mask[1, 1 + itself :] = mask[2] = 0
        self.register_buffer("mask", mask)

    def forward(self, x):
        return torch.nn.functional.conv2d(x, self.conv.weight * self.mask, self.conv.bias, padding=1)


@dataclass(frozen=True)
class MaskedConvolution(Autoregressive):
    backends = ("pyro",)
    itself: bool = False

    def networks(self, ppl_nn):
        return super(Autoregressive, self).networks(ppl_nn) | {
            "decoder": ppl_nn.Linear(self.z_dim, self.x_shape[-1]),
            "pixels": Pixels(self.itself),
        }

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            logits = net.decoder(z)[..., None, None, :] + net.pixels(x)
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(3), obs=x)


IMAGES = data.of(RNG.integers(0, 2, (40, 1, 18, 18)).astype(np.uint8), name="images")


@pytest.mark.slow
def test_a_masked_convolution_of_more_pixels_than_are_tried():
    report = check(MaskedConvolution(), IMAGES)
    assert report.ok and "in an order (of 256 of 324 entries)" in report["entries"].message
    assert [f.name for f in check(MaskedConvolution(itself=True), IMAGES).failed] == ["entries"]
    drawn = fit(MaskedConvolution(), IMAGES, max_steps=1, batch_size=20).sample(2)["x"]
    assert drawn.shape == (2, 1, 18, 18) and set(np.unique(drawn)) == {0, 1}
