"""Independent columns score rows as their distributions do in closed form."""

import numpy as np
import pytest
from scipy import stats

from ppl_vae.diagnostics import baseline
from ppl_vae.diagnostics.baseline import independent
from ppl_vae.errors import DataError

RNG = np.random.default_rng(0)


def test_bits_have_the_frequencies_of_their_columns_and_one_more_row():
    train = np.repeat([[0.0, 1, 1], [0, 1, 0], [0, 1, 1]], 20, 0)
    every = (train.sum() + 1) / (train.size + 2)
    chance = (train.sum(0) + every) / 61
    found = independent(train, np.array([[0, 1, 1], [0, 1, 0]], np.float32), True, 2)
    expected = [np.log([1 - chance[0], chance[1], one]) for one in (chance[2], 1 - chance[2])]
    np.testing.assert_allclose(found.log_prob, np.sum(expected, 1))
    assert found.family == "Bernoulli"


def test_columns_with_few_rows_share_their_histograms():
    levels, few = 256, RNG.integers(0, 256, (50, 400)) / 255
    found = independent(few[:40], few[40:], True, levels)
    assert "1000 more rows" in found.family
    assert found.log_prob.mean() == pytest.approx(-400 * np.log(levels), rel=0.01)


@pytest.mark.parametrize("levels", [2, 5])
def test_levels_are_a_mass_that_adds_up_to_one(levels):
    train = RNG.integers(0, levels, (7, 1, 2)) / np.float32(levels - 1)
    every = np.stack(np.meshgrid(*[np.arange(levels)] * 2), -1).reshape(-1, 1, 2) / np.float32(levels - 1)
    found = independent(train, every.astype(np.float32), True, levels)
    assert np.exp(found.log_prob).sum() == pytest.approx(1)


def test_counts_have_the_mean_and_variance_of_their_columns():
    train = np.stack([RNG.negative_binomial(2, 0.2, 500), RNG.integers(3, 5, 500)], 1)
    rows = np.array([[0, 3], [40, 9], [7, 4]])
    mean, variance = (train.sum(0) + 0.5) / 500, train.var(0)
    assert variance[0] > mean[0] and variance[1] < mean[1]
    size = mean[0] ** 2 / (variance[0] - mean[0])
    expected = stats.nbinom.logpmf(rows[:, 0], size, size / (size + mean[0]))
    expected += stats.poisson.logpmf(rows[:, 1], mean[1])
    np.testing.assert_allclose(independent(train, rows, True).log_prob, expected)
    unseen = independent(np.zeros((9, 1), int), np.array([[3]]), True).log_prob
    np.testing.assert_allclose(unseen, stats.poisson.logpmf(3, 0.5 / 9))


def test_reals_are_normal_with_the_better_of_two_scales(monkeypatch):
    train = RNG.normal([0, 5], [1, 20], (300, 2))
    common = train.var(0).mean()
    own = np.sqrt((300 * train.var(0) + common) / 301)
    rows = RNG.normal([0, 5], [1, 20], (50, 2))
    found = independent(train, rows, False)
    np.testing.assert_allclose(found.log_prob, stats.norm.logpdf(rows, train.mean(0), own).sum(1))
    train[:, 0] = 0.0  # a column that is constant in training, and is not in the rows
    rows[:, 0] *= 20
    one = independent(train, rows, False)
    expected = stats.norm.logpdf(rows, train.mean(0), np.sqrt(train.var(0).mean())).sum(1)
    np.testing.assert_allclose(one.log_prob, expected)
    assert "one scale" in one.family
    monkeypatch.setattr(baseline, "CELLS", 300)  # one column at a time
    np.testing.assert_allclose(independent(train, rows, False).log_prob, expected)


def test_masked_numbers_are_neither_fitted_nor_scored():
    train, rows = RNG.normal(size=(40, 3)), RNG.normal(size=(5, 3))
    kept, scored = RNG.random((40, 3)) < 0.7, RNG.random((5, 3)) < 0.7
    masked = {"train_mask": kept, "mask": scored}
    expected = independent(np.where(kept, train, 0), np.where(scored, rows, 0), False, **masked)
    broken = independent(np.where(kept, train, np.nan), np.where(scored, rows, np.nan), False, **masked)
    np.testing.assert_array_equal(broken.log_prob, expected.log_prob)
    variances = [train[kept[:, i], i].var() for i in range(3)]
    common = np.dot(variances, kept.sum(0)) / kept.sum()
    own = [(v * n + common) / (n + 1) for v, n in zip(variances, kept.sum(0), strict=True)]
    mean = [train[kept[:, i], i].mean() for i in range(3)]
    density = np.where(scored, stats.norm.logpdf(rows, mean, np.sqrt(own)), 0).sum(1)
    one = np.where(scored, stats.norm.logpdf(rows, mean, np.sqrt(common)), 0).sum(1)
    np.testing.assert_allclose(expected.log_prob, max(density, one, key=np.mean))


@pytest.mark.parametrize("options", [(False,), (True, 2), (True,)])
def test_no_rows_are_refused_in_a_line(options):
    some, none = np.ones((3, 2)), np.ones((0, 2))
    for train, rows in ((none, some), (some, none)):
        with pytest.raises(DataError, match="there are no rows"):
            independent(train, rows, *options)


def test_what_has_no_such_mass_is_refused():
    x = np.full((3, 2), 0.3)
    with pytest.raises(DataError, match="grid of 2 levels"):
        independent(x, x, True, 2)
    with pytest.raises(DataError, match="no counts"):
        independent(x, x, True)
    with pytest.raises(DataError, match="too many"):
        independent(np.zeros((1, 2**13)), np.zeros((1, 2**13)), True, 65536)
