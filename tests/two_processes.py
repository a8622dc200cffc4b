"""Train on two devices with Pyro and write what came of it: this script runs once per device.

python tests/two_processes.py FOLDER CASE ...
"""

import json
import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from reviving import reviving

from ppl_vae import Program, data, fit, load
from ppl_vae.api import resume

BATCH = 32
# A large eps keeps Adam from blowing up rounding of gradients near zero.
OPTIONS = {"epochs": 2, "batch_size": BATCH, "lr": 1e-2, "eps": 1e-2, "log_every": 2, "device": "cpu"}
FIELDS = {
    "vae": {"hidden": (16,), "z_dim": 3},
    "hvae": {"z_dims": (4, 3), "hidden": (8, 8)},
    "vqvae": {"codes": 8, "code_dim": 4, "hidden": 8},
}


@dataclass(frozen=True)
class Normalized(Program):
    """A program without noise, whose guide and model both normalize batches."""

    backends = ("pyro",)
    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {
            "encoder": nn.Sequential(nn.Linear(5, 4), nn.BatchNorm(4), nn.Linear(4, 3)),
            "decoder": nn.Sequential(nn.Linear(3, 4), nn.BatchNorm(4), nn.Linear(4, 5)),
            "unused": nn.Linear(2, 2),
        }

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(3))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Delta(net.encoder(x), event_dim=1))


class Seldom(Normalized):
    """Two networks that few batches use, each of them for its own rows alone, and one for a few sites."""

    def networks(self, nn):
        return {
            "encoder": nn.Linear(5, 3),
            "decoder": nn.Linear(3, 5),
            "high": nn.Linear(5, 3),
            "low": nn.Linear(5, 3),
            "unused": nn.Linear(2, 2),
        }

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(3))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 0.5).to_event(1), obs=x)
            if (x[:, 0] > 2).any():
                ppl.factor("far", -0.1 * ppl.F.square(z[:, 0]) * (x[:, 0] > 2))

    def guide(self, ppl, net, x):
        z = net.encoder(x)
        for network, sign in ((net.high, 1), (net.low, -1)):
            chosen = (sign * x[:, 0] > 1.8).nonzero()[:, 0]
            if len(chosen):
                z = z.index_add(0, chosen, network(x[chosen]))
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Delta(z, event_dim=1))


class SeldomNormalized(Normalized):
    """A network that normalizes the rows of few batches."""

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            z = net.encoder(x) if (x[:, 0] > 1.8).any() else ppl.F.zeros((len(x), 3), x)
            ppl.sample("z", ppl.dist.Delta(z, event_dim=1))


def arrays(name, seed, n):
    rng = np.random.default_rng(seed)
    if name == "counts":
        size = rng.random(n).astype("f") + 0.5
        return {"x": rng.poisson(3, (n, 5)).astype("f"), "batch": rng.integers(0, 2, n), "size": size}
    if name in ("linear_gaussian", "normalized", "seldom", "seldom normalized"):
        return {"x": rng.normal(size=(n, 5)).astype("f")}
    return {"x": (rng.random((n, 1, 8, 8)) < 0.5).astype("f")}


def data_of(name, rows=69):
    """Batches of 32, 32 and the rest; validation rows that make unequal shares."""
    splits = {"train": arrays(name, 0, rows), "valid": arrays(name, 1, 21), "test": arrays(name, 2, 5)}
    return data.of(splits)


# The program, the rows, the options and the fields that are not those of every case.
CASES = {
    "vqvae": ("vqvae", 69, {}, {}),
    "vqvae, one row left": ("vqvae", 65, {}, {}),
    "reviving": ("reviving", 65, {"clip_norm": 1.0, "ema": 0.5}, {}),
    "vqvae in parts": ("vqvae", 69, {"accumulate": 3}, {}),
    "normalized": ("normalized", 69, {}, {}),
    "normalized, one row left": ("normalized", 65, {"accumulate": 2}, {}),
    "seldom": ("seldom", 69, {}, {}),
    "seldom, in parts": ("seldom", 65, {"accumulate": 3}, {}),
    "vqvae, compiled": ("vqvae", 65, {"compile": "on"}, {}),
    "normalized, compiled": ("normalized", 67, {"compile": "on"}, {}),
}
REFUSED = {"seldom normalized": ("seldom normalized", 69, {}, {})}
STOCHASTIC = ("vae", "hvae", "counts", "linear_gaussian")
CASES |= {name: (name, 69, {"log_every": 1, "keep": "last"}, {}) for name in STOCHASTIC}


def program(name, fields):
    own = {"normalized": Normalized, "seldom": Seldom, "seldom normalized": SeldomNormalized}
    own |= {"reviving": reviving}
    return own[name]() if name in own else load(name, **FIELDS.get(name, {}) | fields)


def trained(case, **more):
    """Train a case, uncompiled unless it says otherwise."""
    name, rows, options, fields = (CASES | REFUSED)[case]
    found = data_of(name, rows)
    return fit(program(name, fields), found, **{"compile": "off"} | OPTIONS | options | more)


def written(folder, name, run):
    """Write weights and history of each process."""
    np.savez(folder / f"{name} {run.rank}.npz", **run.bound.weights())
    history = [{k: v for k, v in row.items() if k != "seconds"} for row in run.history]
    (folder / f"{name} {run.rank}.json").write_text(json.dumps(history))


def listening():
    """Return the addresses at which this process listens, as /proc/net writes them."""
    own = {os.readlink(path) for path in Path("/proc/self/fd").iterdir() if path.is_symlink()}
    rows = [
        row.split() for name in ("tcp", "tcp6") for row in Path("/proc/net", name).read_text().splitlines()
    ]
    return [row[1] for row in rows if row[3] == "0A" and f"socket:[{row[9]}]" in own]


def interrupted(folder):
    """Train in one go; train until a signal comes, and go on on two devices and on one."""

    def interrupt(event, state):
        if event == "log" and state["position"].step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    written(folder, "whole", trained("vae", devices=2, out=folder / "whole", log_every=2))
    part = trained("vae", devices=2, out=folder / "part", log_every=2, callbacks=[interrupt])
    assert part.stopped_by == "SIGTERM" and part.steps == 4
    written(folder, "resumed", resume(folder / "part", data=data_of("vae")))


def at_step(rank, number):
    """Let the process of a rank send itself a signal at its fifth step."""
    if os.environ.get("LOCAL_RANK", "0") == rank:
        from ppl_vae.backends.pyro.step import Step

        before, steps = Step.__call__, []

        def step(self, *args):
            steps.append(1)
            if len(steps) == 5:
                os.kill(os.getpid(), number)
            return before(self, *args)

        Step.__call__ = step


def dying(folder):
    """Let the second process die."""
    at_step("1", signal.SIGKILL)
    trained("vqvae", devices=2, out=folder / "dying", log_every=2, checkpoint_every=0.0)


def stopping(rank):
    """Let the process of a rank stop."""
    at_step(rank, signal.SIGSTOP)
    trained("vae", devices=2, epochs=1000)


def main(folder, *names):
    """Write the results of cases into a folder."""
    for name in names:
        if name in REFUSED:
            trained(name, devices=2)
        elif name.startswith("stopping"):
            stopping(name.split()[1])
        elif name in ("interrupted", "dying"):
            globals()[name](folder)
        else:
            run = trained(name, devices=2)
            assert all(address.startswith("0100007F:") for address in listening())  # 127.0.0.1
            assert run.rank or listening()
            assert run.config["compile"] == CASES[name][2].get("compile", "off")
            written(folder, name, run)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
