"""Small programs and data that tests train."""

import numpy as np

from ppl_vae import data, load

SMALL = {"hidden": (16,), "z_dim": 3}
FIELDS = {
    "vae": SMALL,
    "hvae": {"z_dims": (4, 3), "hidden": (8, 8)},
    "topdown": {"latents": 3, "z_channels": 2, "width": 4, "inner": 3},
    "vqvae": {"codes": 8, "code_dim": 4, "hidden": 8},
}


def vae(**changes):
    return load("vae", **SMALL | changes)


def bits(n=70, seed=0):
    return (np.random.default_rng(seed).random((n, 1, 4, 4)) < 0.4).astype(np.float32)


def small_data(n=70):
    return data.of({"x_train": bits(n), "x_valid": bits(20, 1), "x_test": bits(20, 2)})


def example(name, n=6):
    """A small program of the gallery and a batch for it."""
    batch = rows(name, n)
    if name == "counts":
        return load(name, x_shape=(5,), num_batches=2), batch
    return load(name, x_shape=batch["x"].shape[1:], **FIELDS.get(name, {})), batch


def rows(name, n):
    """Rows for a program of the gallery, by field."""
    rng = np.random.default_rng(0)
    if name == "counts":
        found = {"x": rng.poisson(3, (n, 5)), "batch": rng.integers(0, 2, n)}
        return found | {"size": rng.random(n).astype("f") + 0.5}
    if name == "linear_gaussian":
        return {"x": rng.normal(size=(n, 5)).astype("f")}
    return {"x": (rng.random((n, 1, 8, 8)) < 0.5).astype("f")}


def same(one, other):
    """Tell whether two programs have the same weights, to the bit."""
    return set(one) == set(other) and all(np.array_equal(one[name], other[name]) for name in one)


def train_rows(run, name):
    """Return what the history says of each of its training rows."""
    return [row[name] for row in run.history if row["split"] == "train"]
