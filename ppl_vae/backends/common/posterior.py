"""Draws of a program's posterior and prior on the host, in chunks of rows and draws."""

from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.backends.common import reading
from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.drawing import PREDICTIVE, PRIOR, RESAMPLE, Drawn, Job, propose, simulate
from ppl_vae.backends.common.layout import Layout, read
from ppl_vae.backends.common.predictive import BUDGET
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.data.batches import chunk_rows, count_rows
from ppl_vae.diagnostics.importance import resample, statistics
from ppl_vae.diagnostics.posterior import METHODS, PosteriorDraws
from ppl_vae.diagnostics.reconstruction import with_gaps
from ppl_vae.errors import ProgramError

# Proposals of the guide for each draw that is returned: the rule of Rubin (1988) is 10 to 20.
OVERSAMPLING = 10


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
        covariates; not where the likelihood of a field reads the field itself, which a line says.
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
    checks.one_of("method", method, METHODS)
    checks.seed(seed)
    for name, value in {"num_samples": num_samples, "oversampling": oversampling, "budget": budget}.items():
        checks.whole_number(name, value)
    count_rows(rows)
    kind = bound.precision()
    rows = {n: a.astype(kind, copy=False) if a.dtype.kind == "f" else a for n, a in rows.items()}
    with bound.passes(seed) as passes:
        job = Job(bound, passes, rows, _layout(bound, passes, rows), budget)
        proposals = num_samples * oversampling if method == "importance" else num_samples
        _refuse_beyond_memory(job, num_samples, proposals, predictive)
        if method == "importance":
            drawn = _resampled(job, proposals, num_samples, seed)
        else:
            size = count_rows(rows)
            drawn = propose(job, slice(0, size), size, num_samples)
            if not job.layout.note:
                drawn.statistics = statistics(drawn.log_weight)
        result = _result(job, drawn, method, proposals)
        if predictive:
            reading.predicted(bound, passes, rows, lambda: _predict(job, result, num_samples))
    return result


def _predict(job: Job, result: PosteriorDraws, num_samples: int) -> None:
    predictive = simulate(job, num_samples, result.posterior, PREDICTIVE)
    prior = simulate(job, num_samples, {}, PRIOR)
    result.prior_predictive = {name: prior.pop(name) for name in job.layout.observed}
    result.posterior_predictive, result.prior = predictive, prior


def _refuse_beyond_memory(job: Job, num_samples: int, proposals: int, predictive: bool) -> None:
    """Refuse so many draws that they, or the proposals for one row, cannot be held."""
    layout, rows, width = job.layout, count_rows(job.rows), job.bound.precision().itemsize
    densities = np.dtype(np.float64).itemsize * (1 + len(layout.observed))
    per_draw = layout.latents * width + densities
    whole = per_draw + (predictive and (layout.latents + 2 * layout.observations) * width)
    one_row = per_draw if proposals > num_samples else 0
    checks.within_memory("num_samples", num_samples, num_samples * rows * whole + proposals * one_row)


def _resampled(job: Job, proposals: int, count: int, seed: int) -> Drawn:
    """Pick `count` of the proposals per row by their weights."""
    for name in job.layout.shared:
        raise ProgramError(f"site {name!r} is global: no weight belongs to one row alone; use method='guide'")
    for name in job.layout.deterministic:
        raise ProgramError(f"site {name!r} has one value only in the guide: use method='guide'")
    block = min(count_rows(job.rows), max(1, job.budget // (job.layout.latents * proposals)))
    parts = []
    for rows in chunk_rows(job.rows, block):
        drawn = propose(job, rows, block, proposals)
        index = resample(drawn.log_weight, count, np.random.default_rng([seed, RESAMPLE, rows.start]))
        picked = index, np.arange(index.shape[1])
        latent = {name: values[picked] for name, values in drawn.latent.items()}
        density = {name: values[picked] for name, values in drawn.log_likelihood.items()}
        of_rows = statistics(drawn.log_weight)
        parts.append(Drawn(latent, density, drawn.observed, drawn.log_weight[picked], statistics=of_rows))

    def along(axis: int, part: str) -> dict[str, np.ndarray]:
        arrays = [getattr(one, part) for one in parts]
        return {name: np.concatenate([values[name] for values in arrays], axis) for name in arrays[0]}

    weight = np.concatenate([part.log_weight for part in parts], 1)
    latent, density, observed = along(1, "latent"), along(1, "log_likelihood"), along(0, "observed")
    return Drawn(latent, density, observed, weight, statistics=along(0, "statistics"))


def _result(job: Job, drawn: Drawn, method: str, proposals: int) -> PosteriorDraws:
    layout, program = job.layout, job.bound.program
    plates = dict(layout.plates)
    plates |= {f"{name}_codes": plates[name] for name in layout.latent if f"{name}_codes" in drawn.latent}
    return PosteriorDraws(
        method=method,
        backend=job.bound.backend,
        program=getattr(program, "name", None) or type(program).__name__,
        rows=layout.rows,
        posterior=drawn.latent,
        log_likelihood=drawn.log_likelihood,
        observed_data=with_gaps(drawn.observed, job.rows, "x" in layout.masked),
        plates=plates,
        log_weight=drawn.log_weight,
        log_weight_global=drawn.log_weight_global,
        row_statistics=drawn.statistics,
        proposals=0 if layout.note else proposals,
        note=layout.note,
    )


def _layout(bound: Any, passes: Passes, rows: Arrays) -> Layout:
    first = {name: values[:1] for name, values in bound.among(rows).items()}
    # Functions are jitted per layout: the same rows must get the same one again.
    key = tuple((name, value.shape, str(value.dtype)) for name, value in first.items())

    def run(tracer: Tracer, batch: Any) -> None:
        bound.layouts[key] = read(tracer.pair(batch))

    if key not in bound.layouts:
        passes.described(run, first)
    return bound.layouts[key]
