"""Likelihoods by name on both backends: links, masses that sum to one, densities that integrate, words."""

import re
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from on_backend import BACKENDS, side
from scipy import stats
from scipy.special import expit, softmax

from ppl_vae import bind, data, evaluate, fit, likelihoods, load
from ppl_vae.backends import backend as backend_named
from ppl_vae.diagnostics.evidence import bits_per_dim
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.likelihoods import Likelihood

ROOT = Path(__file__).parent.parent
RNG = np.random.default_rng(1)
# As a decoder gives them: [outputs, rows, *x_shape].
ROWS, SHAPE = 2, (4, 3)


@pytest.fixture(params=BACKENDS)
def on(request):
    yield from side(request.param)


def softplus(raw):
    return np.log1p(np.exp(raw)) + 1e-4


# Texts, the formula of the parameters (outputs o, free array f), and numbers at which masses are summed or
# densities integrated.
LEVELS, COUNTS = np.arange(17) / 16, np.arange(3000.0)
REALS = np.linspace(-60, 60, 24_001)
# Denser towards the ends of the logit-Laplace's support, where its density may grow without bound.
UNIT = (expit(np.linspace(-20, 20, 24_001)) - 0.1) / 0.8
FORMULAS = {
    "bernoulli": (lambda o, f: (o[0],), np.arange(2.0)),
    "normal": (lambda o, f: (o[0], softplus(f)), REALS),
    "normal_fixed:0.3": (lambda o, f: (o[0], 0.3), REALS),
    "normal_per_dim": (lambda o, f: (o[0], softplus(f)), REALS),
    "normal_predicted": (lambda o, f: (o[0], softplus(o[1])), REALS),
    "student_t:9": (lambda o, f: (o[0], softplus(f)), REALS),
    "discretized_logistic:17": (lambda o, f: (expit(o[0]), softplus(o[1] - 2)), LEVELS),
    "logistic_mixture:17:2": (
        lambda o, f: tuple(np.moveaxis(part, 0, -1) for part in (o[:2], expit(o[2:4]), softplus(o[4:] - 2))),
        LEVELS,
    ),
    "grey_levels:17": (lambda o, f: (np.moveaxis(o, 0, -1),), LEVELS),
    "continuous_bernoulli": (lambda o, f: (o[0],), np.linspace(0, 1, 20_001)),
    "logit_laplace": (lambda o, f: (o[0], softplus(o[1])), UNIT),
    "poisson": (lambda o, f: (np.exp(o[0]),), COUNTS),
    "negative_binomial": (lambda o, f: (np.exp(o[0]), softplus(f)), COUNTS),
    "zero_inflated_negative_binomial": (lambda o, f: (np.exp(o[0]), softplus(f), o[1]), COUNTS),
    "categorical:5": (lambda o, f: (np.moveaxis(o, 0, -1),), np.arange(5)),
}  # fmt: skip


def linked(on, text):
    """A likelihood's parameters from random outputs, with the outputs and the free array."""
    kind = likelihoods.parse(text)
    outputs, free = RNG.normal(size=(kind.outputs, ROWS, *SHAPE)), kind.free(SHAPE)
    free = None if free is None else RNG.normal(size=free)
    values = kind.parameters(on.F, on.array(outputs), None if free is None else on.array(free))
    return values, outputs, free


def test_every_likelihood_is_tested():
    assert {text.partition(":")[0] for text in FORMULAS} | {"rgb_logistic_mixture"} == set(likelihoods.KNOWN)


@pytest.mark.parametrize("text", FORMULAS)
def test_the_link_is_its_formula(on, text):
    values, outputs, free = linked(on, text)
    for value, expected in zip(values, FORMULAS[text][0](outputs, free), strict=True):
        np.testing.assert_allclose(on.host(value), np.broadcast_to(expected, value.shape), rtol=1e-12)
        assert tuple(value.shape[: 1 + len(SHAPE)]) == (ROWS, *SHAPE)


