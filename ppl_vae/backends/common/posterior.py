"""Draws of a program's posterior and prior on the host, in chunks of rows and draws."""

from functools import partial
from typing import Any

from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.drawing import Job, propose, simulate
from ppl_vae.backends.common.layout import Layout, read
from ppl_vae.backends.common.predictive import BUDGET
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.data.batches import chunk_rows, count_rows
from ppl_vae.diagnostics.drawn import OVERSAMPLING, Found, check_options, predictions, resampled, result
from ppl_vae.diagnostics.importance import statistics
from ppl_vae.diagnostics.posterior import PosteriorDraws


def draws(
    bound: Bound,
    rows: Arrays,
    num_samples: int,
    *,
    method: str = "guide",
    seed: int = 0,
    predictive: bool = True,
    oversampling: int = OVERSAMPLING,
    budget: int = BUDGET,
) -> PosteriorDraws:
    """Draw latents of rows given their data, with their weights, predictions and the prior beside them.

    `guide` hands out draws of q(z | x) with their log weights. `importance` takes
    `oversampling * num_samples` proposals per row from the guide and picks `num_samples` of them with
    replacement, each with the probability of its weight.

    Global latents are drawn once per draw and shared by all rows. The same arguments give the same draws;
    another `budget`, other rows or another number of draws cut the random stream elsewhere and give other
    draws of the same distributions. The program's mode and the random numbers of the process are left as they
    were.

    Parameters
    ----------
    bound : Bound or PlainBound
    rows : dict of str to [N, ...]
    num_samples : int
        S, draws per row.
    method : {"guide", "importance"}
    seed : int
    predictive : bool
        Also draw observations given the latents, and latents and observations of the prior given the rows'
        covariates.
    oversampling : int
        Proposals for each draw that is returned.
    budget : int
        Numbers to work on at once; bounds the memory on the device, and of the proposals on the host.

    Raises
    ------
    UsageError
        For an unknown method or a number below 1.
    DataError
        Where there are no rows.
    ProgramError
        Where guide and model have different latents, and under `importance` for a global latent or a guide
        without spread, by the name of the site.
    """
    check_options(method, seed, num_samples=num_samples, oversampling=oversampling, budget=budget)
    count_rows(rows)
    kind = bound.precision()
    rows = {n: a.astype(kind, copy=False) if a.dtype.kind == "f" else a for n, a in rows.items()}
    with bound.passes(seed) as passes:
        job = Job(bound, passes, rows, _layout(bound, passes, rows), budget)
        found = _proposed(job, num_samples, method, oversampling, seed)
        drawn = result(job.layout, found, method, bound.backend, bound.program, oversampling)
        if predictive:
            predictions(partial(simulate, job, num_samples), job.layout, drawn)
    return drawn


def _proposed(job: Job, count: int, method: str, oversampling: int, seed: int) -> Found:
    layout, size = job.layout, count_rows(job.rows)
    if method == "importance":
        count, returned = count * oversampling, count
        block = min(size, max(1, job.budget // (layout.latents * count)))
        blocks = chunk_rows(job.rows, block)
        return resampled(lambda part: propose(job, part, block, count), layout, blocks, returned, seed)
    found = propose(job, slice(0, size), size, count)
    if not layout.note:
        found.statistics = statistics(found.log_weight)
    return found


def _layout(bound: Any, passes: Passes, rows: Arrays) -> Layout:
    first = {name: rows[name][:1] for name in bound.fields if name in rows}
    # Functions are compiled for a layout: the same rows must find the same one again.
    key = tuple((name, value.shape, str(value.dtype)) for name, value in first.items())

    def run(tracer: Tracer, batch: Any) -> None:
        bound.layouts[key] = read(tracer.pair(batch))

    if key not in bound.layouts:
        passes.described(run, first)
    return bound.layouts[key]
