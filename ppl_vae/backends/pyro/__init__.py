"""The Pyro backend: programs as torch modules, trained by SVI through Lightning Fabric."""

from functools import partial

import pyro.infer

from ppl_vae.backends.common import verbs
from ppl_vae.backends.common.verbs import *  # noqa: F403
from ppl_vae.backends.pyro.bound import Bound, bind
from ppl_vae.backends.pyro.check import probe
from ppl_vae.backends.pyro.exporting import check_export, export
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.backends.pyro.svi import Engine

stock_objective = partial(verbs.stock_elbo, pyro.infer)
__all__ = [
    *verbs.__all__,
    "Bound",
    "Engine",
    "PlainBound",
    "bind",
    "check_export",
    "export",
    "probe",
    "stock_objective",
]
