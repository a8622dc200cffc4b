"""Models that read a field beside observing it: what of a run of theirs is no centre and no draw."""

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np

from ppl_vae.backends.common.site import Site, Trace
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.contract.reading import Densities, Reading, may_loop, readings
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions

LOG = logging.getLogger(__name__)
MADE_UP = 16  # rows, where no data is at hand


def conditionals(tracer: Tracer, base: Any, copies: Any, held: bool = False) -> dict[str, tuple[Any, Any]]:
    """Return what `ppl_vae.contract.reading.readings` asks, at latents of the prior."""
    F, before = tracer.F, tracer.model(base)
    rows = next(iter(base.values())).shape[0]
    times = next(iter(copies.values())).shape[0] // rows
    values, firsts = (
        {n: _repeated(F, s.value, _axis(s), times) if s.local else s.value for n, s in sites.items()}
        for sites in (before.latent, _seen(before))
    )
    options = {"redraw": True, "held": firsts} if held else {}
    found = {}
    for name, site in tracer.model(copies, values=values, **options).items():
        if name in firsts:
            if site.value.shape[_axis(site)] != rows * times:
                raise ProgramError(f"site {name!r} has its rows along another axis than the first")
            value, density = (
                F.moveaxis(a, _axis(site), 0) for a in (site.value, _entries(F, site, firsts[name]))
            )
            found[name] = value, density
    return found


def _seen(model: Trace) -> dict[str, Site]:
    local = model.observed.local.items()
    return {name: site for name, site in local if not site.factor and not site.deterministic}


def _axis(site: Site) -> int:
    return len(site.batch_shape) - 1


def _repeated(F: Functions, array: Any, axis: int, times: int) -> Any:
    before, after = tuple(array.shape[:axis]), tuple(array.shape[axis:])
    wide = F.broadcast_to(array.reshape(*before, 1, *after), (*before, times, *after))
    return wide.reshape(*before, times * after[0], *after[1:])


def _entries(F: Functions, site: Site, value: Any) -> Any:
    """Return the log densities of the smallest draws of a site that are independent, no mask applied."""
    density = site.inner.log_prob(value)
    return F.broadcast_to(density, tuple(value.shape[: value.ndim - len(site.inner.event_shape)]))


def named_apart(tracer: Tracer, rows: Any) -> dict[str, tuple[Any, Any]]:
    """Return, by observed site, values and log densities: they depend on rows where its distribution does."""
    sites = _seen(tracer.model(rows)).items()
    return {
        name: (site.value, site.inner.log_prob(tracer.F.zeros(tuple(site.value.shape), site.value)))
        for name, site in sites
    }


def of_rows(bound: Any, passes: Passes, rows: Arrays) -> dict[str, Reading]:
    """Return the fields of rows whose likelihood reads them, looked at once for a bound program; none where
    the model fails on the rows, which the verb itself tells.
    """
    few = {name: values[:MADE_UP] for name, values in bound.among(rows).items()}
    key = tuple(sorted(few))
    if key not in bound.readings:
        try:
            passes.described(lambda tracer, batch: None, few)  # there are parameters
            reached = bound.reached(named_apart, few)
            seen = readings(few, densities(passes.aside)) if reached is None or may_loop(reached) else {}
        except Exception:
            seen = {}
        bound.readings[key] = seen
    return bound.readings[key]


def densities(run: Callable[..., Any]) -> Densities:
    """Return `conditionals` as a function of arrays of the host, by what runs a function of a name."""

    def found(base: Arrays, copies: Arrays, held: bool) -> Any:
        function = partial(conditionals, held=held)
        return run(("readings", len(next(iter(copies.values()))), held), function, base, copies)

    return found


def without_rows(bound: Any, passes: Passes, covariates: Arrays, like: Arrays) -> dict[str, Reading]:
    """Return the same where no rows are given, but covariates and one row of every field's shape and type."""
    rng, rows = np.random.default_rng(0), {}
    for name in set(bound.fields) & ({*like} | {*covariates}):
        if name in covariates:
            rows[name] = np.resize(covariates[name], (MADE_UP, *covariates[name].shape[1:]))
            continue
        # Numbers that most supports hold; of whole numbers the first.
        levels = [0, 0.5, 1] if like[name].dtype.kind == "f" else [0, 1]
        rows[name] = rng.choice(levels, (MADE_UP, *like[name].shape[1:])).astype(like[name].dtype)
    return of_rows(bound, passes, rows) if rows else {}


