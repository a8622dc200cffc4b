"""The unweighted bound and the importance weighted bound per row, in chunks."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.checks import NO_PLATES, check_plates
from ppl_vae.backends.common.constraints import Outside, outside, refuse_outside_constraints
from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.common.particles import takes_particles
from ppl_vae.backends.common.predictive import BUDGET
from ppl_vae.backends.common.site import Pair, Site
from ppl_vae.backends.common.terms import Terms
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.data.batches import dims_of
from ppl_vae.diagnostics.evidence import DETERMINISTIC, Scores, joined, over_batches
from ppl_vae.errors import DataError, ProgramError

# Draws at once for a loader's batch, whose size is the user's choice.
LOADED_DRAWS = 16
# Numbers to score (rows times draws times dimensions) from which on compiling a pass is worth while. Not a
# measured time: the same evaluation must draw the same noise everywhere.
MANY_NUMBERS = 2e9
Rows = Arrays | Iterable[Any]


def score(
    bound: Bound,
    rows: Rows,
    importance_samples: int | None = None,
    seed: int = 0,
    budget: int = BUDGET,
    compile: str = "auto",
) -> Scores:
    """Return the terms of the unweighted bound, and the importance weighted bound where samples are
    asked for.

    Parameters
    ----------
    bound : Bound or PlainBound
    rows : dict of str to array, or iterable of batches
        Batches are passed on as the program's arguments.
    importance_samples : int or None
        k of the importance weighted bound.
    seed : int
        Of the guide's draws.
    budget : int
        Numbers of an observation to work on at once.
    compile : str
        Compile the importance weights on Pyro: on, off, or auto, where there are many. On NumPyro everything
        is compiled.

    Raises
    ------
    ProgramError
        Where it is open which plate is over the rows.
    """
    # A loader is asked once: shuffled, it would give the two bounds different rows.
    rows = rows if isinstance(rows, Mapping) else list(rows)
    if not rows:
        raise DataError("there are no rows: give at least one batch")
    most = max(1, budget // (dims_of(rows) if isinstance(rows, Mapping) else 1))
    with bound.passes(seed, "score") as passes:
        passes.stage(0)
        scores, further = _unweighted(bound, passes, rows, max(1, most // 4))
        if importance_samples:
            passes.stage(1)
            at_once = 1 if further else importance_samples
            _importance(bound, passes, rows, scores, importance_samples, at_once, most, compile)
    return scores


def _unweighted(bound: Bound, passes: Passes, rows: Rows, most: int) -> tuple[Scores, bool]:
    """Return the terms of the bound, and whether sites of a row lie in plates of their own."""
    # Two functions may hold parameters of each row: what fits one batch is not cut.
    facts = _described_by_few(passes, rows) if bound.declared else _described(passes, rows, most)
    note, further = DETERMINISTIC if facts.pop("exact") else None, facts.pop("further")
    likelihood, kls, shared, numbers, given = [], [], None, {}, 0
    for batch, count in passes.chunks(rows, most):
        given, count = given + (count or rows_of(batch)), count if count and count < rows_of(batch) else None
        seen, kl, common, masked, parameters = passes("bound", _bound_terms, batch)
        refuse_outside_constraints(parameters, nan=False)  # NaN shows in the bound
        for name, value in masked.items():
            numbers.setdefault(name, []).append(_per_row(value)[:count])
        likelihood.append(_per_row(seen)[:count])
        kls.append({name: _per_row(value)[:count] for name, value in kl.items()})
        shared = common if shared is None else shared
    total = np.concatenate(likelihood)
    facts |= {name: float(np.concatenate(counts).mean()) for name, counts in numbers.items()}
    kl = joined(kls, [len(part) for part in likelihood])
    kl_global = {name: float(value) for name, value in shared.items()}
    # Two functions may count rows along another axis of the data than the first.
    num_data = round((bound.num_data or given) * len(total) / given)
    return Scores(total, kl, kl_global, num_data, iw_note=note, **facts), further


def _bound_terms(
    tracer: Tracer, batch: Any
) -> tuple[Any, dict[str, Any], dict[str, Any], dict[str, Any], Outside]:
    """Return the terms of a bound, where something is masked how many numbers it is of, per row, by the name
    that `Scores` has for them, and which parameters of distributions lie outside their constraints.
    """
    pair = tracer.pair(batch)
    terms = Terms(tracer.F, pair, 1)
    masked = {
        name: sum(site.numbers() for site in sites)
        for name, sites in _counted(pair).items()
        if any(site.masks for site in sites)
    }
    parameters = outside(tracer.F, guide=pair.guide, model=pair.model)
    return terms.log_likelihood, terms.kl, terms.kl_global, masked, parameters


def _described_by_few(passes: Passes, rows: Rows) -> dict[str, Any]:
    """Return the same of a declared program, of which two rows tell it."""
    try:
        return _described(passes, rows, 2)
    except ProgramError:
        if not isinstance(rows, Mapping):
            raise
        # A plate that is not over the rows may have two entries, but not three as well.
        return _described(passes, {name: np.resize(a, (3, *a.shape[1:])) for name, a in rows.items()}, 3)


def _described(passes: Passes, rows: Rows, most: int) -> dict[str, Any]:
    """Return what holds of all batches, from the first rows of arrays, or from every batch of a loader."""
    facts: list[dict[str, Any]] = []

    def run(tracer: Tracer, batch: Any) -> None:
        pair = tracer.pair(batch)
        check_plates(pair.guide, pair.model, NO_PLATES, further=True)
        facts.append(_facts(pair))

    lengths = []
    for batch, _ in passes.chunks(rows, most):
        passes.described(run, batch)
        lengths.append(rows_of(batch))
        if isinstance(rows, Mapping):
            break
    return over_batches(facts, lengths) | {"further": any(fact["further"] for fact in facts)}


def _facts(pair: Pair) -> dict[str, Any]:
    """Return the numbers in an observation, whether its likelihood is a mass, if the guide is certain, the
    sizes of codebooks, and the sites that are masked.
    """
    counted = _counted(pair)
    seen = counted["dims"]
    latent, local = pair.guide.latent.values(), pair.guide.latent.local.items()
    return {
        "further": any(site.further for site in (*pair.guide.local.values(), *pair.model.local.values())),
        "dims": max(1, sum(site.dims for site in seen)),
        "dense": sum(site.dims for site in counted["dense"]),
        "discrete": all(site.discrete for site in seen),
        "exact": bool(latent) and all(site.deterministic for site in latent),
        "codes": {name: site.inner.codebook.shape[0] for name, site in local if hasattr(site.inner, "codes")},
        "masked": tuple(site.name for site in seen if site.masks),
    }


def _counted(pair: Pair) -> dict[str, list[Site]]:
    """Return the sites whose numbers `Scores` counts: all that are observed, and of x those with a
    density.
    """
    seen = [site for site in pair.model.observed.local.values() if not site.factor]
    of_x = [site for site in seen if site.name == "x"] or seen
    return {"dims": seen, "dense": [site for site in of_x if not site.discrete]}


def _importance(
    bound: Bound,
    passes: Passes,
    rows: Rows,
    scores: Scores,
    samples: int,
    at_once: int,
    most: int,
    compile: str,
) -> None:
    if scores.iw_note:
        return
    if scores.kl_global:
        name = next(iter(scores.kl_global))
        scores.iw_note = f"site {name!r} is global: importance weights per row are wrong for it"
        return
    loaded = not isinstance(rows, Mapping)
    at_once = min(at_once, LOADED_DRAWS) if loaded else min(at_once, max(1, most // 64), 256)
    if at_once > 1 and not bound.declared and (bound.loops or not _in_a_plate(passes, rows)):
        at_once = 1
    many = not loaded and len(scores.elbo) * samples * dims_of(rows) >= MANY_NUMBERS
    compiled = compile == "on" or (compile == "auto" and many)
    scores.iw = passes.importance(rows, samples, at_once, max(1, most // at_once), compiled)
    scores.k = samples


def _in_a_plate(passes: Passes, rows: Rows) -> bool:
    batch, _ = next(iter(passes.chunks(rows, 2)))
    return takes_particles(passes, batch)


def _per_row(value: np.ndarray) -> np.ndarray:
    if value.ndim != 1:
        raise ProgramError(
            f"a term of the bound has shape {value.shape}, not one number per row: "
            "is a site outside the plate over the rows?"
        )
    return value.astype(np.float64)
