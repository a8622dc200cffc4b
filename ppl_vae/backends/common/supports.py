"""Data outside the support of its likelihood, looked for in all rows before anything is computed of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ppl_vae import likelihoods
from ppl_vae.backends.common.site import Site, Trace
from ppl_vae.backends.common.tracing import Arrays, Passes, Tracer
from ppl_vae.data.batches import count_rows, dims_of, slices
from ppl_vae.data.dataset import Rows
from ppl_vae.data.masks import spread
from ppl_vae.distributions import OWN
from ppl_vae.errors import DataError
from ppl_vae.likelihoods import Values
from ppl_vae.progress import heard_by

FIRST = 32  # rows by which the site of a field is recognised
AT_ONCE = 2**24  # numbers


@dataclass(frozen=True, eq=False)
class Fields:
    """The sites of a model that observe fields of the data as they are.

    Attributes
    ----------
    sites : dict of str to Site
        By field.
    certain : bool
        They are the same for any rows with these fields.
    """

    sites: Mapping[str, Site]
    certain: bool


def observed(model: Trace) -> tuple[dict[str, Site], dict[str, Any]]:
    """Return the observed sites whose values are checked and whose support is that of every row, and the
    values, both by name.
    """
    sites = {name: site for name, site in model.observed.items() if not site.factor and _checked(site)}
    return sites, {name: site.value for name, site in sites.items()}


def _checked(site: Site) -> bool:
    try:
        support = site.inner.support
    except (NotImplementedError, AttributeError):
        return False
    declared = getattr(support, "declared", None)
    if declared is not None:
        constant = type(declared) in OWN
    else:
        constant = all(getattr(part, "ndim", 0) == 0 for part in getattr(support, "__dict__", {}).values())
    return site.validated and constant and len(site.masks) < 2


def fields_of(sites: Mapping[str, Site], values: Arrays, rows: Arrays) -> Fields:
    """Return the sites by the fields of rows that they observe; both arrays of the host.

    A site observes a field of the same numbers. Of a field that is all one number this is not known.
    """
    found, certain = {}, True
    for name, site in sites.items():
        for field, given in rows.items():
            value = values[name]
            same = value.size == given.size and np.array_equal(value.ravel(), given.ravel())
            # What counts several axes as one draw takes them in its own shape.
            if not same or (value.shape != given.shape and site.inner.event_shape):
                continue
            certain &= bool((given != given.flat[0]).any())
            if field == name or certain:
                found[field] = site
    return Fields(found, certain)


def key_of(rows: Mapping[str, Any]) -> tuple[str, ...]:
    """Return by what `Bound.supports` knows rows."""
    return tuple(sorted(rows))


def refuse_outside_rows(
    bound: Any,
    rows: Arrays,
    where: str = "",
    leave: tuple[str, ...] = (),
    between: Callable[[str], bool] = lambda field: False,
    error: type[Exception] = DataError,
    first: str = "",
) -> None:
    """Refuse rows that a likelihood cannot have made, of the fields that the model observes as they are.

    Parameters
    ----------
    bound : Bound
    rows : dict of str to [rows, ...]
    where : str
        For the message: what the rows are.
    leave : tuple of str
        Fields that are not looked at.
    between : callable
        Tells of a field whether numbers between those of the support are taken too.
    error : type
        What is raised, with the row, the value and a remedy.
    first : str
        What to try before that remedy.
    """
    about = rows if isinstance(rows, Rows) else Rows(rows)
    rows = bound.among(rows)
    if not rows or not min(map(len, rows.values())):
        return
    with bound.passes(0) as passes:
        known = bound.supports.get(key_of(rows)) or _read(bound, passes, rows)
        for field, site in known.sites.items():
            looked = field in rows and field not in leave
            place = _outside(passes, field, site, rows, between(field)) if looked else None
            if place is not None:
                at = f"row {place[0]} of {field!r}{where}{about.called(field, place)}"
                said = f"{at} is outside {_said(site, rows[field], place)}"
                raise error(f"{said}: {first}{_remedy(site, rows[field])}")


def _read(bound: Any, passes: Passes, rows: Arrays) -> Fields:
    index = np.unique(np.linspace(0, count_rows(rows) - 1, FIRST).astype(int))
    first = {name: values[index] for name, values in rows.items()}
    # A pass is compiled once: what it finds has one place.
    sites: dict[str, Site] = bound.supports.setdefault(("found", *key_of(rows)), {})

    def run(tracer: Tracer, batch: Any) -> dict[str, Any]:
        with bound.validating():
            found, values = observed(tracer.pair(batch).model)
        sites.update(found)
        return values

    try:
        with heard_by(None):
            ((batch, _),) = passes.chunks(first, len(index))
        values = passes(("supports", key_of(rows)), run, batch)
    except Exception:  # what fails here fails in the verb too, which says why
        return Fields({}, False)
    fields = fields_of(sites, values, first)
    if fields.certain:
        bound.supports[key_of(rows)] = fields
    return fields


def _outside(passes: Passes, field: str, site: Site, rows: Arrays, between: bool) -> tuple[int, ...] | None:
    """Return the place of the first number of a field outside the support, None where there is none."""
    mask, size = rows.get("mask"), count_rows(rows)
    for part in slices(size, max(1, AT_ONCE // dims_of({field: rows[field]}))):
        value = rows[field][part]
        inside = _inside(passes, field, site, value)
        if inside is not None and between and not inside.all():
            inside = inside | (
                _inside(passes, field, site, np.floor(value)) & _inside(passes, field, site, np.ceil(value))
            )
        if inside is None or inside.shape[:1] != value.shape[:1]:
            return None
        if site.masks:
            kept = None if mask is None else spread(mask[part], inside.shape)
            if kept is None:  # which numbers count is not known
                return None
            inside = inside | ~kept
        if not inside.all():
            row, *within = map(int, np.argwhere(~inside)[0])
            return row + part.start, *within
    return None


def _inside(passes: Passes, field: str, site: Site, value: np.ndarray) -> np.ndarray | None:
    return passes(("inside", field, id(site)), lambda tracer, value: site.supports(value), value)


def _said(site: Site, values: np.ndarray, place: tuple[int, ...]) -> str:
    number = values[place]
    such = f" ({number:.6g})" if np.ndim(number) == 0 else ""
    return f"the support of its likelihood {site.distribution}{such}"


def _remedy(site: Site, values: np.ndarray) -> str:
    whole = bool((values == np.round(values)).all())
    found = Values(values.min().item(), values.max().item(), whole, _levels(values))
    return likelihoods.remedy(site.distribution, found)


def _levels(values: np.ndarray) -> int | None:
    """Return how many grey levels numbers in [0, 1] are on the grid of, where it is one of bytes or more."""
    if values.min() < 0 or values.max() > 1 or (values == np.round(values)).all():
        return None
    for levels in (256, 65536):
        place = values.astype(np.float64) * (levels - 1)
        if np.abs(place - np.round(place)).max() < 1e-2:
            return levels
    return None
