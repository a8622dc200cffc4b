"""What is reported of bounds: means, standard errors, bits per dimension, the mean that chooses weights."""

from dataclasses import dataclass

import numpy as np
import pytest
from made import BACKENDS
from scipy import stats

from ppl_vae import Program
from ppl_vae.backends import backend as backend_named
from ppl_vae.backends.common.evaluate import score
from ppl_vae.diagnostics.evidence import Scores, over_batches, robust_mean, summary

RNG = np.random.default_rng(3)


def test_every_number_of_a_summary_is_its_formula():
    likelihood, kl, other = RNG.normal(-50, 3, 7), RNG.gamma(3.0, 1.0, 7), RNG.gamma(2.0, 1.0, 7)
    scores = Scores(likelihood, {"z": kl, "w": other}, {"g": 12.0}, num_data=4, dims=4, dense=3)
    rate = kl + other + 3
    elbo = likelihood - rate
    found = summary(scores, levels=256)
    expected = {"elbo": elbo, "rate": rate, "distortion": -likelihood}
    for name, values in expected.items():
        assert found[f"{name}_nats"] == pytest.approx(values.mean())
        assert found[f"{name}_stderr"] == pytest.approx(stats.sem(values))
    assert found["rate_nats_by_site"] == pytest.approx({"z": kl.mean(), "w": other.mean(), "g": 3.0})
    assert found["bits_per_dim"] == pytest.approx((3 * np.log(255) - elbo.mean()) / 4 / np.log(2))
    assert (found["n"], found["k"], found["iw_nats"], found["iw_stderr"]) == (7, None, None, None)
    scores.iw, scores.k = elbo + 1, 5
    found = summary(scores)
    assert found["iw_nats"] == pytest.approx(elbo.mean() + 1)
    assert found["iw_stderr"] == pytest.approx(stats.sem(elbo))
    assert found["bits_per_dim"] == pytest.approx(-(elbo.mean() + 1) / 4 / np.log(2))  # of the tightest
    assert summary(Scores(np.zeros(1), {}))["elbo_stderr"] is None
    assert summary(Scores(np.zeros(2), {}, dims=0))["bits_per_dim"] is None  # nothing was observed


def test_what_holds_of_batches_is_weighed_by_their_rows():
    fact = {"dims": 4, "dense": 2, "codes": {"z": 8}, "masked": (), "discrete": True, "exact": True}
    other = fact | {"dims": 7, "dense": 5, "codes": {"w": 2}, "masked": ("x",), "discrete": False}
    assert over_batches([fact, other], [2, 1]) == {
        "dims": 5,
        "dense": 3,
        "codes": {"z": 8, "w": 2},
        "masked": ("x",),
        "discrete": False,
        "exact": True,
    }
    assert over_batches([fact], [3])["dims"] == 4


def test_a_row_that_decides_alone_counts_as_ten_median_deviations():
    bound = np.array([-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, -900.0])
    found, said = robust_mean(bound)
    middle, deviation = -1.0, 2.0  # the medians of the values, and of their distances from -1
    assert found == pytest.approx((bound[:-1].sum() + middle - 10 * deviation) / 7)
    assert said.startswith("validation row 6 has a bound of -900 nats")
    assert "far below the others, it counts less in the choice of weights" in said
    assert said.endswith("look at it, or give more validation rows")
    other, said = robust_mean(-bound)
    assert other == pytest.approx(-found)
    assert "far above the others, it counts less in the choice of weights; give more validation rows" in said
    assert robust_mean(bound[:-1]) == (-0.5, "")
    assert robust_mean(np.append(bound, [-900.0, -900.0]))[1] == ""  # more rows: none decides alone


@pytest.mark.parametrize(
    "bound",
    [
        [0.0, 0.0, 0.0, 0.0, 0.9],  # within a nat
        [0.1, -0.1, 0.2, -0.2, 0.0, 100.0, 99.0, 101.0],  # three of them: none has more than half
        [-1.0, 0.0, 1.0, 9.0, -2.0, 2.0],  # within ten median deviations
        [0.0, 0.1, -0.1, 500.0],  # too few to tell
        [0.0, 0.1, -0.1, 0.2, -0.2, np.inf],
    ],
)
def test_other_rows_count_as_they_are(bound):
    assert robust_mean(np.array(bound)) == (np.mean(bound), "")


@dataclass(frozen=True)
class Labelled(Program):
    """Grey levels [3] with a density, some of them masked, and beside them a bit and a real number."""

    def networks(self, nn):
        return {"shift": nn.Parameter(3)}

    def model(self, ppl, net, x=None, y=None, w=None, mask=True):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(3))
            ppl.sample("x", ppl.dist.Normal(z + net.shift(), 1.0).mask(mask).to_event(1), obs=x)
            ppl.sample("y", ppl.dist.Bernoulli(logits=z[..., 0]), obs=y)
            ppl.sample("w", ppl.dist.Normal(z[..., 1], 1.0), obs=w)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(x, 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("masked", [False, True])
def test_the_density_of_grey_levels_counts_for_those_that_have_one_and_were_observed(backend, masked):
    x, y = RNG.random((6, 3)).astype("f"), RNG.integers(0, 2, 6).astype("f")
    mask = RNG.random((6, 3)) < 0.5
    rows = {"x": x, "y": y, "w": x[:, 0]} | ({"mask": mask} if masked else {})
    scores = score(backend_named(backend).bind(Labelled()), rows)
    grey = mask.sum() if masked else 18
    exact = (grey * np.log(255) - scores.elbo.sum()) / (grey + 12) / np.log(2)
    assert summary(scores, 256)["bits_per_dim"] == pytest.approx(exact)
