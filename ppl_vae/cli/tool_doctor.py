"""Tell what this installation has, and whether it trains.

Versions, devices, data sets at hand, and a short training on each backend that is installed.
"""

import os
import platform
import time
from typing import Any

from jsonargparse import ArgumentParser

from ppl_vae import data
from ppl_vae.cli import arguments
from ppl_vae.data.locate import cache_folder


def parser() -> ArgumentParser:
    """Return the options."""
    return arguments.new(__doc__, "doctor")


def main(options: Any) -> dict[str, Any]:
    """Look at everything; exit code 1 where a backend that is installed does not train."""
    from ppl_vae.api.record import versions

    report = {
        "versions": versions(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": _devices(),
    }
    cache = cache_folder()
    report["data"] = {row["name"]: row["where"] for row in data.catalogue()}
    report["cache"] = {"folder": str(cache), "writable": _writable(cache)}
    report["backends"] = {name: _smoke(name) for name in _installed()}
    ok = all(one["ok"] for one in report["backends"].values())
    return report | {"exit_code": 0 if ok else 1}


def _devices() -> dict[str, Any]:
    import torch

    cuda = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "cuda": cuda,
        "torch_threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
    }


def _installed() -> list[str]:
    from importlib.util import find_spec

    return ["pyro", *(["numpyro"] if find_spec("numpyro") else [])]


def _smoke(backend: str) -> dict[str, Any]:
    """Train a small program on the embedded data for some steps."""
    from ppl_vae import fit, load

    started = time.perf_counter()
    try:
        run = fit(
            load("vae", z_dim=2, hidden=(16,)),
            data.load("digits"),
            backend=backend,
            max_steps=20,
            progress=False,
        )
    except Exception as error:  # whatever it is, it is what the person came to hear
        return {"ok": False, "error": f"{type(error).__name__}: {' '.join(str(error).split())}"}
    elbo = run.history[-1]["elbo_nats"]
    return {"ok": elbo > -60, "elbo_nats": elbo, "seconds": time.perf_counter() - started}


def _writable(path: Any) -> bool:
    while not path.exists():
        path = path.parent
    return os.access(path, os.W_OK)
