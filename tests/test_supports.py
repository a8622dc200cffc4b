"""Data that a likelihood cannot have made is refused wherever rows come in, by its row."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from on_backend import BACKENDS, side
from scipy import stats

from ppl_vae import data, evaluate, fit, likelihoods, load
from ppl_vae.distributions import grey
from ppl_vae.errors import DataError, PplVaeError, ProgramError, UsageError
from ppl_vae.program import Program

RNG = np.random.default_rng(0)
BITS = (RNG.random((60, 4)) < 0.5).astype(np.float32)
LEVELS = RNG.integers(0, 16, (60, 4)).astype(np.float32) / 15
COUNTS = RNG.poisson(2, (60, 4)).astype(np.float32)
GOOD = {
    "bernoulli": (BITS, 2.0, "choose the likelihood poisson"),
    "grey_levels:16": (LEVELS, 17 / 15, "needs grey levels"),
    "categorical:9": (np.minimum(COUNTS, 8).astype(int), 9, "such as categorical:10"),
    "poisson": (COUNTS, 0.5, "whole numbers from 0"),
}


def trained(likelihood, parts, backend="pyro", **options):
    program = load("vae", likelihood=likelihood, z_dim=2, hidden=(4,))
    return fit(program, parts, backend=backend, max_steps=1, batch_size=16, **options)


def with_one(x, value, row=41):
    x = x.copy()
    x[row, 2] = value
    return x


# Levels and classes are looked at alike: on NumPyro one of them is enough for the short tests.
LONG = ("grey_levels:16", "numpyro")


@pytest.mark.parametrize(
    ("likelihood", "backend"),
    [
        pytest.param(one, backend, marks=pytest.mark.slow if (one, backend) == LONG else ())
        for one in GOOD
        for backend in BACKENDS
    ],
)
def test_one_number_beyond_the_support_is_refused_in_fit_and_in_every_verb(likelihood, backend):
    x, value, words = GOOD[likelihood]
    bad, found = with_one(x, value), rf"row 41 of 'x'.*outside the support.*\({value:.6g}\): .*{words}"
    split = "valid" if likelihood == "poisson" else "train"
    with pytest.raises(ProgramError, match=found.replace("'x'", rf"'x' \({split}\)")):
        trained(likelihood, {"x_train": x, "x_valid": x, "x_test": x} | {f"x_{split}": bad}, backend)
    run = trained(likelihood, {"x_train": x, "x_test": bad}, backend)
    verbs = [
        lambda: evaluate(run),
        lambda: run.score(bad),
        lambda: run.log_prob(bad, 2),
        lambda: run.draws(bad, 2),
        lambda: run.density(bad),
    ]
    # Numbers between counts are no counts, but a guide may be asked about them.
    verbs += [] if likelihood == "poisson" else [lambda: run.encode(bad), lambda: run.reconstruct(bad)]
    for verb in verbs:
        with pytest.raises(DataError, match=found):
            verb()
    assert np.isfinite(run.score(x).elbo).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_level_of_the_finest_grid_is_one_and_finer_grids_are_refused(backend):
    levels = 2**18
    made = next(side(backend, "float32"))
    grid = made.array((np.arange(levels) / np.float32(levels - 1)).astype(np.float32))
    one = grey.DiscretizedLogistic(made.array(np.float32(0.5)), made.array(np.float32(0.1)), levels)
    assert made.host(one.inside(made.F, grid)).all()
    with pytest.raises(UsageError, match="at most 262144"):
        made.dist.DiscretizedLogistic(one.loc, one.scale, levels=levels + 1)
    with pytest.raises(UsageError, match="likelihood grey_levels: levels=262145"):
        likelihoods.parse("grey_levels:262145")


@pytest.mark.parametrize("backend", BACKENDS)
def test_masked_numbers_add_nothing_to_a_likelihood(backend):
    on, mask = next(side(backend, "float32")), np.array([[True, False, True], [False, False, True]])
    x, loc = RNG.normal(size=(2, 2, 3))
    made = SimpleNamespace(values=(on.array(loc), on.array(np.full((2, 3), 0.5))), event_dim=1)
    likelihood = likelihoods.parse("normal_fixed:0.5")
    found = on.host(likelihood.over(on.dist, made, on.array(mask)).log_prob(on.array(x)))
    np.testing.assert_allclose(found, (stats.norm.logpdf(x, loc, 0.5) * mask).sum(1), rtol=1e-5)
    rows = likelihood.over(on.dist, made, on.array(mask[:, 0])).log_prob(on.array(x))
    whole = stats.norm.logpdf(x, loc, 0.5).sum(1)
    np.testing.assert_allclose(on.host(rows), whole * mask[:, 0], rtol=1e-5)
    several = SimpleNamespace(values=[on.array(np.ones((2, 3, 4, 4, 5)))] * 4, event_dim=3)
    with pytest.raises(UsageError, match="rgb_logistic_mixture: it draws several numbers at once"):
        likelihoods.parse("rgb_logistic_mixture").over(on.dist, several, on.array(mask))


@pytest.mark.parametrize("backend", BACKENDS)
def test_levels_that_a_likelihood_does_not_count_are_refused(backend):
    images = RNG.integers(0, 256, (40, 1, 2, 2)).astype(np.uint8)
    with pytest.raises(ProgramError, match=r"the data has 256 levels: choose the likelihood grey_levels:256"):
        trained("grey_levels:16", images, backend)
    with pytest.raises(ProgramError, match="round the data to its levels"):
        trained("discretized_logistic", RNG.random((40, 4)), backend)
    run = trained("discretized_logistic:18", data.of(17 * images // 255, kind="image", levels=18), backend)
    assert np.isfinite(evaluate(run)["elbo_nats"])


def test_numbers_between_those_of_the_support_are_encoded_but_not_scored():
    run = trained("bernoulli", BITS)
    assert run.encode(BITS / 2)["z"].shape == (60, 2)
    with pytest.raises(DataError, match=r"row \d+ of 'x' is outside"):
        run.score(BITS / 2)


@dataclass(frozen=True)
class Masked(Program):
    """Counts, some of which are missing, and a class of each row."""

    def networks(self, nn):
        return {"rate": nn.Linear(1, 4), "label": nn.Linear(1, 3)}

    def model(self, ppl, net, x=None, mask=None, y=None):
        with ppl.minibatch(x, mask, y):
            z = ppl.sample("z", ppl.standard_normal(1))
            rate = ppl.dist.Poisson(ppl.F.exp(net.rate(z)))
            ppl.sample("x", (rate if mask is None else rate.mask(mask)).to_event(1), obs=x)
            ppl.sample("y", ppl.dist.Categorical(logits=net.label(z)), obs=y)

    def guide(self, ppl, net, x, mask=None, y=None):
        with ppl.minibatch(x, mask, y):
            ppl.sample("z", ppl.standard_normal(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_missing_is_not_looked_at_and_every_observed_field_is(backend):
    mask = RNG.random(COUNTS.shape) < 0.7
    mask[41, 2], mask[50, 1] = True, False
    labels = RNG.integers(0, 3, 60)
    good = {"x": with_one(COUNTS, 3), "mask": mask, "y": labels}
    good["x"][50, 1] = -7
    options = {"backend": backend, "max_steps": 1, "batch_size": 16}
    run = fit(Masked(), data.of(good, valid=0, test=0), **options)
    assert np.isfinite(run.score(good).elbo).all()
    for change, words in (
        ({"x": with_one(good["x"], -7)}, "row 41 of 'x'"),
        ({"y": np.where(np.arange(60) == 52, 3, labels)}, r"row 52 of 'y'.*outside.*Categorical \(3\)"),
    ):
        with pytest.raises(PplVaeError, match=words):
            run.score(good | change)
        with pytest.raises(ProgramError, match=words.replace("'.", r"' \(train\).")):
            fit(Masked(), data.of(good | change, valid=0, test=0), **options)
