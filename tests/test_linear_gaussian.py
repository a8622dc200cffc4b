"""Every estimator against the closed form: evidence, posterior, gradient, and what training reaches."""

import numpy as np
import pytest
from exact import X, decoder, draw, evidence, program, weights

from ppl_vae import ELBO, IWAE, bind, data, evaluate, fit
from ppl_vae.backends import backend as backend_named

BACKENDS = ("pyro", "numpyro")
W, B = decoder()
ROWS = draw(200, W, B)


def bound_with(backend, **changes):
    bound = bind(program(), backend=backend, num_data=len(ROWS))
    bound.load_weights(weights(W, B, **changes))
    return bound, backend_named(backend).score


@pytest.mark.parametrize("backend", BACKENDS)
def test_with_the_exact_posterior_every_bound_is_the_evidence(backend):
    bound, score = bound_with(backend)
    scores = score(bound, {"x": ROWS}, 7)
    # log p(x, z) - log q(z | x) does not depend on z: what is left is single precision on terms of about ten
    # nats.
    np.testing.assert_allclose(scores.elbo, evidence(ROWS, W, B), atol=1e-4)
    np.testing.assert_allclose(scores.iw, evidence(ROWS, W, B), atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bound_rises_with_k_and_stays_below_the_evidence(backend):
    bound, score = bound_with(backend, shift=0.3, inflate=1.5)
    exact = evidence(ROWS, W, B)
    gaps = []
    for k in (1, 5, 50, 1000):
        seeds = np.stack([score(bound, {"x": ROWS}, k, seed=seed).iw for seed in range(5)])
        gap = exact - seeds.mean(0)
        # The bound holds in expectation: the mean gap over rows is positive up to four standard errors.
        assert gap.mean() > -4 * gap.std(ddof=1) / np.sqrt(gap.size)
        gaps.append(gap.mean())
    assert gaps[0] > 1.5 * gaps[1] > 1.5**2 * gaps[2] > 1.5**3 * gaps[3]
    assert gaps[3] < 0.01


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_elbo_is_the_evidence_minus_the_kl_to_the_posterior(backend):
    bound, score = bound_with(backend, shift=0.3)
    # KL(N(m + d, S) || N(m, S)) = 1/2 d' S^-1 d, the same for every row.
    d = np.full(2, 0.3)
    kl = 0.5 * d @ (np.eye(2) + W.T @ W / 0.25) @ d
    many = np.stack([score(bound, {"x": ROWS}, seed=seed).elbo for seed in range(50)])
    gap = evidence(ROWS, W, B) - many.mean(0)
    assert abs(gap.mean() - kl) < 4 * many.std() / np.sqrt(many.size)


def test_the_gradient_of_the_bound_is_the_gradient_of_the_evidence():
    import torch

    from ppl_vae.backends.pyro.objectives import Objective

    bound, _ = bound_with("pyro")
    bound.double()
    batch = {"x": torch.from_numpy(ROWS).double()}
    torch.manual_seed(0)
    grads = []
    for _ in range(20):
        bound.zero_grad()
        Objective(bound, ELBO(particles=100), len(ROWS))(batch, {"beta": torch.tensor(1.0)}).value.backward()
        grads.append(-bound.networks["decoder"].layers[0].weight.grad.numpy())
    inverse = np.linalg.inv(W @ W.T + 0.25 * np.eye(X))
    scatter = (ROWS - B).T @ (ROWS - B) / len(ROWS)
    exact = (inverse @ scatter @ inverse - inverse) @ W
    # With the exact posterior the gradient of the bound has the expectation of that of the evidence (its
    # other part is a score, of mean 0).
    error = np.stack(grads).std(0, ddof=1) / np.sqrt(len(grads))
    np.testing.assert_array_less(np.abs(np.mean(grads, 0) - exact), 4 * error + 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    "objective",
    [
        ELBO(),
        pytest.param(ELBO(analytic_kl=False, particles=4), marks=pytest.mark.slow),
        pytest.param(IWAE(5), marks=pytest.mark.slow),
    ],
)
def test_training_reaches_the_maximum_likelihood_of_the_closed_form(backend, objective):
    rows = draw(2000, W, B, seed=3)
    found = data.of({"x_train": rows, "x_valid": rows[:200], "x_test": rows})
    run = fit(
        program(),
        found,
        objective,
        backend=backend,
        max_steps=1500,
        batch_size=200,
        lr="cosine:2e-2:1e-4:1500",
        keep="last",
    )
    result = evaluate(run, importance_samples=50)
    trained = run.bound.weights()
    exact = evidence(rows, trained["decoder.layers.0.weight"], trained["decoder.layers.0.bias"]).mean()
    assert result["iw_nats"] == pytest.approx(exact, abs=0.01)
    # sigma is fixed at the truth, so that the generating weights are within O(parameters / rows) of the
    # maximum.
    assert exact == pytest.approx(evidence(rows, W, B).mean(), abs=0.02)
