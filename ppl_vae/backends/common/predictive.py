"""Encode, decode, sample and reconstruct: a bound program as a function of arrays, in chunks."""

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.backends.common import reading
from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.site import Site, Trace, under
from ppl_vae.backends.common.summing import refuse_unknown
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.data.batches import dims_of, slices
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import refuse_missing
from ppl_vae.progress import told

# Numbers of one observation that are worked on at once, over rows and draws: tens of megabytes per layer.
BUDGET = 2**22
Shapes = dict[str, tuple[int, ...]]


def centre(fn: Any) -> Any:
    """Return the mean of a distribution, or the most probable class where the one under `to_event` and the
    like is categorical.
    """
    inner = under(fn)[-1]
    if type(inner).__name__.startswith("Categorical"):
        return inner.probs.argmax(-1)
    try:
        return fn.mean
    except NotImplementedError:
        kind = type(inner).__name__
        raise ProgramError(f"a {kind} has no mean to show: sample from the program instead") from None


def encode(bound: Bound, rows: Arrays, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the guide's local latents per row and site, [N, *event]: its means, or one draw.

    In a hierarchy each layer is given the means (or draws) of those above. A site of codes adds
    `<site>_codes`, their numbers.
    """

    def run(tracer: Tracer, batch: Any) -> dict[str, Any]:
        return latents_of(tracer.guide(batch, centres=not draw))

    return _over_rows(bound, ("encode", draw), run, rows, seed)


def latents_of(guide: Trace) -> dict[str, Any]:
    """Return the local latents of a guide's trace by site, and `<site>_codes` of a site of codes."""
    values = {}
    for name, site in guide.latent.local.items():
        values[name] = site.value
        if hasattr(site.inner, "codes"):
            values[f"{name}_codes"] = site.inner.codes
    return values


def reconstruct(bound: Bound, rows: Arrays, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the centre of the likelihood given each row's own latents, [N, *event], by observed field; of
    two functions by site where a site observes no field as it is.
    """

    def run(tracer: Tracer, batch: Any) -> dict[str, Any]:
        guide = tracer.guide(batch, centres=not draw)
        model = tracer.model(batch, values=guide.drawn)
        refuse_unknown(tracer, model, batch, guide.drawn)
        seen = model.observed
        if bound.declared:
            return {name: centre(site.fn) for name, site in seen.items() if name in bound.fields}
        sites = {name: site for name, site in seen.local.items() if not site.factor}
        names = _fields_of(sites, {name: batch[name] for name in bound.fields if name in batch})
        return {names[name]: centre(site.fn) for name, site in sites.items()}

    with bound.passes(seed) as passes:
        reading.refuse("reconstruct", reading.of_rows(bound, passes, rows))
    return _over_rows(bound, ("reconstruct", draw), run, rows, seed)


def _fields_of(sites: Mapping[str, Site], fields: Mapping[str, Any]) -> dict[str, str]:
    """Return by site the field whose values it observes, as two functions may call their sites otherwise; its
    own name where there is none. Where names would meet, all keep their own.
    """
    found = {
        name: next((field for field, values in fields.items() if values is site.value), name)
        for name, site in sites.items()
    }
    return found if len(set(found.values())) == len(found) else {name: name for name in found}


def _over_rows(
    bound: Bound, name: Any, run: Callable[..., Any], rows: Arrays, seed: int
) -> dict[str, np.ndarray]:
    with bound.passes(seed) as passes:
        parts = []
        for batch, count in passes.chunks(rows, max(1, BUDGET // dims_of(rows) // 4)):
            parts.append({key: value[:count] for key, value in passes(name, run, batch).items()})
        return _joined(parts)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def sample(
    bound: Bound,
    n: int,
    *,
    covariates: Arrays | None = None,
    seed: int = 0,
    like: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """Draw `n` rows from the prior; global latents from the guide, once for all rows. Of a field whose
    likelihood reads the field itself, entries are drawn each given those before.

    Parameters
    ----------
    bound : Bound
    n : int
    covariates : dict of str to [n, ...], optional
    seed : int
    like : dict of str to [1, ...], optional
        A row of every field of the data, for its shape and type: by it is known how the model reads fields.

    Returns
    -------
    dict
        By site: draws of every local site, and for each observed field also the centre of its likelihood as
        `<field>_mean`; [n, *event].
    """
    return _generate(bound, n, {}, covariates or {}, seed, like or {}, draw=True)


def decode(
    bound: Bound,
    latents: Arrays,
    *,
    covariates: Arrays | None = None,
    seed: int = 0,
    like: Arrays | None = None,
) -> dict[str, np.ndarray]:
    """Return the centre of the likelihood for given latents, by observed field, [N, *event].

    A local latent that is not given is drawn from its prior, a global one is the guide's centre; `like` is as
    for `sample`.

    Raises
    ------
    DataError
        Where a latent's name or shape is not the model's.
    ProgramError
        Where the likelihood of a field reads the field itself.
    """
    n = min((len(value) for value in latents.values()), default=0)
    if not n:
        raise DataError("there are no latents: give at least one row")
    drawn = _generate(bound, n, latents, covariates or {}, seed, like or {}, draw=False)
    return {name.removesuffix("_mean"): value for name, value in drawn.items() if name.endswith("_mean")}


def _generate(
    bound: Bound, n: int, latents: Arrays, covariates: Arrays, seed: int, like: Arrays, *, draw: bool
) -> dict[str, np.ndarray]:
    if not bound.declared:
        raise ProgramError(
            f"{bound.program.name} is two plain functions: its model needs data, "
            "only a declared Program draws from the prior"
        )
    latents, whole = {name: np.asarray(value) for name, value in latents.items()}, set()
    with bound.passes(seed) as passes:
        read = reading.without_rows(bound, passes, covariates, like)
        if not draw:
            reading.refuse("decode", read)
        # Of the fields that are drawn in order there are rows from the start.
        own = reading.in_order(read, {n: value for n, value in like.items() if n not in covariates})
        first = {name: values[:1] for name, values in covariates.items()} | own
        shapes, shared = one_row(passes, first, whole)
        _check_latents({n: s for n, s in shapes.items() if n not in bound.fields}, latents)
        kinds = {name: np.int64 if name in whole and _is_whole(latents[name]) else None for name in latents}
        latents = {n: value.astype(kinds[n] or bound.precision(), copy=False) for n, value in latents.items()}
        numbers = sum(math.prod(s) * (2 if name in bound.fields else 1) for name, s in shapes.items())
        checks.within_memory("n", n, n * numbers * bound.precision().itemsize)
        fixed = shared_latents(bound, passes, first, shared, draw)
        passes.stage(1)
        parts, size = [], max([*map(math.prod, (shapes | shared).values()), 1])
        for part in told(slices(n, max(1, BUDGET // size)), n):
            rows = part.stop - part.start
            given = {name: value[part] for name, value in latents.items()} | fixed
            batch = {name: values[part] for name, values in covariates.items()}
            parts.append(_generated(bound, passes, rows, batch, given, own, (1, part.start)))
    return _joined(parts)


def _generated(
    bound: Bound,
    passes: Passes,
    rows: int,
    batch: Arrays,
    given: Arrays,
    own: Arrays,
    stream: tuple[int, ...],
) -> dict[str, np.ndarray]:
    """Draw some rows; `own` is a row of the fields that are drawn in order."""
    if not own:
        return passes(("generate", rows), _generator(bound, rows), batch, given)
    name, function = ("generate in order", rows), _generator(bound, rows, redrawn=frozenset(own))
    drawn = reading.settled(lambda x: passes(name, function, {**batch, **x}, given, stream=stream), own, rows)
    if drawn is not None:
        return drawn
    # How much noise one row takes moves that of the next.
    each = [{name: values[row : row + 1] for name, values in batch.items()} for row in range(rows)]
    return _joined(
        [_generated(bound, passes, 1, one, given, own, (*stream, row)) for row, one in enumerate(each)]
    )


def _is_whole(value: np.ndarray) -> bool:
    """Tell numbers of which none has a fraction, as the mean of a truth value has."""
    return value.dtype.kind in "biu" or bool((value == np.round(value)).all())


def one_row(passes: Passes, covariates: Arrays, whole: set[str] | None = None) -> tuple[Shapes, Shapes]:
    """Return the shapes of the model's local sites, per row, and of its global latents; `whole` takes the
    names of the local ones whose draws are whole numbers.
    """
    local: Shapes = {}
    shared: Shapes = {}

    def run(tracer: Tracer, batch: Any) -> None:
        trace = tracer.model(batch, n=1)
        local.update({name: tuple(site.value.shape[1:]) for name, site in trace.local.items()})
        shared.update({n: tuple(value.shape) for n, value in trace.drawn.items() if n not in local})
        if whole is not None:
            whole.update(name for name, site in trace.local.items() if "int" in str(site.value.dtype))

    passes.described(run, covariates)
    return local, shared


def shared_latents(
    bound: Bound, passes: Passes, covariates: Arrays, names: Collection[str], draw: bool
) -> dict[str, np.ndarray]:
    """Return the global latents as the guide has learned them: once, since every row of one call lives in the
    same world.
    """

    def prior_row(tracer: Tracer, batch: Any) -> dict[str, Any]:
        prior = tracer.model(batch, n=1)
        return {name: prior[name].value for name in bound.fields if name in prior}

    def from_guide(tracer: Tracer, row: Any) -> dict[str, Any]:
        guide = tracer.guide(row, centres=not draw)
        return {name: guide[name].value for name in names}

    if not names:
        return {}
    # A guide needs a row, but its global sites do not depend on which: the prior's own will do. Its noise is
    # not that of the latents.
    row = passes("prior row", prior_row, covariates) | dict(covariates)
    refuse_missing(bound.program, row, list(names))
    passes.stage(0)
    return passes(("shared", draw), from_guide, row)


def _generator(bound: Bound, n: int, redrawn: frozenset[str] = frozenset()) -> Callable[..., dict[str, Any]]:
    def run(tracer: Tracer, batch: Any, given: Mapping[str, Any]) -> dict[str, Any]:
        values, options = {}, {}
        if redrawn:
            held = {name: value for name, value in batch.items() if name not in redrawn}
            options = {"redraw": True, "held": held}
        model = tracer.model(batch, n=n, values=given, **options)
        refuse_unknown(tracer, model, batch, given, n=n, **options)
        for name, site in model.local.items():
            classes = site.distribution.startswith("Categorical")
            values[name] = site.value if classes else tracer.F.to_float(site.value)
            if name in bound.fields:
                values[f"{name}_mean"] = centre(site.fn)
        return values

    return run


def _check_latents(shapes: Shapes, latents: Arrays) -> None:
    for name, value in latents.items():
        if name not in shapes:
            raise DataError(f"the model has no local latent {name!r}: it has {', '.join(shapes) or 'none'}")
        if value.shape[1:] != shapes[name]:
            raise DataError(
                f"latent {name!r} has shape {value.shape[1:]} per row, the model's is {shapes[name]}"
            )
