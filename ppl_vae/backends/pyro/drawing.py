"""Draws of guide, prior and predictions in chunks of rows and draws, gathered on the host."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.backends.pyro.evaluate import on_device
from ppl_vae.backends.pyro.layout import Layout, Site
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.backends.pyro.terms import PARTICLES, is_latent_or_observed
from ppl_vae.data.batches import chunk_rows, count_rows
from ppl_vae.diagnostics.drawn import GUIDE, Found, Store

Arrays = Mapping[str, np.ndarray]


class Chunk(NamedTuple):
    """Some draws for some rows."""

    samples: slice
    rows: slice
    batch: dict[str, Tensor]


@dataclass
class Job:
    """What every step of one call needs."""

    bound: nn.Module
    rows: Arrays
    layout: Layout
    seed: int
    budget: int

    @property
    def one_by_one(self) -> bool:
        """Only a declared program promises to keep leading axes: a plain one draws one by one."""
        return isinstance(self.bound, PlainBound)

    def chunks(self, among: slice, count: int, stream: int) -> Iterator[Chunk]:
        """Yield chunks, rows fastest; each with random numbers of its own."""
        dims = [int(np.prod(array.shape[1:], dtype=np.int64)) for array in self.rows.values()]
        most = max(1, self.budget // max(self.layout.largest, *dims))
        width = min(among.stop - among.start, max(1, most // (1 if self.one_by_one else min(count, 64))))
        depth = 1 if self.one_by_one else max(1, most // width)
        for start in range(0, count, depth):
            samples = slice(start, min(start + depth, count))
            for part in chunk_rows({name: array[among] for name, array in self.rows.items()}, width):
                part = slice(part.start + among.start, part.stop + among.start)
                torch.manual_seed(_stream(self.seed, stream, start, part.start))
                yield Chunk(samples, part, on_device(self.bound, self.rows, part))

    def particles(self, samples: slice) -> AbstractContextManager:
        """Return the plate of draws, left of the program's own axes."""
        if self.one_by_one:
            return nullcontext()
        size = samples.stop - samples.start
        return pyro.plate(PARTICLES, size, dim=-1 - self.layout.depth, device=self.bound.device)


def propose(job: Job, among: slice, count: int) -> Found:
    """Draw from the guide, `count` times for each of some rows, and score the model there."""
    layout, shared = job.layout, poutine.Trace()
    out = Store(count, among)
    for samples, part, batch in job.chunks(among, count, GUIDE):
        first = part.start == among.start
        shared = poutine.Trace() if first else shared
        with job.particles(samples):
            guide = poutine.trace(poutine.replay(job.bound.guide, trace=shared)).get_trace(**batch)
            model = poutine.trace(poutine.replay(job.bound.model, trace=guide)).get_trace(**batch)
        # What lies outside the rows is drawn with the first of them, for all.
        for name in layout.shared if first else ():
            if name in layout.latent:
                shared.nodes[name] = guide.nodes[name]
        names = [name for name in (*layout.latent, *layout.observed) if first or name in layout.local]
        for name in names:
            _record(out, layout, name, model.nodes[name], samples, part)
        local, common = _weights(layout, guide, model)
        out.put("weight", "local", local.numpy(), samples, part)
        if first and common is not None:
            out.put("weight", "global", common.numpy(), samples, None)
    return Found.of(out)


def _record(out: Store, layout: Layout, name: str, site: Site, samples: slice, part: slice) -> None:
    rows = part if name in layout.local else None
    if name in layout.latent:
        _values(out, "latent", layout, name, site, samples, rows)
        return
    out.put("density", name, layout.log_prob(name, site).double().cpu().numpy(), samples, rows)
    if samples.start == 0:
        out.put("observed", name, layout.values(name, site)[0].cpu().numpy(), None, rows)


def _values(
    out: Store, group: str, layout: Layout, name: str, site: Site, samples: slice, rows: slice | None
) -> None:
    out.put(group, name, layout.values(name, site).cpu().numpy(), samples, rows)
    codes = layout.codes(name, site) if name in layout.latent else None
    if codes is not None:
        out.put(group, f"{name}_codes", codes.cpu().numpy(), samples, rows)


def _weights(layout: Layout, guide: poutine.Trace, model: poutine.Trace) -> tuple[Tensor, Tensor | None]:
    """Return log p - log q over the local sites and over the global ones."""
    total: dict[bool, Tensor] = {True: torch.zeros(1, 1, dtype=torch.float64)}
    for sign, trace in ((1, model), (-1, guide)):
        for name, site in trace.nodes.items():
            # A factor of the guide is a penalty, no density of a draw.
            if not is_latent_or_observed(site) or (sign < 0 and site["is_observed"]):
                continue
            local = name in layout.local
            term = sign * layout.log_prob(name, site).double().cpu()
            total[local] = total[local] + term if local in total else term
    return total[True], total.get(False)


def simulate(job: Job, count: int, given: Arrays, stream: int) -> dict[str, np.ndarray]:
    """Run the model forward from given latents, else from its prior: what it draws, [S, N, *event]."""
    layout, among = job.layout, slice(0, count_rows(job.rows))
    out = Store(count, among)
    shared: dict[str, Tensor] = {}
    names = layout.observed if given else (*layout.latent, *layout.observed)
    for samples, part, batch in job.chunks(among, count, stream):
        first = part.start == 0
        fixed = {} if first else shared
        for name in layout.latent if given else ():
            values = given[name][samples, part] if name in layout.local else given[name][samples]
            restored = layout.restored(name, torch.from_numpy(values).to(job.bound.device))
            fixed = fixed | {name: layout.alone(name, restored) if job.one_by_one else restored}
        with job.particles(samples):
            # Covariates stay as they are: only what the model observes is drawn anew.
            model = poutine.condition(poutine.uncondition(job.bound.model), data=fixed)
            trace = poutine.trace(model).get_trace(**batch)
        if first:
            common = (name for name in layout.shared if name not in layout.factors)
            shared = {name: trace.nodes[name]["value"] for name in common}
        for name in names:
            if first or name in layout.local:
                rows = part if name in layout.local else None
                _values(out, "drawn", layout, name, trace.nodes[name], samples, rows)
    return out.groups["drawn"]


def _stream(seed: int, *key: int) -> int:
    return int(np.random.SeedSequence([seed, *key]).generate_state(1, np.uint64)[0])
