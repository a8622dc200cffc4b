"""NumPyro's primitives as `ppl`."""

from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array

from ppl_vae.backends.common import primitives
from ppl_vae.backends.common.primitives import DATA
from ppl_vae.backends.numpyro import distributions
from ppl_vae.backends.numpyro.functions import F


class Primitives(primitives.Primitives):
    """See `ppl_vae.backends.common.primitives.Primitives`."""

    sample, plate, deterministic = map(staticmethod, (numpyro.sample, numpyro.plate, numpyro.deterministic))
    factor = staticmethod(numpyro.factor)
    dist, F = distributions, F

    def _rows(self, rows: int) -> numpyro.plate:
        if self._num_data is None:
            return numpyro.plate(DATA, rows, dim=-1)
        # The indices are given: NumPyro would permute the whole data set at every call.
        with numpyro.handlers.substitute(data={DATA: jnp.arange(rows)}):
            return numpyro.plate(DATA, self._num_data, subsample_size=rows, dim=-1)

    def array(self, value: Any) -> Array:
        found = jnp.asarray(value)
        return found.astype(self._like.dtype) if jnp.issubdtype(found.dtype, jnp.floating) else found

    @staticmethod
    def mask(mask: Array) -> Any:
        return numpyro.handlers.mask(mask=mask)
