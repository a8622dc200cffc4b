"""Draws of guide, prior and predictions in chunks of rows and draws, gathered on the host."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.layout import Layout
from ppl_vae.backends.common.site import Trace
from ppl_vae.backends.common.summing import refuse_unknown
from ppl_vae.backends.common.terms import added
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.data.batches import count_rows
from ppl_vae.progress import tell

Values = dict[str, Any]
GUIDE, PREDICTIVE, PRIOR, RESAMPLE = range(4)  # streams of random numbers


class Store:
    """Arrays on the host by group and name, filled chunk by chunk.

    Parameters
    ----------
    count : int
        All draws.
    among : slice
        All rows.
    """

    def __init__(self, count: int, among: slice):
        self.count, self.among = count, among
        self.groups: dict[str, dict[str, np.ndarray]] = {}

    def put(
        self, group: str, name: str, array: np.ndarray, samples: slice | None, rows: slice | None
    ) -> None:
        """Write [draws (or 1 for all), rows, ...] without what fills a chunk up; without `samples` or `rows`
        the axis is missing.
        """
        where, sizes = [], []
        if samples is not None:
            where.append(samples)
            sizes.append(self.count)
        if rows is not None:
            where.append(slice(rows.start - self.among.start, rows.stop - self.among.start))
            sizes.append(self.among.stop - self.among.start)
        whole = self.groups.setdefault(group, {})
        if name not in whole:
            whole[name] = np.empty((*sizes, *array.shape[len(sizes) :]), array.dtype)
        whole[name][tuple(where)] = array[tuple(slice(part.stop - part.start) for part in where)]


@dataclass
class Drawn:
    """Draws of the guide: latents and codes [S, N, ...], densities [S, N], observations [N, ...]."""

    latent: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]
    log_weight: np.ndarray
    log_weight_global: np.ndarray | None = None
    statistics: dict[str, np.ndarray] = field(default_factory=dict)


class Chunk(NamedTuple):
    """Some draws for some rows. All chunks have one shape: the last are filled up by repetition.

    Attributes
    ----------
    samples, rows : slice
        What counts; `samples` is None where an array has no axis of draws.
    draws, index : [D], [B] of int
        Numbers of the draws and rows that are worked on.
    batch : dict of str to [B, ...]
    stream : tuple of int
        Names its noise.
    first : bool
        It holds the first of the rows, with which everything outside the rows is drawn.
    """

    samples: slice | None
    rows: slice
    draws: np.ndarray
    index: np.ndarray
    batch: dict[str, np.ndarray]
    stream: tuple[int, ...]
    first: bool


@dataclass
class Job:
    """What every step of one call needs. Only a declared program promises to keep leading axes: two functions
    draw one by one.
    """

    bound: Bound
    passes: Passes
    rows: Arrays
    layout: Layout
    budget: int

    def chunks(self, among: slice, block: int, count: int, stream: int) -> Iterator[Chunk]:
        """Yield chunks, rows fastest.

        Parameters
        ----------
        among : slice
            The rows.
        block : int
            The most rows that `among` has in any call: chunks have the same shape in all of them.
        count : int
            Draws per row.
        stream : int
            Names the noise.
        """
        dims = [int(np.prod(array.shape[1:], dtype=np.int64)) for array in self.rows.values()]
        most, many = max(1, self.budget // max(self.layout.largest, *dims)), self.bound.declared
        width = _even(block, max(1, most // (min(count, 64) if many else 1)))
        depth = _even(count, max(1, most // width)) if many else 1
        for start in range(0, count, depth):
            samples = slice(start, min(start + depth, count))
            draws = np.minimum(np.arange(start, start + depth), count - 1)
            for first in range(among.start, among.stop, width):
                rows = slice(first, min(first + width, among.stop))
                index = np.minimum(np.arange(first, first + width), among.stop - 1)
                batch = {name: values[index] for name, values in self.bound.among(self.rows).items()}
                noise, is_first = (stream, start, first), first == among.start
                yield Chunk(samples, rows, draws, index, batch, noise, is_first)
                within = (among.stop - among.start) * start + (rows.stop - among.start) * (
                    samples.stop - start
                )
                tell(among.start * count + within, count_rows(self.rows) * count)


def _even(count: int, most: int) -> int:
    """Return the size of as few equal parts of at most `most` as `count` needs."""
    return -(-count // -(-count // most))


def propose(job: Job, among: slice, block: int, count: int) -> Drawn:
    """Draw from the guide, `count` times for each of some rows, and score the model there."""
    layout, out, shared = job.layout, Store(count, among), {}
    for chunk in job.chunks(among, block, count, GUIDE):
        # What lies outside the rows is drawn with the first of them, for all.
        shared = {} if chunk.first else shared
        depth = len(chunk.draws)
        name, function = ("propose", layout, depth), _proposal(layout, depth)
        passed = job.passes(name, function, chunk.batch, shared, stream=chunk.stream)
        shared = passed["shared"] if chunk.first else shared
        _put(out, layout, "latent", passed["latent"], chunk)
        density = {name: passed["model"][name].astype(np.float64) for name in layout.observed}
        _put(out, layout, "density", density, chunk)
        if chunk.samples.start == 0:
            observed = {name: value[0] for name, value in passed["observed"].items()}
            _put(out, layout, "observed", observed, chunk._replace(samples=None))
        _put_weights(out, layout, passed, chunk)
    latent, density, observed = (out.groups.get(name, {}) for name in ("latent", "density", "observed"))
    return Drawn(latent, density, observed, out.groups["weight"]["local"], out.groups["weight"].get("global"))


def _proposal(layout: Layout, depth: int) -> Callable[..., dict[str, Values]]:
    def run(tracer: Tracer, batch: Any, shared: Values) -> dict[str, Values]:
        F, pair = tracer.F, tracer.pair(batch, depth, layout.depth, shared)
        # A factor of the guide is a penalty, no density of a draw.
        return {
            "latent": _values(F, layout, layout.latent, pair.model),
            "observed": {name: layout.values(F, name, pair.model[name]) for name in layout.observed},
            "model": {name: layout.log_density(name, site) for name, site in pair.model.items()},
            "guide": {name: layout.log_density(name, site) for name, site in pair.guide.latent.items()},
            "shared": {name: pair.model[name].value for name in layout.shared if name in layout.latent},
        }

    return run


def _values(F: Any, layout: Layout, names: tuple[str, ...], trace: Trace) -> Values:
    """Return values by site, [draws, rows, plates, event], and the codes of codebook vectors."""
    values = {}
    for name in names:
        values[name] = layout.values(F, name, trace[name])
        if name in layout.latent and trace[name].distribution == "Codebook":
            values[f"{name}_codes"] = trace[name].inner.nearest(values[name])
    return values


def _put(out: Store, layout: Layout, group: str, values: Arrays, chunk: Chunk) -> None:
    """Write [D, B, ...] by site; a global one, which has no rows, with the first of them."""
    for name, value in values.items():
        local = (name if name in layout.axes else name.removesuffix("_codes")) in layout.local
        if local or chunk.first:
            out.put(group, name, value, chunk.samples, chunk.rows if local else None)


def _put_weights(out: Store, layout: Layout, passed: Mapping[str, Arrays], chunk: Chunk) -> None:
    """Write log p - log q over the local sites, and over the global ones, summed in double precision."""

    def weights(local: bool) -> Any:
        log_p, log_q = (
            added(v.astype(np.float64) for n, v in passed[role].items() if (n in layout.local) == local)
            for role in ("model", "guide")
        )
        return log_p - log_q

    local = np.zeros((1, len(chunk.index))) + weights(local=True)
    out.put("weight", "local", local, chunk.samples, chunk.rows)
    if chunk.first and not layout.local.issuperset([*passed["model"], *passed["guide"]]):
        out.put("weight", "global", weights(local=False), chunk.samples, None)


def simulate(job: Job, count: int, given: Arrays, stream: int) -> dict[str, np.ndarray]:
    """Run the model forward from given latents, else from its prior: what it draws, [S, N, *event]."""
    layout, size, shared = job.layout, count_rows(job.rows), {}
    names = layout.observed if given else (*layout.latent, *layout.observed)
    out = Store(count, slice(0, size))
    for chunk in job.chunks(out.among, size, count, stream):
        shared = {} if chunk.first else shared
        latents = {name: given[name][chunk.draws] for name in layout.latent if given}
        latents = {n: v[:, chunk.index] if n in layout.local else v for n, v in latents.items()}
        depth = len(chunk.draws)
        name, function = ("simulate", layout, names, depth), _simulation(layout, names, depth)
        passed = job.passes(name, function, chunk.batch, latents, shared, stream=chunk.stream)
        shared = passed["shared"] if chunk.first else shared
        _put(out, layout, "drawn", passed["drawn"], chunk)
    return out.groups["drawn"]


def _simulation(layout: Layout, names: tuple[str, ...], depth: int) -> Callable[..., dict[str, Values]]:
    def run(tracer: Tracer, batch: Any, latents: Values, shared: Values) -> dict[str, Values]:
        F, alone = tracer.F, not tracer.bound.declared
        fixed = {name: layout.restored(F, name, value, alone) for name, value in latents.items()}
        # Covariates stay as they are: only what the model observes is drawn anew.
        values = dict(shared) | fixed
        options = {"redraw": True, "particles": depth, "depth": layout.depth}
        trace = tracer.model(batch, values=values, **options)
        refuse_unknown(tracer, trace, batch, values, **options)
        common = (name for name in layout.shared if name not in layout.factors)
        return {
            "drawn": _values(F, layout, names, trace),
            "shared": {name: trace[name].value for name in common},
        }

    return run
