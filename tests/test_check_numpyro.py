"""The contract on NumPyro."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from flax import nnx
from jax import lax, random
from toys import BITS, Toy, broken_programs

from ppl_vae import contract, data, load
from ppl_vae.backends.numpyro.check import probe
from ppl_vae.backends.pyro.check import probe as pyro_probe
from ppl_vae.program import PlainProgram

RNG = np.random.default_rng(5)
IMAGES = data.of(RNG.integers(0, 2, (40, 1, 8, 8)).astype(np.uint8), name="images")
COLOUR = data.of(RNG.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8), name="colour")
TABLE = data.of(
    {"x": RNG.poisson(3, (40, 6)), "batch": RNG.integers(0, 3, 40), "size": RNG.random(40) + 0.5},
    name="table",
)
GALLERY = {
    "vae": (load("vae", z_dim=3, hidden=(8,)), IMAGES),
    "linear_gaussian": (load("linear_gaussian"), data.of(RNG.normal(size=(40, 6)))),
    "hvae": (load("hvae", z_dims=(4, 3), hidden=(16, 8)), IMAGES),
    "topdown": (load("topdown", latents=3, z_channels=2, width=4, inner=3), IMAGES),
    "counts": (load("counts", z_dim=3, hidden=(8,)), TABLE),
    "vqvae": (load("vqvae", codes=12, code_dim=3, hidden=8), COLOUR),
}
BOTH = {"numpyro": probe, "pyro": pyro_probe}


def check(program, rows=BITS):
    return contract.check(program, rows, BOTH, "numpyro")


def failed(report):
    return [finding.name for finding in report.failed]


@pytest.mark.slow
@pytest.mark.parametrize("name", GALLERY)
def test_the_gallery_passes(name):
    report = check(*GALLERY[name])
    assert report.ok, str(report)
    assert all(finding.status == "ok" for finding in report), str(report)
    assert report["parity"].message.startswith("equal to pyro in ")


# Programs of the other backend's tests that name no torch.
SHARED = (
    "NotNetworks",
    "Misspelt",
    "ForgottenSite",
    "GuideOutside",
    "TooManyEventDims",
    "OtherSize",
    "GlobalWithoutEvent",
    "NegativeScale",
    "DiscreteDraw",
)


@pytest.mark.parametrize(
    ("rule", "kind", "rows", "fields"),
    [pytest.param(r, k, d, f, id=k.__name__) for r, k, d, _, f in broken_programs() if k.__name__ in SHARED],
)
def test_broken_programs_are_caught_as_on_pyro(rule, kind, rows, fields):
    alone = type(kind.__name__, (kind,), {"backends": ("numpyro",)})
    report = check(alone(**fields), rows)
    assert failed(report) == [rule], str(report)
    assert "\n" not in report[rule].message


def test_the_plate_names_its_site():
    kind = next(kind for _, kind, *_ in broken_programs() if kind.__name__ == "TooFewEventDims")
    message = check(kind())["shapes"].message
    assert message.startswith(
        "site 'z' has batch shape (7, 3) in the plate 'data' of size 7: put every axis of one row"
    )


class Layer(nnx.Module):
    """A linear layer within a function of it and its input."""

    def __init__(self, function, rngs):
        self.layer, self.function = nnx.Linear(3, 6, rngs=rngs), function

    def __call__(self, z):
        return self.function(self.layer, z)


@dataclass(frozen=True)
class Linear(Toy):
    """A program whose decoder is a function of a layer."""

    backends = ("numpyro",)

    def decoded(self, layer, z):
        return layer(z)

    def networks(self, nn):
        return super().networks(nn) | {"decoder": Layer(self.decoded, nn.rngs)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.dist.Bernoulli(logits=net.decoder(z)).to_event(1), obs=x)


class Averaging(Linear):
    def decoded(self, layer, z):
        return layer(z.mean(-2, keepdims=True) + 0 * z)


class FaintLeak(Linear):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc + 1e-9 * x.mean(), scale).to_event(1))


class Swallowing(Linear):
    def decoded(self, layer, z):
        return layer(z.reshape(-1, z.shape[-1]))


class Flattening(Linear):
    def decoded(self, layer, z):
        return layer(z.reshape(len(z), -1))


class DividesByRows(Linear):
    def decoded(self, layer, z):
        return layer(z) / z.shape[-2]


class ForeignNoise(Linear):
    def decoded(self, layer, z):
        return layer(z + float(np.random.standard_normal()))  # noqa: NPY002


class OwnKey(Linear):
    def guide(self, ppl, net, x):
        with numpyro.handlers.seed(rng_seed=0):
            super().guide(ppl, net, x)


class NaNLogits(Linear):
    def decoded(self, layer, z):
        return jnp.sqrt(layer(z) - 100.0)


class InfiniteSlope(Linear):
    def decoded(self, layer, z):
        return jnp.sqrt(layer(z) * 0.0)


class Detached(Linear):
    def decoded(self, layer, z):
        return lax.stop_gradient(layer(z))


class Undecided(Linear):
    def decoded(self, layer, z):
        return layer(z) if z.sum() > 0 else layer(-z)


class DrawsElsewhere(Linear):
    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            logits = net.decoder(z if x is not None else 0.5 * z)
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits).to_event(1), obs=x)


class Shifted(dist.Normal):
    def log_prob(self, value):
        return super().log_prob(value) + 5.0


class WrongDensity(Linear):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", Shifted(*net.encoder(x)).to_event(1))


@pytest.mark.parametrize(
    ("kind", "rule", "words"),
    [
        (Averaging, "rows", "network 'decoder' mixes rows"),
        (FaintLeak, "rows", "rows mix: the bound of one row has a gradient by x"),
        (Swallowing, "particles", "network 'decoder' swallows the axis of the samples"),
        (Flattening, "particles", "with 2 samples per row network 'decoder' (called by the model) fails in"),
        (
            DividesByRows,
            "batch sizes",
            "network 'decoder' gives a row another density with 1 row than with 7",
        ),
        (ForeignNoise, "seeds", "site 'x' of the model is another one in a second run with seed 0"),
        (OwnKey, "seeds", "another seed gives the same draws"),
        (NaNLogits, "finite", "network 'decoder' returns NaN or infinity"),
        (InfiniteSlope, "finite", "the gradient of decoder.layer."),
        (Detached, "parameters", "no gradient reaches network 'decoder'"),
        (Undecided, "batch", "network 'decoder' (called by the model) fails in test_check_numpyro.py, line"),
        (DrawsElsewhere, "decoding", "site 'x' draws from another likelihood"),
        (WrongDensity, "bound", "its KL, log_prob or sampler is wrong"),
    ],
)
def test_broken_networks_are_caught(kind, rule, words):
    report = check(kind())
    assert failed(report) == [rule], str(report)
    assert words in report[rule].message


class Scanned(Linear):
    """A network within a scan, whose calls cannot be recorded."""

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            _, logits = lax.scan(lambda carry, _: (carry, net.decoder(z)), 0.0, None, length=2)
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits.mean(0)).to_event(1), obs=x)


def test_networks_within_a_scan_are_allowed():
    report = check(Scanned())
    assert report.ok, str(report)


# plain programs


def plain_model(x):
    scale = numpyro.param("scale", jnp.ones(3), constraint=dist.constraints.positive)
    weight = numpyro.param("weight", lambda key: random.normal(key, (3, 6)))
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", dist.Normal(jnp.zeros(3), scale).to_event(1))
        numpyro.sample("x", dist.Bernoulli(logits=z @ weight).to_event(1), obs=x)


def plain_guide(x):
    weight = numpyro.param("encoder", lambda key: random.normal(key, (6, 3)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal(x @ weight, 1.0).to_event(1))


def leaky_guide(x):
    weight = numpyro.param("encoder", lambda key: random.normal(key, (6, 3)))
    with numpyro.plate("data", len(x)):
        numpyro.sample("z", dist.Normal((x - x.mean(0)) @ weight, 1.0).to_event(1))


def dead_guide(x):
    numpyro.param("unused", jnp.zeros(2))
    plain_guide(x)


def test_a_plain_program_is_checked_by_the_rules_that_apply():
    report = check(PlainProgram(plain_model, plain_guide, "plain", "numpyro"))
    assert report.ok, str(report)
    skipped = {finding.name for finding in report if finding.status == "skipped"}
    assert skipped == {"networks", "independence", "particles", "prior", "decoding", "parity"}
    assert report["parameters"].message == "gradients reach all 3 trainable parameters"


@pytest.mark.parametrize(
    ("guide", "rule", "words"),
    [
        (leaky_guide, "rows", "site 'z' of the guide mixes rows"),
        (dead_guide, "parameters", "no gradient reaches network 'unused'"),
        (lambda x: None, "sites", "site 'z' of the model is not in the guide"),
    ],
)
def test_broken_plain_programs_are_caught(guide, rule, words):
    report = check(PlainProgram(plain_model, guide, "plain", "numpyro"))
    assert failed(report) == [rule], str(report)
    assert words in report[rule].message