@pytest.mark.parametrize("text", FORMULAS)
def test_every_likelihood_sums_or_integrates_to_one(on, text):
    values, points = linked(on, text)[0], FORMULAS[text][1]
    made = on.dist.likelihood(text, SimpleNamespace(values=values, event_dim=2))
    assert (tuple(made.batch_shape), tuple(made.event_shape)) == ((ROWS,), SHAPE)
    # One number at a time: the distribution under to_event.
    parts = np.array_split(points, 1 + len(points) // 1000)
    densities = [on.host(made.base_dist.log_prob(on.array(part.reshape(-1, 1, 1, 1)))) for part in parts]
    density = np.exp(np.concatenate(densities))
    if likelihoods.parse(text).discrete:
        np.testing.assert_allclose(density.sum(0), 1, atol=1e-6)
    else:
        # By the trapezoidal rule; a logit-Laplace of scale 2.5 has 4e-4 of its mass beyond the points.
        atol = 1e-3 if text == "logit_laplace" else 1e-5
        np.testing.assert_allclose(np.trapezoid(density, points, axis=0), 1, atol=atol)


def test_the_link_of_the_mixture_over_channels(on):
    kind, outputs = likelihoods.parse("rgb_logistic_mixture:17:2"), RNG.normal(size=(8, ROWS, 3, 2, 4))
    values = kind.parameters(on.F, on.array(outputs), None)
    parts = (outputs[:2], expit(outputs[2:4]), softplus(outputs[4:6] - 2), np.tanh(outputs[6:]))
    for value, expected in zip(values, parts, strict=True):
        np.testing.assert_allclose(on.host(value), np.moveaxis(expected, 0, -1))
    made = on.dist.likelihood(kind, SimpleNamespace(values=values, event_dim=3))
    assert (tuple(made.batch_shape), tuple(made.event_shape)) == ((ROWS,), (3, 2, 4))
    assert kind.free((3, 2, 4)) is None
    for shape in ((1, 2, 4), (3,), (3, 4)):
        with pytest.raises(UsageError, match="it takes images of 3 channels"):
            kind.free(shape)


def test_a_normal_with_fixed_sigma_is_the_squared_error_up_to_a_known_constant(on):
    x, loc, sigma = RNG.random((5, 3, 4)), RNG.random((5, 3, 4)), 0.3
    parameters = SimpleNamespace(values=(on.array(loc), on.array(np.full_like(loc, sigma))), event_dim=2)
    made = on.dist.likelihood("normal_fixed:0.3", parameters)
    constant = -12 * np.log(sigma * np.sqrt(2 * np.pi))
    expected = -((x - loc) ** 2).sum((1, 2)) / (2 * sigma**2) + constant
    np.testing.assert_allclose(on.host(made.log_prob(on.array(x))), expected)


def test_the_library_densities_are_scipys(on):
    x = RNG.normal(size=(7, ROWS, *SHAPE))
    (loc, scale), outputs, free = linked(on, "student_t:4")
    made = on.dist.likelihood("student_t:4", SimpleNamespace(values=(loc, scale), event_dim=0))
    expected = stats.t(4, outputs[0], softplus(free)).logpdf(x)
    np.testing.assert_allclose(on.host(made.log_prob(on.array(x))), expected, rtol=1e-9)


def test_the_negative_binomial_goes_by_mean_and_concentration(on):
    mean, r, counts = 3.7, 1.9, np.arange(200.0)
    made = on.dist.NegativeBinomial2(on.array(mean), on.array(r))
    found = np.exp(on.host(made.log_prob(on.array(counts))))
    # NumPyro computes its beta function in single precision.
    np.testing.assert_allclose(found, stats.nbinom(r, r / (r + mean)).pmf(counts), rtol=1e-5)
    assert (found * (counts - mean) ** 2).sum() == pytest.approx(mean + mean**2 / r, rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("text", FORMULAS)
def test_a_head_has_its_outputs_and_its_free_array(backend, text):
    kind = likelihoods.parse(text)
    weights = bind(
        load("vae", x_shape=SHAPE, z_dim=2, hidden=(5,), likelihood=text), backend=backend
    ).weights()
    assert weights["decoder.body.layers.1.bias"].shape == (kind.outputs * 12,)
    free = kind.free(SHAPE)
    assert ("decoder.raw" in weights) == (free is not None)
    if free is not None:
        np.testing.assert_array_equal(weights["decoder.raw"], np.zeros(free))


# Texts.


WRONG = {
    "gauss": "unknown likelihood 'gauss': choose one of bernoulli, normal, ",
    "bernoulli:2": "the likelihood 'bernoulli' takes no number behind its name",
    "logistic_mixture:256:5:1": "takes levels and components behind its name",
    "normal_fixed:0": "likelihood normal_fixed: sigma=0.0 must be a number above 0",
    "normal_fixed:nan": "sigma=nan must be a number above 0",
    "normal_fixed:x": "likelihood 'normal_fixed:x': sigma must be a number above 0, got 'x'",
    "categorical:1": "classes=1 must be a whole number of at least 2",
    "discretized_logistic:2.5": "levels=2.5 must be a whole number of at least 2",
    "discretized_logistic:inf": "levels=inf must be a whole number of at least 2",
    "normal_fixed:inf": "sigma=inf must be a number above 0",
    None: "None is no likelihood: give a text such as 'normal'",
    5: "5 is no likelihood",
    ("normal",): "('normal',) is no likelihood",
    Likelihood: "is no likelihood: give a text such as 'normal', or an object",
    "grey_levels:": "levels must be a whole number of at least 2, got ''",
}


@pytest.mark.parametrize("text", WRONG)
def test_a_likelihood_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError, match=re.escape(WRONG[text])):
        likelihoods.parse(text)


@pytest.mark.parametrize("text", FORMULAS)
def test_a_likelihood_has_a_text(text):
    kind = likelihoods.parse(text)
    assert likelihoods.parse(str(kind)) == kind and likelihoods.parse(kind) is kind
    assert likelihoods.takes(text) == likelihoods.takes(kind) == type(kind).takes


def test_what_names_no_likelihood_takes_nothing():
    assert likelihoods.takes(None) is likelihoods.takes("unknown") is likelihoods.takes(3) is None


@pytest.mark.parametrize(
    ("distribution", "values", "words"),
    [
        (
            "Bernoulli",
            (0, 1, False, 256),
            "binarize='dynamic', or choose the likelihood discretized_logistic:256",
        ),
        ("Bernoulli", (0, 9, True), "choose the likelihood poisson"),
        ("BernoulliLogits", (-3, 1), "choose the likelihood normal, or scale the data to [0, 1]"),
        ("GammaPoisson", (0, 1, False, 256), "it needs whole numbers from 0"),
        ("CategoricalProbs", (0, 9), "number of classes - 1: name that number"),
        ("Categorical", (0, 3, True), "name that number, such as categorical:4"),
        (
            "LogisticMixture",
            (-1, 1),
            "it needs grey levels in [0, 1]: scale the data, or choose the likelihood normal",
        ),
        ("LogisticMixture", (0, 40, True), "scale the data, or choose the likelihood poisson"),
        ("LogitLaplace", (-1, 1), "it needs numbers in [0, 1]"),
        ("Gamma", (-1, 1), "transform the data, or choose another likelihood"),
    ],
)
def test_the_remedy_is_that_of_the_likelihood(distribution, values, words):
    assert words in likelihoods.remedy(distribution, likelihoods.Values(*values))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("text", "most", "words"),
    [
        ("bernoulli", 1.0, "binarize='dynamic'"),
        ("grey_levels:9", 2.0, "it needs grey levels"),
        ("bernoulli", 40, "choose the likelihood poisson"),
        ("categorical", 4, "name that number, such as categorical:4"),
    ],
)
def test_training_refuses_data_outside_of_the_support_with_the_remedy(backend, text, most, words):
    made = np.random.default_rng(0)
    rows = made.integers(0, most, (20, 5)) if isinstance(most, int) else most * made.random((20, 5), "f")
    with pytest.raises(ProgramError, match=words):
        fit(
            load("vae", z_dim=2, hidden=(4,), likelihood=text),
            rows,
            backend=backend,
            max_steps=1,
            batch_size=8,
        )


