"""Bound programs and draws of their posteriors, on both backends, with the same weights."""

from functools import cache
from unittest.mock import patch

import numpy as np
from backend_numpyro import quick
from exact import decoder, draw, program, weights

from ppl_vae import bind, load
from ppl_vae.backends import backend as backend_named
from ppl_vae.backends.numpyro import passes

BACKENDS = ("pyro", "numpyro")
W, B = decoder()
ROWS = {"x": draw(7, W, B)}
rng = np.random.default_rng(3)
IMAGES = {"x": (rng.random((9, 1, 8, 8)) > 0.5).astype(np.float32)}
COUNTS = {
    "x": rng.poisson(3.0, (9, 11)).astype(np.float32),
    "batch": np.arange(9) % 2,
    "size": np.linspace(0.5, 2.0, 9, dtype=np.float32),
}
PROGRAMS = {
    "vae": (load("vae", x_shape=(1, 8, 8), z_dim=3, hidden=(8,)), IMAGES),
    "linear_gaussian": (program(), {"x": draw(9, W, B)}),
    "hvae": (load("hvae", x_shape=(1, 8, 8), z_dims=(5, 3), hidden=(8, 6)), IMAGES),
    "counts": (load("counts", x_shape=(11,), num_batches=2, z_dim=3, hidden=(8,)), COUNTS),
    "vqvae": (
        load("vqvae", x_shape=(3, 8, 8), codes=8, code_dim=4, hidden=8),
        {"x": rng.random((9, 3, 8, 8), np.float32)},
    ),
}


def draws(bound, rows, num_samples, **options):
    verb = backend_named(bound.backend).draws
    with patch.object(passes, "compiled", quickly):
        return verb(bound, rows, num_samples, **options)


def quickly(bound, name, function):
    # Compilation is most of the time that NumPyro takes here.
    return bound.compiled.setdefault((name, "quick"), quick(function))


@cache
def bound_once(name, backend):
    # Bound once: what NumPyro compiles for a program is kept with it.
    return bind(program() if name == "exact" else PROGRAMS[name][0], backend, num_data=9)


def linear(backend, **changes):
    """Return the linear Gaussian program with the exact posterior as its guide, changed on request."""
    bound = bound_once("exact", backend)
    bound.load_weights(weights(W, B, **changes))
    return bound


def gallery(name, backend):
    """Return a program with weights that are the same on both backends, and rows for it."""
    bound = bound_once(name, backend)
    if backend != "pyro":
        bound.load_weights(bound_once(name, "pyro").weights())
    return bound, PROGRAMS[name][1]
