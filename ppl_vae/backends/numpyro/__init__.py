"""The NumPyro backend: programs as pure functions of parameters and state, trained by compiled loops."""

from functools import partial

import numpyro.infer

from ppl_vae.backends.common import verbs
from ppl_vae.backends.common.verbs import *  # noqa: F403
from ppl_vae.backends.numpyro.bound import Bound, bind
from ppl_vae.backends.numpyro.check import probe
from ppl_vae.backends.numpyro.plain import PlainBound
from ppl_vae.backends.numpyro.svi import Engine

stock_objective = partial(verbs.stock_elbo, numpyro.infer)
__all__ = [*verbs.__all__, "Bound", "Engine", "PlainBound", "bind", "probe", "stock_objective"]
