"""Draws of a program's posterior and prior on the host, in chunks of rows and draws."""

from collections.abc import Mapping
from functools import partial

import numpy as np
import torch
from pyro import poutine
from torch import nn

from ppl_vae.backends.pyro import layout as layouts
from ppl_vae.backends.pyro.drawing import Job, propose, simulate
from ppl_vae.backends.pyro.evaluate import BUDGET, on_device
from ppl_vae.backends.pyro.layout import Layout
from ppl_vae.backends.pyro.predictive import at_rest
from ppl_vae.data.batches import chunk_rows, count_rows
from ppl_vae.diagnostics.drawn import OVERSAMPLING, Found, check_options, predictions, resampled, result
from ppl_vae.diagnostics.importance import statistics
from ppl_vae.diagnostics.posterior import PosteriorDraws

Arrays = Mapping[str, np.ndarray]


def draws(
    bound: nn.Module,
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
    `oversampling * num_samples` proposals a row from the guide and picks `num_samples` of them with
    replacement, each with the probability of its weight.

    Global latents are drawn once a draw and shared by all rows. The same arguments give the same draws;
    another `budget`, other rows or another number of draws cut the random stream elsewhere and give other
    draws of the same distributions. The program's mode and torch's random numbers are left as they were.

    Parameters
    ----------
    bound : Bound or PlainBound
    rows : dict of str to [N, ...]
    num_samples : int
        S, draws a row.
    method : {"guide", "importance"}
    seed : int
    predictive : bool
        Also draw observations given the latents, and latents and observations of the prior given the rows'
        covariates.
    oversampling : int
        Proposals for each draw that is kept.
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
    rows = _ready(bound, rows)
    with at_rest(bound, seed):
        job = Job(bound, rows, _layout(bound, rows), seed, budget)
        found = _proposed(job, num_samples, method, oversampling)
        drawn = result(job.layout, found, method, "pyro", bound.program, oversampling)
        if predictive:
            predictions(partial(simulate, job, num_samples), job.layout, drawn)
    return drawn


def _proposed(job: Job, count: int, method: str, oversampling: int) -> Found:
    layout, rows = job.layout, job.rows
    if method == "importance":
        count, kept = count * oversampling, count
        blocks = chunk_rows(rows, max(1, job.budget // (layout.latents * count)))
        return resampled(lambda block: propose(job, block, count), layout, blocks, kept, job.seed)
    found = propose(job, slice(0, count_rows(rows)), count)
    if not layout.note:
        found.statistics = statistics(found.log_weight)
    return found


def _layout(bound: nn.Module, rows: Arrays) -> Layout:
    batch = on_device(bound, rows, slice(0, 1))
    bound.ensure_parameters(batch)
    guide = poutine.trace(bound.guide).get_trace(**batch)
    return layouts.read(guide, poutine.trace(poutine.replay(bound.model, trace=guide)).get_trace(**batch))


def _ready(bound: nn.Module, rows: Arrays) -> dict[str, np.ndarray]:
    """Return the rows with floating point numbers in the program's precision."""
    kinds = (value.dtype for value in bound.tensors().values() if value.is_floating_point())
    kind = torch.empty(0, dtype=next(kinds, torch.float32)).numpy().dtype
    return {
        name: array.astype(kind, copy=False) if array.dtype.kind == "f" else array
        for name, array in rows.items()
    }
