"""The primitives that a program gets as `ppl`: NumPyro's own, with the differences to Pyro smoothed over."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
import numpyro
from jax import Array, lax

from ppl_vae.backends.common.bound import named_scalar
from ppl_vae.backends.numpyro import distributions
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.errors import ProgramError, UsageError

DATA = "data"


class Primitives:
    """One call's primitives.

    Parameters
    ----------
    draws : int or None
        Size of the plate "data" where no data is given.
    num_data : int or None
        Rows of the whole data set: stock ELBOs see a scale of num_data / batch. None: scale 1.
    scalars : dict of str to number, optional
        What changes with the step.
    """

    sample = staticmethod(numpyro.sample)
    plate = staticmethod(numpyro.plate)
    dist = distributions
    F = F
    likelihood = staticmethod(distributions.likelihood)
    F = F

    def __init__(
        self,
        draws: int | None = None,
        num_data: int | None = None,
        scalars: Mapping[str, Any] | None = None,
    ):
        self._draws, self._num_data, self._scalars = draws, num_data, scalars or {}

    def scalar(self, name: str) -> Any:
        """Return the present value of what changes with the step (see `Program.schedules`)."""
        return named_scalar(self._scalars, name)

    def minibatch(self, *arrays: Array | None) -> numpyro.plate:
        """Return the plate "data" over the rows of the batch, or over the draws where all are None."""
        sizes = {len(array) for array in arrays if array is not None}
        if len(sizes) > 1:
            raise ProgramError(f"the fields of a batch have different numbers of rows: {sorted(sizes)}")
        rows = sizes.pop() if sizes else self._draws
        if rows is None:
            raise UsageError("no data and no number of draws: call model(x) or model(n=64)")
        if self._num_data is None:
            return numpyro.plate(DATA, rows, dim=-1)
        # The indices are given: NumPyro would permute the whole data set at every call.
        with numpyro.handlers.substitute(data={DATA: jnp.arange(rows)}):
            return numpyro.plate(DATA, self._num_data, subsample_size=rows, dim=-1)

    @staticmethod
    def standard_normal(shape: int | Iterable[int]) -> distributions.Distribution:
        """Return N(0, I) with the event shape `shape`."""
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        return distributions.Normal(jnp.zeros(size), jnp.ones(size)).to_event(len(size))

    @staticmethod
    def array(value: Any) -> Array:
        """Return numbers as an array: whole numbers and truth values as they are, others in the program's
        precision.
        """
        found = jnp.asarray(value)
        return found.astype(jnp.result_type(float)) if jnp.issubdtype(found.dtype, jnp.floating) else found

    @staticmethod
    def deterministic(name: str, value: Array) -> Array:
        """Record a value under a name, with the axes right of the plates as its event."""
        return numpyro.deterministic(name, value)

    @staticmethod
    def factor(name: str, log_factor: Array) -> None:
        """Add to the log density, in nats.

        In a guide it counts as log q: the objective subtracts it, reported bounds leave it out.
        """
        numpyro.factor(name, log_factor)

    @staticmethod
    def mask(mask: Array) -> Any:
        """Return a context in which sites count only where `mask` is true."""
        return numpyro.handlers.mask(mask=mask)

    @staticmethod
    def stop_gradient(value: Array) -> Array:
        """Return the value as a constant."""
        return lax.stop_gradient(value)
