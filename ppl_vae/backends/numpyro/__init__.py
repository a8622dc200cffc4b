"""The NumPyro backend: programs as pure functions of parameters and state, trained by compiled loops."""

import numpyro.infer

from ppl_vae.backends.common.density import Density
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.posterior import draws
from ppl_vae.backends.common.predictive import decode, encode, reconstruct, sample
from ppl_vae.backends.numpyro.bound import Bound, bind
from ppl_vae.backends.numpyro.check import probe
from ppl_vae.backends.numpyro.plain import PlainBound
from ppl_vae.backends.numpyro.svi import Engine
from ppl_vae.errors import UsageError

__all__ = [
    "Bound",
    "Density",
    "Engine",
    "PlainBound",
    "bind",
    "decode",
    "draws",
    "encode",
    "probe",
    "reconstruct",
    "sample",
    "score",
    "stock_objective",
]


def stock_objective(name: str) -> type[numpyro.infer.ELBO]:
    """Return a kind of ELBO of numpyro.infer by its name."""
    found = getattr(numpyro.infer, name.removeprefix("numpyro.infer."), None)
    if not (isinstance(found, type) and issubclass(found, numpyro.infer.ELBO)):
        known = "Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO and TraceEnum_ELBO are some"
        raise UsageError(f"numpyro.infer has no ELBO {name!r}: {known}")
    return found
