"""Refusals of single values."""

import numpy as np
import pytest

from ppl_vae import checks
from ppl_vae.errors import UsageError


@pytest.mark.parametrize("value", [0, -1, True, 1.0, "1", None, np.float64(2), np.True_])
def test_what_is_no_whole_number_is_refused(value):
    with pytest.raises(UsageError, match="rows=.*: give a whole number of at least 1"):
        checks.whole_number("rows", value)


def test_whole_numbers_of_any_kind_pass():
    for value in (1, 10**30, np.int64(7), np.uint8(2)):
        checks.whole_number("rows", value)
    checks.whole_number("split_seed", 0, least=0)


@pytest.mark.parametrize("value", [-1, 2**32, 1.5, True, "0"])
def test_what_is_no_seed_is_refused(value):
    with pytest.raises(UsageError, match="seed=.*: a seed is not negative and below 4294967296"):
        checks.seed(value)


def test_names_are_known_or_refused():
    checks.one_of("backend", "pyro", ("pyro", "numpyro"))
    checks.seed(np.uint32(2**32 - 1))
    with pytest.raises(UsageError, match="unknown backend 'jax': choose one of pyro, numpyro"):
        checks.one_of("backend", "jax", ("pyro", "numpyro"))
