"""Pyro's distributions and the project's own, as a program's `ppl.dist`. NumPyro's has the same names."""

import sys

from pyro.distributions import *  # noqa: F403

from ppl_vae.backends.common.distributions import beside
from ppl_vae.backends.pyro.distributions.adapter import adapted

_OURS = beside(sys.modules[__name__], adapted)
globals().update(_OURS)
__all__ = ["adapted", *_OURS]