KINDS = {
    "bits": "bits",
    "grey": "grey levels in [0, 1]",
    "unit": "numbers in [0, 1]",
    "reals": "real numbers",
    "counts": "counts",
    "labels": "class labels",
}


def test_the_docs_list_every_likelihood_by_its_data():
    lines = (ROOT / "docs" / "models.md").read_text().splitlines()
    for takes, words in KINDS.items():
        (row,) = [line for line in lines if line.startswith(f"| {words} |")]
        known = {kind.name for kind in likelihoods.KNOWN.values() if kind.takes == takes}
        assert set(re.findall("`(.*?)`", row)) == known


# Bits.


@pytest.mark.parametrize("levels", [2, 17, 256])
def test_a_density_that_is_constant_on_the_cells_has_the_bits_of_their_masses(levels):
    mass = softmax(RNG.normal(size=levels))
    # Cells around 0, 1/(levels-1), ..., 1 are 1/(levels-1) wide, the two at the ends too.
    edges = (np.arange(levels + 1) - 0.5) / (levels - 1)
    density = mass / np.diff(edges)
    rows = RNG.integers(0, levels, 30)
    discrete = bits_per_dim(-np.log(mass[rows]).sum(), 30, 0, levels)
    assert bits_per_dim(-np.log(density[rows]).sum(), 30, 30, levels) == pytest.approx(discrete)
    assert discrete == pytest.approx(-np.log2(mass[rows]).mean())
    assert bits_per_dim(-np.log(density[rows]).sum(), 30, 30, None) == pytest.approx(
        -np.log2(density[rows]).mean()
    )


