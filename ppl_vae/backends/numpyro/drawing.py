"""Draws of guide, prior and predictions in chunks of rows and draws, gathered on the host."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import handlers

from ppl_vae.backends.numpyro.evaluate import compiled, on_device
from ppl_vae.backends.numpyro.layout import Layout, Site
from ppl_vae.backends.numpyro.terms import Trace, is_latent_or_observed, latent_sites, traces
from ppl_vae.data.batches import count_rows
from ppl_vae.diagnostics.drawn import GUIDE, Found, Store

Arrays = Mapping[str, np.ndarray]
Values = dict[str, Array]


class Chunk(NamedTuple):
    """Some draws for some rows. All chunks have one shape: the last are filled up by repetition.

    Attributes
    ----------
    samples, rows : slice
        What counts; `samples` is None where an array has no axis of draws.
    draws, index : [D], [B] of int
        Numbers of the draws and rows that are worked on.
    keys : [D]
    batch : dict of str to [B, ...]
    """

    samples: slice | None
    rows: slice
    draws: np.ndarray
    index: np.ndarray
    keys: Array
    batch: Values


@dataclass
class Job:
    """What every step of one call needs."""

    bound: Any
    rows: Arrays
    layout: Layout
    seed: int
    budget: int

    def chunks(self, among: slice, block: int, count: int, stream: int) -> Iterator[Chunk]:
        """Yield chunks, rows fastest; each with random numbers of its own.

        Parameters
        ----------
        block : int
            The most rows that `among` has in any call: chunks have the same shape in all of them.
        """
        dims = [int(np.prod(array.shape[1:], dtype=np.int64)) for array in self.rows.values()]
        most = max(1, self.budget // max(self.layout.largest, *dims))
        width = _even(block, max(1, most // min(count, 64)))
        depth = _even(count, max(1, most // width))
        key = random.fold_in(random.key(self.seed), stream)
        for start in range(0, count, depth):
            samples = slice(start, min(start + depth, count))
            draws = np.minimum(np.arange(start, start + depth), count - 1)
            for first in range(among.start, among.stop, width):
                rows = slice(first, min(first + width, among.stop))
                index = np.minimum(np.arange(first, first + width), among.stop - 1)
                keys = random.split(random.fold_in(random.fold_in(key, start), first), depth)
                yield Chunk(samples, rows, draws, index, keys, on_device(self.bound, self.rows, index))


def _even(count: int, most: int) -> int:
    """Return the size of as few equal parts of at most `most` as `count` needs."""
    return -(-count // -(-count // most))


def propose(job: Job, among: slice, block: int, count: int) -> Found:
    """Draw from the guide, `count` times for each of some rows, and score the model there."""
    bound, layout, params = job.bound, job.layout, job.bound.params
    out, shared = Store(count, among), {}
    function = compiled(bound, ("propose", layout), _proposal(bound, layout))
    for chunk in job.chunks(among, block, count, GUIDE):
        first = chunk.rows.start == among.start
        # What lies outside the rows is drawn with the first of them, for all.
        shared = _zeros(layout, layout.latent, chunk) if first else shared
        found = function(params, bound.state, chunk.keys, chunk.batch, shared, np.bool_(first))
        shared = found.pop("shared")
        host = jax.device_get(found)
        _put(out, layout, "latent", host["latent"], chunk, first)
        density = {name: host["model"][name].astype(np.float64) for name in layout.observed}
        _put(out, layout, "density", density, chunk, first)
        if chunk.samples.start == 0:
            _put(out, layout, "observed", host["observed"], chunk._replace(samples=None), first)
        _put_weights(out, layout, host, chunk, first)
    return Found.of(out)


def _proposal(bound: Any, layout: Layout) -> Callable[..., dict[str, Values]]:
    def one(params: Any, state: Any, batch: Values, first: Array, key: Array, shared: Values) -> Any:
        def fill(site: Site) -> Array | None:
            if site["name"] not in shared or site["value"] is not None:
                return None
            return jnp.where(first, _draw(site), shared[site["name"]])

        with handlers.substitute(substitute_fn=fill):
            guide, model, _ = traces(bound, batch, key, 1, params, state)
        # A factor of the guide is a penalty, no density of a draw.
        drawn = latent_sites(guide)
        scored = {name: site for name, site in model.items() if is_latent_or_observed(site)}
        return {
            "latent": _values(layout, layout.latent, model),
            "observed": {name: layout.values(name, model[name]) for name in layout.observed},
            "model": {name: layout.log_prob(name, site) for name, site in scored.items()},
            "guide": {name: layout.log_prob(name, site) for name, site in drawn.items()},
            "shared": {name: model[name]["value"] for name in shared},
        }

    def run(
        params: Any, state: Any, keys: Array, batch: Values, shared: Values, first: Array
    ) -> dict[str, Values]:
        found = jax.vmap(partial(one, params, state, batch, first))(keys, shared)
        # Observations are the same in every draw.
        return found | {"observed": {name: value[0] for name, value in found["observed"].items()}}

    return run


def _draw(site: Site) -> Array:
    kwargs = {name: site["kwargs"][name] for name in ("rng_key", "sample_shape")}
    return site["fn"](**kwargs)


def _zeros(layout: Layout, names: Iterable[str], chunk: Chunk) -> dict[str, np.ndarray]:
    """Return zeros for what is drawn outside the rows: compiled functions are given the same always."""
    forms = {name: layout.raw[name] for name in names if name in layout.raw}
    return {name: np.zeros((len(chunk.draws), *form.shape), form.dtype) for name, form in forms.items()}


def _values(layout: Layout, names: tuple[str, ...], trace: Trace) -> Values:
    """Return values by site, [rows, plates, event], and the codes of codebook vectors."""
    found = {}
    for name in names:
        found[name] = layout.values(name, trace[name])
        codes = layout.codes(name, trace[name]) if name in layout.latent else None
        if codes is not None:
            found[f"{name}_codes"] = codes
    return found


def _cut(value: np.ndarray, samples: slice | None, rows: slice | None) -> np.ndarray:
    """Leave out what fills a chunk up."""
    sizes = [part.stop - part.start for part in (samples, rows) if part is not None]
    return value[tuple(slice(size) for size in sizes)]


def _put(out: Store, layout: Layout, group: str, found: Arrays, chunk: Chunk, first: bool) -> None:
    """Write [D, B, ...] by site; a global one, which has no rows, with the first of them."""
    for name, value in found.items():
        local = (name if name in layout.kept else name.removesuffix("_codes")) in layout.local
        if local or first:
            rows = chunk.rows if local else None
            out.put(group, name, _cut(value, chunk.samples, rows), chunk.samples, rows)


def _put_weights(out: Store, layout: Layout, host: Mapping[str, Arrays], chunk: Chunk, first: bool) -> None:
    """Write log p - log q over the local sites, and over the global ones."""
    total: dict[bool, np.ndarray] = {True: np.zeros((len(chunk.draws), len(chunk.index)))}
    for sign, role in ((1, "model"), (-1, "guide")):
        for name, value in host[role].items():
            local = name in layout.local
            total[local] = total.get(local, 0.0) + sign * value.astype(np.float64)
    weight = _cut(total[True], chunk.samples, chunk.rows)
    out.put("weight", "local", weight, chunk.samples, chunk.rows)
    if first and False in total:
        out.put("weight", "global", _cut(total[False], chunk.samples, None), chunk.samples, None)


def simulate(job: Job, count: int, given: Arrays, stream: int) -> dict[str, np.ndarray]:
    """Run the model forward from given latents, else from its prior: what it draws, [S, N, *event]."""
    bound, layout, params = job.bound, job.layout, job.bound.params
    size = count_rows(job.rows)
    among, known, shared = slice(0, size), np.bool_(bool(given)), {}
    out = Store(count, among)
    function = compiled(bound, ("simulate", layout), _simulation(bound, layout))
    for chunk in job.chunks(among, size, count, stream):
        first = chunk.rows.start == 0
        shared = _zeros(layout, layout.raw, chunk) if first else shared
        latents = {name: _given(layout, name, given, chunk) for name in layout.latent}
        values = params, bound.state, chunk.keys, chunk.batch, latents, shared
        found = function(*values, known, np.bool_(first))
        shared = found["shared"]
        drawn = {n: v for n, v in found["drawn"].items() if not given or n in layout.observed}
        _put(out, layout, "drawn", jax.device_get(drawn), chunk, first)
    return out.groups["drawn"]


def _given(layout: Layout, name: str, given: Arrays, chunk: Chunk) -> np.ndarray:
    """Return given latents of a chunk, or zeros of their shape."""
    local, form = name in layout.local, layout.shapes[name]
    if not given:
        rows = (len(chunk.index),) if local else ()
        return np.zeros((len(chunk.draws), *rows, *form.shape[len(rows) :]), form.dtype)
    values = given[name][chunk.draws]
    return values[:, chunk.index] if local else values


def _simulation(bound: Any, layout: Layout) -> Callable[..., dict[str, Values]]:
    def one(
        params: Any,
        state: Any,
        batch: Values,
        known: Array,
        first: Array,
        key: Array,
        latents: Values,
        shared: Values,
    ) -> dict[str, Values]:
        fixed = {name: layout.restored(name, value) for name, value in latents.items()}

        def fill(site: Site) -> Array | None:
            name = site["name"]
            if name not in fixed and name not in shared:
                return None
            value = jnp.where(first, _draw(site), shared[name]) if name in shared else _draw(site)
            return jnp.where(known, fixed[name], value) if name in fixed else value

        # Covariates stay as they are: only what the model observes is drawn anew.
        model = handlers.uncondition(handlers.seed(bound.model, key))
        model = handlers.substitute(handlers.substitute(model, substitute_fn=fill), data=params | state)
        with bound.unscaled():
            trace = handlers.trace(model).get_trace(**batch)
        return {
            "drawn": _values(layout, (*layout.latent, *layout.observed), trace),
            "shared": {name: trace[name]["value"] for name in shared},
        }

    def run(
        params: Any, state: Any, keys: Array, batch: Values, latents: Values, shared: Values, *flags: Array
    ):
        return jax.vmap(partial(one, params, state, batch, *flags))(keys, latents, shared)

    return run
