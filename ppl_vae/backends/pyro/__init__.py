"""The Pyro backend: programs as torch modules, trained by SVI through Lightning Fabric."""

import pyro.infer

from ppl_vae.backends.common.density import Density
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.posterior import draws
from ppl_vae.backends.common.predictive import decode, encode, reconstruct, sample
from ppl_vae.backends.pyro.bound import Bound, bind
from ppl_vae.backends.pyro.check import probe
from ppl_vae.backends.pyro.exporting import check_export, export
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.backends.pyro.svi import Engine
from ppl_vae.errors import UsageError

__all__ = [
    "Bound",
    "Density",
    "Engine",
    "PlainBound",
    "bind",
    "check_export",
    "decode",
    "draws",
    "encode",
    "export",
    "probe",
    "reconstruct",
    "sample",
    "score",
    "stock_objective",
]


def stock_objective(name: str) -> type[pyro.infer.ELBO]:
    """Return a kind of ELBO of pyro.infer by its name."""
    found = getattr(pyro.infer, name.removeprefix("pyro.infer."), None)
    if not (isinstance(found, type) and issubclass(found, pyro.infer.ELBO)):
        raise UsageError(
            f"pyro.infer has no ELBO {name!r}: "
            "Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO and TraceEnum_ELBO are some"
        )
    return found