def refuse(verb: str, seen: Mapping[str, Reading]) -> None:
    """Refuse a verb that shows centres with a ProgramError where they would be those given the entries of
    the data; say it in a line where the likelihood is no density of its field, or takes the data as a whole.
    """
    for name, reading in seen.items():
        if reading.loop:
            LOG.warning("%s: %s", verb, no_density(name, reading))
        elif not reading.known:
            LOG.warning("%s: %s", verb, _given(name))
        else:
            raise ProgramError(
                f"{verb} does not apply: the likelihood of {name!r} (site {reading.site!r}) reads {name} "
                "itself, so latents alone give no centre: draw rows with sample, score them with log_prob"
            )


def no_density(name: str, reading: Reading) -> str:
    """Say that the likelihood of a field is none."""
    return f"the likelihood of {name!r} {reading.looped(name)}: it is no density of {name}"


def _given(name: str) -> str:
    """Say that what comes out is given what a likelihood of several entries at once takes of them."""
    return (
        f"given what the likelihood of {name!r} takes of {name} itself, such as a total: to choose it, "
        "give it as a field of its own"
    )


def in_order(seen: Mapping[str, Reading], like: Arrays) -> dict[str, np.ndarray]:
    """Return a row of each field that is to be drawn entry by entry; refuses one that cannot be."""
    own: dict[str, np.ndarray] = {}
    for name, reading in seen.items():
        if reading.loop:
            LOG.warning("sample: %s", no_density(name, reading))
        elif name not in like or not reading.by_argument:
            continue  # a covariate, or draws that are read as ppl.sample returns them
        elif not reading.known:
            LOG.warning("sample: %s", _given(name))
        elif reading.site != name or not reading.as_given:
            raise ProgramError(
                f"sample does not apply: site {reading.site!r} reads {name}, of which it observes a part or "
                "something made of it: let it read what ppl.sample returns, which without data is a draw"
            )
        else:
            own[name] = like[name]
    return own


def settled(draw: Callable[[Arrays], Any], own: Arrays, rows: int) -> Any | None:
    """Draw rows given the rows drawn last, with the same noise again and again, and return what stays.

    The entries that depend on no other are right from the first time on, those that depend on these from the
    second, until nothing moves. None where that is not so for several rows, of which one takes more or less
    of the noise as it changes.

    Parameters
    ----------
    draw : callable
        Takes fields and returns them with others, [rows, ...].
    own : dict of str to [1, ...]
        A row of the fields.
    rows : int
    """
    drawn = {name: np.resize(value, (rows, *value.shape[1:])) for name, value in own.items()}
    for _ in range(2 + sum(value[0].size for value in own.values())):
        made = draw(drawn)
        new = {name: made[name].astype(value.dtype) for name, value in own.items()}
        if all(np.allclose(new[name], drawn[name], 1e-5, 1e-6) for name in own):
            return made
        drawn = new
    if rows == 1:
        raise ProgramError(f"the draws of {', '.join(own)} do not settle: see ppl-vae check")
    return None


def predicted(bound: Any, passes: Passes, rows: Arrays, draw: Callable[[], None]) -> None:
    """Draw observations, and say in a line where they are given a whole that the likelihood takes of them, or
    are left out: they would be draws given the entries of the data, or the library draws none of such wholes.
    """
    seen = {name: reading for name, reading in of_rows(bound, passes, rows).items() if reading.by_argument}
    known = [name for name, reading in seen.items() if reading.known]
    for name in known:
        LOG.warning(
            "no predictive draws: the likelihood of %r reads %s itself; draw rows with sample", name, name
        )
    if known:
        return
    try:
        draw()
    except ProgramError as error:
        if not seen:
            raise
        LOG.warning("no predictive draws: %s", error)
        return
    for name in seen:
        LOG.warning("predictive draws: %s", _given(name))
