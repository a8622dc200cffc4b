"""Passes over rows on NumPyro, compiled; see `ppl_vae.backends.common.tracing.Passes`."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, lax, random

from ppl_vae.backends.common.terms import Densities
from ppl_vae.backends.numpyro.devices import narrow
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.tracing import Tracer
from ppl_vae.data.batches import chunk_rows, count_rows
from ppl_vae.progress import tell, told

TOGETHER = 1024  # passes of importance weights at once
ASIDE = 2**31 - 1  # the stream of noise beside those of the passes, which are counted from 0


class Passes:
    """Passes of one bound program, within `at_rest`."""

    def __init__(self, bound: Any, seed: int):
        self.bound, self.seed = bound, seed
        self._key, self._taken = random.key(seed), 0

    def __call__(
        self, name: Any, function: Callable[..., Any], *arrays: Any, stream: tuple[int, ...] | None = None
    ) -> Any:
        key = self._key
        for number in (self._taken,) if stream is None else stream:
            key = random.fold_in(key, number)
        self._taken += stream is None
        run = compiled(self.bound, name, pure(self.bound, function))
        arrays = jax.device_put(narrow(arrays), self.bound.device)
        bound = self.bound
        return jax.device_get(run(bound.params, bound.state, key, dict(bound.scalars), *arrays))

    def stage(self, number: int) -> None:
        self._key, self._taken = random.split(random.key(self.seed))[number], 0

    def aside(self, name: Any, function: Callable[..., Any], *arrays: Any) -> Any:
        return self(name, function, *arrays, stream=(ASIDE,))

    def described(self, function: Callable[..., Any], *arrays: Any) -> None:
        self.bound.ensure_parameters(*arrays[:1])

        def run(*arrays: Any) -> None:
            function(Tracer(self.bound, random.key(0)), *arrays)

        jax.eval_shape(run, *arrays)

    def chunks(self, rows: Any, most: int) -> Iterator[tuple[dict[str, Array], int | None]]:
        bound = self.bound
        if not isinstance(rows, Mapping):
            batches = ((jax.device_put(bound.as_batch(item), bound.device), None) for item in rows)
            for done, batch in enumerate(self._ready(batches), 1):
                yield batch
                tell(done, len(rows))
            return
        yield from self._ready(self._padded(rows, most))

    def _padded(self, rows: Mapping[str, np.ndarray], most: int) -> Iterator[tuple[dict[str, Array], int]]:
        count = count_rows(rows)
        for part in told(chunk_rows(rows, most), count):
            index, size = np.arange(part.start, part.stop), part.stop - part.start
            if size < most < count:
                # The last chunk is filled up, so that it needs no compilation of its own.
                index = np.concatenate([index, np.full(most - size, part.start)])
            batch = {name: np.asarray(values[index]) for name, values in self.bound.among(rows).items()}
            yield jax.device_put(narrow(batch), self.bound.device), size

    def _ready(self, batches: Iterator[Any]) -> Iterator[Any]:
        for batch, size in batches:
            self.bound.ensure_parameters(batch)
            yield batch, size

    def importance(self, rows: Any, samples: int, at_once: int, most: int, compile: bool) -> np.ndarray:
        passes = -(-samples // at_once)
        together = min(passes, TOGETHER)

        def run(tracer: Tracer, batch: Any, first: Array, left: Array) -> Array:
            def one(index: Array) -> Array:
                key = random.fold_in(tracer.key, first + index)
                pair = Tracer(self.bound, key, tracer.params, tracer.state).pair(batch, at_once)
                weights = Densities(pair.guide, pair.model).log_weights.reshape(at_once, -1)
                # The last passes draw samples too many, which are left out.
                spare = index * at_once + jnp.arange(at_once) >= left
                return F.logsumexp(jnp.where(spare[:, None], -jnp.inf, weights), 0)

            return lax.map(one, jnp.arange(together))

        def total(batch: Any) -> np.ndarray:
            stream, sums = (self._taken,), []
            self._taken += 1
            with np.errstate(invalid="ignore"):  # NaN of a run that diverged stays NaN
                for first in range(0, passes, together):
                    left = np.int32(min(samples - first * at_once, together * at_once))
                    found = self(name, run, batch, np.uint32(first), left, stream=stream)
                    sums.append(np.logaddexp.reduce(found.astype(np.float64), 0))
                return np.logaddexp.reduce(sums, 0)

        name = ("importance", together, at_once)
        bounds = [total(batch)[:size] for batch, size in self.chunks(rows, most)]
        return np.concatenate(bounds) - math.log(samples)


def pure(bound: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function of (tracer, *arrays) as one of (params, state, key, scalars, *arrays)."""

    def run(params: Any, state: Any, key: Array, scalars: Any, *arrays: Any) -> Any:
        with bound.at(scalars):
            return function(Tracer(bound, key, params, state), *arrays)

    return run


def compiled(bound: Any, name: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a jitted function of a bound program, made once for each name, mode and precision."""
    return bound.compiled.setdefault((name, bound.training, bound.autocast), jax.jit(function))


@contextmanager
def at_rest(bound: Any, seed: int, name: str | None = None) -> Iterator[Passes]:
    """Set evaluation mode, and afterwards the mode from before."""
    mode = bound.training
    bound.eval()
    try:
        with numpyro.validation_enabled(False):
            yield Passes(bound, seed)
    finally:
        bound.train(mode)
