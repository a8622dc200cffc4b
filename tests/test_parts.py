"""A batch computed in parts has the gradient of the whole batch."""

import numpy as np
import pytest

from ppl_vae import fit, load
from ppl_vae.errors import UsageError
from ppl_vae.options import Training

# A program without noise, of 21 rows: batches of 8, 8 and 5, in parts of 3, 3 and 2 or of 3 and 2.
CODES = {"codes": 8, "code_dim": 4, "hidden": 8, "learning": "gradient"}
X = (np.random.default_rng(0).random((21, 1, 8, 8)) < 0.4).astype(np.float32)


def trained(**options):
    return fit(load("vqvae", **CODES), X, batch_size=8, max_steps=6, lr=1e-2, log_every=1, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"backend": "pyro"},
        {"backend": "pyro", "clip_norm": 1.0, "ema": 0.9},
        {"backend": "numpyro"},
        pytest.param({"backend": "pyro", "compile": "on"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_parts_are_the_whole_batch(options):
    # There is no noise: compiled parts are the batch that is not compiled.
    whole, parts = trained(**options | {"compile": "auto"}), trained(accumulate=3, **options)
    for name, value in whole.bound.weights().items():
        if name.endswith(".counts"):
            continue  # how often codes are used is averaged over the parts, one after the other
        # Adam turns the rounding of a sum into steps of a part of lr where a gradient is next to 0.
        np.testing.assert_allclose(parts.bound.weights()[name], value, atol=2e-4, err_msg=name)
    for ours, theirs in zip(parts.history, whole.history, strict=True):
        assert ours.keys() == theirs.keys()
        assert ours["elbo_nats"] == pytest.approx(theirs["elbo_nats"], rel=1e-4)


def test_parts_are_counted():
    assert [Training(batch_size=8, accumulate=n).part_size for n in (1, 3, 8, 100)] == [8, 3, 1, 1]
    with pytest.raises(UsageError, match="accumulate=0: give a whole number of at least 1"):
        Training(accumulate=0)
