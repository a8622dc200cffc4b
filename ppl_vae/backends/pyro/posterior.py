"""Draws of a program's posterior and prior on the host, in chunks of rows and draws."""

from collections.abc import Mapping

import numpy as np
import torch
from pyro import poutine
from torch import nn

from ppl_vae.backends.pyro import layout as layouts
from ppl_vae.backends.pyro.drawing import PREDICTIVE, PRIOR, RESAMPLE, Found, Job, propose, simulate
from ppl_vae.backends.pyro.evaluate import BUDGET, chunk_rows, count_rows, on_device
from ppl_vae.backends.pyro.layout import Layout
from ppl_vae.backends.pyro.predictive import at_rest
from ppl_vae.diagnostics.importance import resample, statistics
from ppl_vae.diagnostics.posterior import METHODS, PosteriorDraws
from ppl_vae.errors import ProgramError, UsageError

Arrays = Mapping[str, np.ndarray]
# Proposals of the guide for each draw that resampling keeps: the rule of Rubin (1988) is 10 to 20.
OVERSAMPLING = 10


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
    _check_options(method, seed, num_samples=num_samples, oversampling=oversampling, budget=budget)
    count_rows(rows)
    rows = _ready(bound, rows)
    with at_rest(bound, seed):
        job = Job(bound, rows, _layout(bound, rows), seed, budget)
        proposals = num_samples * (oversampling if method == "importance" else 1)
        found = (
            _resampled(job, num_samples, proposals) if method == "importance" else _drawn(job, num_samples)
        )
        result = _result(job, method, found, proposals)
        if predictive:
            result.posterior_predictive = simulate(job, num_samples, found.latent, PREDICTIVE)
            simulated = simulate(job, num_samples, {}, PRIOR)
            result.prior_predictive = {name: simulated.pop(name) for name in job.layout.observed}
            result.prior = simulated
    return result


def _drawn(job: Job, count: int) -> Found:
    found = propose(job, slice(0, count_rows(job.rows)), count)
    if not _note(job.layout):
        found.statistics = statistics(found.log_weight)
    return found


def _resampled(job: Job, count: int, proposals: int) -> Found:
    layout = job.layout
    for name in layout.shared:
        raise ProgramError(f"site {name!r} is global: no weight belongs to one row alone; use method='guide'")
    for name in layout.deterministic:
        raise ProgramError(f"site {name!r} has one value only in the guide: use method='guide'")
    blocks = []
    for block in chunk_rows(job.rows, max(1, job.budget // (layout.latents * proposals))):
        found = propose(job, block, proposals)
        rng = np.random.default_rng([job.seed, RESAMPLE, block.start])
        index = resample(found.log_weight, count, rng)
        picked = index, np.arange(index.shape[1])
        latent = {name: values[picked] for name, values in found.latent.items()}
        density = {name: values[picked] for name, values in found.log_likelihood.items()}
        kept = Found(latent, density, found.observed, found.log_weight[picked])
        kept.statistics = statistics(found.log_weight)
        blocks.append(kept)
    return _joined(blocks)


def _joined(blocks: list[Found]) -> Found:
    def along(axis: int, part: str) -> dict[str, np.ndarray]:
        parts = [getattr(block, part) for block in blocks]
        return {name: np.concatenate([values[name] for values in parts], axis) for name in parts[0]}

    weight = np.concatenate([block.log_weight for block in blocks], 1)
    found = Found(along(1, "latent"), along(1, "log_likelihood"), along(0, "observed"), weight)
    found.statistics = along(0, "statistics")
    return found


def _note(layout: Layout) -> str:
    """Return why one weight a row means nothing, or nothing."""
    for name in layout.shared:
        return f"site {name!r} is global: log_weight is given the global draw, no weight by itself"
    for name in layout.deterministic:
        return f"site {name!r} has one value only in the guide: log_weight is a log joint density, no weight"
    return ""


def _result(job: Job, method: str, found: Found, proposals: int) -> PosteriorDraws:
    layout, program, note = job.layout, job.bound.program, _note(job.layout)
    plates = dict(layout.plates)
    plates |= {f"{name}_codes": plates[name] for name in layout.latent if f"{name}_codes" in found.latent}
    return PosteriorDraws(
        method=method,
        backend="pyro",
        program=getattr(program, "name", None) or type(program).__name__,
        rows=layout.rows,
        posterior=found.latent,
        log_likelihood=found.log_likelihood,
        observed_data=found.observed,
        plates=plates,
        log_weight=found.log_weight,
        log_weight_global=found.log_weight_global,
        row_statistics=found.statistics,
        proposals=0 if note else proposals,
        note=note,
    )


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


def _check_options(method: str, seed: int, **sizes: int) -> None:
    if method not in METHODS:
        raise UsageError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    if seed < 0:
        raise UsageError(f"seed={seed}: give a number of at least 0")
    for name, value in sizes.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise UsageError(f"{name}={value!r}: give a whole number of at least 1")
