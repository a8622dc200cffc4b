"""Closed-form answers of the linear Gaussian program, and the weights that make its guide exact."""

import numpy as np
from scipy.stats import multivariate_normal

from ppl_vae import load

SIGMA, Z, X = 0.5, 2, 4
SCALE_FLOOR = 1e-4


def program():
    """Return the program that `weights` belongs to."""
    return load("linear_gaussian", x_shape=(X,), z_dim=Z, sigma=SIGMA)


def decoder(seed=0):
    """Return W [X, Z] and b [X]."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(X, Z)), rng.normal(size=X)


def posterior(w, b):
    """Return A [Z, X], a [Z] and the covariance [Z, Z] of p(z | x) = N(A x + a, S)."""
    cov = np.linalg.inv(np.eye(Z) + w.T @ w / SIGMA**2)
    matrix = cov @ w.T / SIGMA**2
    return matrix, -matrix @ b, cov


def evidence(x, w, b):
    """Return log p(x) of rows [N, X] in nats."""
    return multivariate_normal(b, w @ w.T + SIGMA**2 * np.eye(X)).logpdf(x)


def draw(n, w, b, seed=1):
    """Return n rows of the model, float32."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, Z)) @ w.T + b + SIGMA * rng.normal(size=(n, X))).astype(np.float32)


def weights(w, b, shift=0.0, inflate=1.0):
    """Return the program's weights with the exact posterior as guide, its mean shifted and its scale inflated
    on request.
    """
    matrix, offset, cov = posterior(w, b)
    tril = np.linalg.cholesky(cov) * inflate
    raw = np.tril(tril, -1) + np.diag(np.log(np.expm1(np.diag(tril) - SCALE_FLOOR)))
    found = {
        "encoder.layers.0.weight": matrix,
        "encoder.layers.0.bias": offset + shift,
        "scale_tril.raw": raw,
        "decoder.layers.0.weight": w,
        "decoder.layers.0.bias": b,
    }
    return {name: value.astype(np.float32) for name, value in found.items()}