# A user's own.


def documented(name="Laplace"):
    """A likelihood that docs/models.md shows."""
    text = (ROOT / "docs" / "models.md").read_text().partition("## A likelihood of your own")[2]
    names = {"__name__": __name__}
    exec(re.search("```python\n(.*?)```", text, re.DOTALL)[1], names)
    return names[name]


def test_the_documented_likelihood_is_a_density(on):
    kind = documented()()
    outputs, free = RNG.normal(size=(1, ROWS, *SHAPE)), RNG.normal(size=SHAPE)
    values = kind.parameters(on.F, on.array(outputs), on.array(free))
    made = on.dist.likelihood(kind, SimpleNamespace(values=values, event_dim=2))
    x = RNG.normal(size=(ROWS, *SHAPE))
    expected = stats.laplace(outputs[0], softplus(free)).logpdf(x).sum((1, 2))
    np.testing.assert_allclose(on.host(made.log_prob(on.array(x))), expected)


def test_the_documented_likelihood_of_two_outputs_has_a_head_of_that_size(on, request):
    kind = documented("PredictedLaplace")()
    outputs = RNG.normal(size=(likelihoods.parse(kind).outputs, ROWS, *SHAPE))
    loc, scale = kind.parameters(on.F, on.array(outputs), None)
    np.testing.assert_allclose(on.host(loc), outputs[0])
    np.testing.assert_allclose(on.host(scale), softplus(outputs[1]))
    made = bind(
        load("vae", x_shape=SHAPE, z_dim=2, hidden=(5,), likelihood=kind),
        backend=request.node.callspec.params["on"],
    )
    assert made.weights()["decoder.body.layers.1.bias"].shape == (2 * 12,)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_program_takes_an_own_likelihood_in_place_of_a_text(backend, tmp_path):
    program = load("vae", z_dim=2, hidden=(4,), likelihood=documented()())
    rows = RNG.normal(size=(30, 5)).astype("f")
    run = fit(program, rows, backend=backend, max_steps=2, batch_size=10)
    assert np.isfinite(evaluate(run, split="train")["elbo_nats"])
    assert run.bound.weights()["decoder.raw"].shape == (5,)
    with pytest.raises(UsageError, match="likelihood is a Laplace, which a configuration cannot hold"):
        fit(program, rows, backend=backend, max_steps=1, batch_size=8, out=tmp_path / "run")


@dataclass(frozen=True)
class Bits(Likelihood):
    """A likelihood of bits with another link."""

    name, takes, discrete = "cloglog", "bits", True

    def distribution(self, dist, raw):
        return dist.Bernoulli(1 - np.e ** -(np.e**raw))


def test_grey_levels_are_binarized_for_any_likelihood_of_bits():
    grey = data.of(RNG.integers(0, 256, (20, 1, 4, 4)).astype(np.uint8), name="grey")
    run = fit(load("vae", z_dim=2, hidden=(4,), likelihood=Bits()), grey, max_steps=1, batch_size=8)
    assert run.data.binarize == "dynamic"


def test_a_likelihood_of_the_library_is_recorded_by_its_text(tmp_path):
    kind = likelihoods.KNOWN["discretized_logistic"](17)
    rows = (RNG.integers(0, 17, (20, 5)) / 16).astype("f")
    run = fit(
        load("vae", z_dim=2, hidden=(4,), likelihood=kind),
        rows,
        max_steps=1,
        batch_size=8,
        out=tmp_path / "run",
    )
    assert run.config["model"]["likelihood"] == "discretized_logistic:17"
    assert backend_named("pyro").score(run.bound, {"x": rows}, 1).discrete
