"""Train on one and on two devices and write what came of it, in a process in which JAX sees two.

python tests/two_devices.py FOLDER CASE ...
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import TraceMeanField_ELBO
from reviving import reviving

from ppl_vae import IWAE, bind, data, fit, load
from ppl_vae.api import resume
from ppl_vae.backends.numpyro.svi import Engine
from ppl_vae.objectives import ELBO
from ppl_vae.options import Training
from ppl_vae.program import PlainProgram

ROWS, BATCH = 69, 32  # batches of 32, 32 and 5 rows: the last cannot be shared out
# A large eps keeps Adam from blowing up rounding of gradients near zero.
OPTIONS = {"epochs": 2, "batch_size": BATCH, "lr": 1e-2, "eps": 1e-2, "log_every": 2, "backend": "numpyro"}


def arrays(name, seed, n):
    rng = np.random.default_rng(seed)
    if name == "counts":
        size = rng.random(n).astype("f") + 0.5
        return {"x": rng.poisson(3, (n, 5)).astype("f"), "batch": rng.integers(0, 2, n), "size": size}
    if name in ("linear_gaussian", "plain"):
        return {"x": rng.normal(size=(n, 5)).astype("f")}
    return {"x": (rng.random((n, 1, 8, 8)) < 0.5).astype("f")}


def data_of(name):
    splits = {"train": arrays(name, 0, ROWS), "valid": arrays(name, 1, 21), "test": arrays(name, 2, 5)}
    return data.of(splits)


FIELDS = {
    "vae": {"hidden": (16,), "z_dim": 3},
    "hvae": {"z_dims": (4, 3), "hidden": (8, 8)},
    "vqvae": {"codes": 8, "code_dim": 4, "hidden": 8},
}


def model(x):
    w = numpyro.param("w", np.eye(2, 5, dtype="f"))
    with numpyro.plate("rows", len(x)):
        z = numpyro.sample("z", dist.Normal(np.zeros(2, "f"), 1).to_event(1))
        numpyro.sample("x", dist.Normal(z @ w, 0.5).to_event(1), obs=x)


def guide(x):
    v, scale = (
        numpyro.param("v", np.eye(5, 2, dtype="f")),
        numpyro.param("scale", 0.5, constraint=dist.constraints.positive),
    )
    with numpyro.plate("rows", len(x)):
        numpyro.sample("z", dist.Normal(x @ v, scale).to_event(1))


class Batches:
    """A loader of the same batches every epoch."""

    def __init__(self, rows):
        self.parts = [rows[i : i + BATCH] for i in range(0, len(rows), BATCH)]

    def __len__(self):
        return len(self.parts)

    def __iter__(self):
        return iter(self.parts)


def case(name):
    """Return program, data, objective and options."""
    vae, objective, options = load("vae", **FIELDS["vae"]), ELBO(), {}
    if name == "dynamic bits":
        grey = data.of(
            {split: {"x": np.sqrt(rows["x"] / 2)} for split, rows in data_of("vae").splits.items()}
        )
        return vae, data.of(grey, binarize="dynamic"), objective, {"ema": 0.5, "clip_norm": 1.0}
    if name in ("iwae", "stock", "loader"):
        objective = {"iwae": IWAE(3), "stock": TraceMeanField_ELBO()}.get(name, objective)
        return vae, Batches(arrays("vae", 0, ROWS)["x"]), objective, options
    if name == "reviving":
        return reviving(), data_of("vqvae"), objective, options
    if name == "plain":
        return PlainProgram(model, guide, backend="numpyro"), data_of("plain"), objective, options
    return load(name, **FIELDS.get(name, {})), data_of(name), objective, options


def written(folder, name, run):
    weights = run.bound.weights()
    np.savez(folder / f"{name}.npz", **weights)
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    (folder / f"{name}.json").write_text(json.dumps(history))


def placed():
    """Return what lies where: shapes on each device, and the compiled step's work on each."""
    found = {}
    for count in (1, 2):
        bound = bind(load("vae", x_shape=(1, 8, 8), hidden=(16,), z_dim=3), "numpyro", num_data=ROWS)
        options = Training(batch_size=BATCH, devices=count, device="cpu", log_every=2)
        engine = Engine(bound, ELBO(), options, train=arrays("vae", 0, ROWS), num_data=ROWS)
        engine.advance([np.arange(BATCH)] * 2, {"lr": np.ones(2), "beta": np.ones(2)}, lambda: False)
        index, lr = np.zeros((2, BATCH), np.int32), np.zeros(2, np.float32)
        made = engine._many.lower(engine.carry, engine.data, index, {"lr": lr, "beta": lr}, 2).compile()
        loaded = Engine(bound, ELBO(), options, num_data=ROWS)
        found[count] = {
            "text": made.as_text(),
            "weights": [len(leaf.sharding.device_set) for leaf in jax.tree.leaves(engine.carry)],
            "shown": sorted({str(leaf.sharding.device_set) for leaf in jax.tree.leaves(engine.bound.params)}),
            "batches": {
                size: [
                    (shard.device.id, shard.data.shape[0])
                    for shard in loaded.batch({"x": np.zeros((size, 1, 8, 8), "f")})["x"].addressable_shards
                ]
                for size in (BATCH, 5)
            },
        }
    return found


def both(folder, name):
    """Train a case on one and on two devices."""
    program, found, objective, options = case(name)
    for count in (1, 2):
        out = folder / f"run of {name} on {count}"
        run = fit(program, found, objective, devices=count, out=out, **OPTIONS | options)
        written(folder, f"{name} on {count}", run)


def interrupted(folder):
    """Interrupt a VQ-VAE on two devices at step 3 and go on with it on one and on two."""

    def interrupt(event, state):
        if event == "log" and state["position"].step >= 3:
            os.kill(os.getpid(), signal.SIGTERM)

    program, found, objective, _ = case("vqvae")
    options = OPTIONS | {"log_every": 1, "devices": 2}
    part = fit(program, found, objective, out=folder / "on 2", callbacks=[interrupt], **options)
    assert part.stopped_by == "SIGTERM" and part.steps == 3
    shutil.copytree(folder / "on 2", folder / "on 1")
    for count in (1, 2):
        run = resume(folder / f"on {count}", data=found, log_every=2, devices=count)
        written(folder, f"resumed on {count}", run)


def main(folder, *names):
    """Write the results of cases into a folder."""
    assert len(jax.devices()) == 2
    for name in names:
        if name == "interrupted":
            interrupted(folder)
        elif name == "placed":
            (folder / "placed.json").write_text(json.dumps(placed()))
        else:
            both(folder, name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
