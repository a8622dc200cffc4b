"""Numbers of reconstructions and codebooks against their definitions."""

import numpy as np
import pytest

from ppl_vae.diagnostics.reconstruction import codebook_use, perplexity, squared_error


def test_the_mean_reconstructs_with_an_error_of_one_variance():
    x = np.random.default_rng(0).random((50, 3))
    found = squared_error(x, np.full_like(x, x.mean()))
    assert found["mse"] == pytest.approx(x.var())
    assert found["mse_over_variance"] == pytest.approx(1.0)
    assert squared_error(np.ones((3, 2)), np.ones((3, 2)))["mse_over_variance"] is None


def test_numbers_that_are_missing_have_no_error():
    x, mask = np.arange(6.0).reshape(3, 2), np.array([[True, False]] * 3)
    found = squared_error(x, x + np.where(mask, 1, 9), mask)
    assert found["mse"] == 1 and squared_error(x, x + 1, ~mask & mask) == {}


def test_perplexity_counts_even_codes():
    assert perplexity(np.zeros(10, int), 8) == pytest.approx(1.0)
    assert perplexity(np.arange(8).repeat(3), 8) == pytest.approx(8.0)
    share = np.array([0.75, 0.25])
    assert perplexity(np.array([0, 0, 0, 1]), 4) == pytest.approx(np.exp(-(share * np.log(share)).sum()))


def test_use_of_a_codebook_over_all_rows_and_by_batch():
    codes = np.repeat(np.arange(4), 2).reshape(8, 1)
    found = codebook_use(codes, 16, batch=2)
    assert found["perplexity"] == pytest.approx(4.0)
    assert found["perplexity_per_batch"] == pytest.approx(1.0)
    assert found["usage"] == 4 / 16
    odd = codebook_use(codes, 16, batch=3)  # 0 0 1 and 1 2 2: the last two rows are no batch
    assert odd["perplexity_per_batch"] == pytest.approx(perplexity(codes[:3], 16))
    few = codebook_use(codes, 16, batch=9)
    assert few["perplexity_per_batch"] == few["perplexity"] and few["perplexity_batch"] == 8
