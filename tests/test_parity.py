"""Pyro and NumPyro agree: same weights and latents, then same densities, bounds and state."""

import numpy as np
import pytest
from small_programs import CASES, NUM_DATA, batch, bound, observe


def close(found, expected, dims, what):
    assert found.shape == expected.shape, what
    np.testing.assert_array_less(
        np.abs(found - expected), 1e-5 * np.maximum(np.abs(expected), dims), err_msg=what
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES)
def test_a_program_has_the_same_densities_and_bound_at_the_same_latents(case, training):
    rows = batch(case)
    theirs, ours = (bound(case, backend).train(training) for backend in ("pyro", "numpyro"))
    a = observe(theirs, rows)
    b = observe(ours, rows, a.latents)
    for role in ("log_p", "log_q"):
        expected, found = getattr(a, role), getattr(b, role)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            close(found[name], value, a.event.get(name, 1), f"{role} of {name}")
    for kind in ("kl", "kl_global", "auxiliary", "metrics"):
        assert a.terms[kind].keys() == b.terms[kind].keys()
        for name, value in a.terms[kind].items():
            close(b.terms[kind][name], value, a.event.get(name, 1), f"{kind} of {name}")
    close(elbo(b), elbo(a), sum(a.event.values()), "ELBO")
    assert a.weights.keys() == b.weights.keys()
    for name, value in a.weights.items():
        np.testing.assert_allclose(b.weights[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def elbo(seen):
    terms = seen.terms
    return terms["log_likelihood"] - sum(terms["kl"].values()) - sum(terms["kl_global"].values()) / NUM_DATA


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_guide_in_train_mode_moves_the_codebook_once_and_one_in_eval_mode_does_not(backend):
    made, rows = bound("vqvae ema", backend), batch("vqvae ema")
    before = made.weights()
    after = observe(made.train(), rows).weights
    assert after["codebook.placed"] == 1 and before["codebook.placed"] == 0
    points = observe(made.eval(), rows).weights
    for name, value in after.items():
        np.testing.assert_array_equal(points[name], value)
    # A count moves by 1 - decay towards the number of points that chose the code: in all 6 x 2 x 3 points.
    assert after["codebook.counts"].sum() == pytest.approx(0.99 * 5 + 0.01 * 36, rel=1e-5)
