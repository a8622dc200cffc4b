"""The gallery's programs in sizes that run in milliseconds, and one interface to both backends."""

import importlib
from dataclasses import dataclass

import numpy as np

from ppl_vae import bind, load

ROWS, NUM_DATA = 6, 30
BACKENDS = ("pyro", "numpyro")


def _x(kind, shape, rng):
    draws = {
        "bits": lambda: rng.random((ROWS, *shape)) < 0.5,
        "unit": lambda: rng.random((ROWS, *shape)),
        "levels": lambda: rng.integers(0, 17, (ROWS, *shape)) / 16,
        "counts": lambda: rng.poisson(3.0, (ROWS, *shape)),
        "labels": lambda: rng.integers(0, 4, (ROWS, *shape)),
        "reals": lambda: rng.normal(size=(ROWS, *shape)),
    }
    array = draws[kind]()
    return array.astype(np.int64 if kind == "labels" else np.float32)


LIKELIHOODS = {
    "bernoulli": "bits",
    "normal": "unit",
    "normal_fixed:0.3": "unit",
    "normal_per_dim": "unit",
    "normal_predicted": "unit",
    "discretized_logistic:17": "levels",
    "poisson": "counts",
    "negative_binomial": "counts",
    "categorical:4": "labels",
}
# On one network each: the other adds nothing to them.
MORE_LIKELIHOODS = {
    "student_t:4": "unit",
    "logistic_mixture:17:3": "levels",
    "grey_levels:17": "levels",
    "continuous_bernoulli": "unit",
    "logit_laplace": "unit",
    "zero_inflated_negative_binomial": "counts",
}


def _vae(likelihood, network):
    shape = (2, 7, 5)
    return (
        "vae",
        {"x_shape": shape, "z_dim": 3, "hidden": (8,), "likelihood": likelihood, "network": network},
        shape,
    )


CASES = {
    f"vae {network} {likelihood}": (*_vae(likelihood, network), kind)
    for network in ("mlp", "conv")
    for likelihood, kind in LIKELIHOODS.items()
}
CASES |= {f"vae mlp {name}": (*_vae(name, "mlp"), kind) for name, kind in MORE_LIKELIHOODS.items()}
CASES["vae mlp rgb_logistic_mixture:17:2"] = (
    "vae",
    {"x_shape": (3, 3, 2), "z_dim": 3, "hidden": (8,), "likelihood": "rgb_logistic_mixture:17:2"},
    (3, 3, 2),
    "levels",
)
CASES |= {
    f"vqvae {name}": (
        "vqvae",
        {"x_shape": (3, 8, 12), "codes": 5, "code_dim": 4, "hidden": 6} | fields,
        (3, 8, 12),
        "unit",
    )
    for name, fields in {
        "ema": {},
        "ema, learned prior": {"learned_prior": True},
        "gradient": {"learning": "gradient"},
    }.items()
}
CASES |= {
    f"counts {likelihood}": (
        "counts",
        {"x_shape": (5,), "num_batches": 2, "z_dim": 2, "hidden": (6,), "likelihood": likelihood},
        (5,),
        "counts",
    )
    for likelihood in ("negative_binomial", "poisson")
}
CASES["hvae"] = (
    "hvae",
    {"x_shape": (1, 5, 3), "z_dims": (4, 3, 2), "hidden": (7, 6, 5), "activation": "gelu"},
    (1, 5, 3),
    "bits",
)
CASES["linear_gaussian"] = ("linear_gaussian", {"x_shape": (5,), "z_dim": 2}, (5,), "reals")
CASES["topdown"] = (
    "topdown",
    {"x_shape": (1, 8, 4), "latents": 3, "z_channels": 2, "width": 4, "inner": 3},
    (1, 8, 4),
    "bits",
)
# One of each program, where each likelihood would add nothing.
FEW = (
    "vae mlp bernoulli",
    "vae conv discretized_logistic:17",
    "vqvae ema",
    "vqvae gradient",
    "counts negative_binomial",
    "hvae",
    "topdown",
    "linear_gaussian",
)


def program(case):
    name, fields, _, _ = CASES[case]
    return load(name, **fields)


def batch(case, seed=0):
    """Return rows of the case's data as NumPy arrays."""
    rng = np.random.default_rng(seed)
    rows = {"x": _x(CASES[case][3], CASES[case][2], rng)}
    if case.startswith("counts"):
        rows |= {"batch": np.arange(ROWS) % 2, "size": rng.uniform(0.5, 2.0, ROWS).astype(np.float32)}
    return rows


def bound(case, backend, seed=0):
    """Return the case's program with weights that are the same on both backends, and nowhere zero."""
    made = bind(program(case), backend="pyro", num_data=NUM_DATA, seed=seed)
    rng = np.random.default_rng(seed)
    weights = made.weights()
    for name, value in weights.items():
        if not name.endswith(("placed", "counts", *(() if "learned prior" in case else ("logits",)))):
            weights[name] = value + rng.normal(scale=0.1, size=value.shape).astype(value.dtype)
    made = made if backend == "pyro" else bind(program(case), backend="numpyro", num_data=NUM_DATA, seed=seed)
    made.load_weights(weights)
    return made


@dataclass
class Seen:
    """One run of guide and model, as NumPy arrays."""

    latents: dict
    log_p: dict
    log_q: dict
    terms: dict
    event: dict
    weights: dict


def observe(case_bound, rows, latents=None, seed=0, particles=1):
    """Run guide and model once in the program's mode, at given latents (else at draws from the seed)."""
    module = importlib.import_module(f"backend_{case_bound.backend}")
    return module.observe(case_bound, rows, latents, seed, particles)


def loss_and_gradients(case_bound, objective, rows, beta=1.0, seed=0):
    """Return loss, metrics and the gradient by torch's names."""
    module = importlib.import_module(f"backend_{case_bound.backend}")
    return module.loss_and_gradients(case_bound, objective, rows, {"beta": beta}, seed)
