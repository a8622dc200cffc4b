"""What the project's own objectives and evaluation refuse, by the name of the site."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae import likelihoods
from ppl_vae.backends.common.primitives import DATA
from ppl_vae.backends.common.site import ROWS_DIM, Pair, Trace
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions
from ppl_vae.likelihoods import Values
from ppl_vae.shapes import other_shape

# What else a program with further plates can do.
NO_PLATES = ", or train with a stock ELBO and without validation rows"


def plates_apart(trace: Trace, declared: bool) -> frozenset[str] | None:
    """Return the plates in the place of that over the rows which are others: those of global latents. A model
    observes nothing in them; where nothing at all is observed, they are those beside the plate that declared
    programs have over the rows. None where that is not known.
    """
    seen, others = set(), set()
    for site in trace.values():
        here = {plate.name for plate in site.plates if plate.dim == ROWS_DIM}
        (seen if site.observed and not site.factor else others).update(here)
    if not seen and declared:
        seen = others & {DATA}
    return frozenset(others - seen) if seen else None


def check_plates(guide: Trace, model: Trace, otherwise: str = "", further: bool = False) -> None:
    """Refuse a site that lies in another plate than the one over the rows, which observed sites lie in, with
    a ProgramError that may name a further remedy: log densities are numbers per row.

    With `further` other plates are summed over, and only what leaves open which one is over the rows is
    refused: a plate of other latents with as many entries, latents in a plate within it alone, and latents
    of the guide outside of it that lie in it in the model.
    """
    sites = [*model.items(), *guide.items()]
    seen = [plate for _, site in sites if site.observed and not site.factor for plate in site.plates]
    rows = next((plate for plate in seen if plate.dim == ROWS_DIM), None)
    named = {plate.name for site in model.values() for plate in site.plates}
    # A plate of the model without an observed site is another one, though it may have as many entries.
    others = named - {plate.name for plate in seen}
    for name, site in sites:
        twin = (model if name in model else guide)[name]
        for plate in site.plates:
            known = rows is not None and min(plate.size, rows.size) >= 0
            same = not known or plate.size == rows.size
            if not further or not known:
                wrong = plate.dim != ROWS_DIM or plate.name in others or not same
            elif plate.dim == ROWS_DIM:
                wrong = same == (plate.name in others) or site.local != twin.local
            else:
                wrong = not site.local and plate.name not in others
            if wrong:
                alike = ", though it has as many entries" if further and known and same else ""
                raise ProgramError(
                    f"site {name!r} lies in the plate {plate.name!r}, which is not the one over the rows of "
                    f"the batch{alike}: make its axis part of the event with .to_event{otherwise}"
                )


def check_latents(guide: set[str], model: set[str]) -> None:
    """Refuse latent sites that guide and model do not share, by name, with a ProgramError."""
    for name in sorted(model - guide):
        raise ProgramError(
            f"site {name!r} of the model has no site in the guide: sample it there, or observe it"
        )
    for name in sorted(guide - model):
        raise ProgramError(
            f"site {name!r} of the guide is not in the model: remove it, or sample it in the model too"
        )


def check_sites(pair: Pair, library: str) -> None:
    """Refuse enumerated sites, guide sites without a reparametrised draw, and latent sites that guide and
    model do not share, with a ProgramError that names the library's stock objective as the remedy.
    """
    check_latents(set(pair.guide.latent) - pair.guide.auxiliary, set(pair.model.latent))
    for name, site in sorted(pair.guide.latent.items()):
        if site.enumerated:
            raise ProgramError(
                f"site {name!r} is enumerated: use {library}.infer.TraceEnum_ELBO as the objective"
            )
        if not site.reparametrised:
            raise ProgramError(
                f"site {name!r} has no reparametrised draw: "
                f"use {library}.infer.TraceGraph_ELBO as the objective"
            )


def inside_support(F: Functions, model: Trace) -> dict[str, tuple[Any, Values]]:
    """Compare the observed sites with their supports, where they check their values: which entries lie
    inside, and what the values are. Refuses data of another shape, which would be broadcast.
    """
    checked = {}
    for name, site in model.observed.items():
        event = site.event_shape
        # Of too few axes the first one are the rows.
        row = tuple(site.value.shape[max(1, site.value.ndim - len(event)) if site.local else 0 :])
        if not site.factor and row != event:
            raise ProgramError(other_shape(name, site.distribution, event, row))
        inside = site.inside() if site.validated and 0 not in site.value.shape else None
        if inside is not None:
            value = F.to_float(site.value)
            checked[name] = inside, Values(F.min(value), F.max(value), (F.round(value) == value).all())
    return checked


def refuse_outside(model: Trace, checked: Mapping[str, tuple[Any, Values]]) -> None:
    """Refuse data outside the support of its likelihood with a ProgramError; `checked` is what
    `inside_support` returns, on the host.
    """
    for name, (inside, values) in checked.items():
        if inside.all():
            continue
        site = model[name]
        axis = len(site.batch_shape) - 1 + inside.ndim - len(site.batch_shape + site.event_shape)
        row = int(np.argwhere(~inside)[0][axis]) if site.local and axis >= 0 else 0
        values = Values(*(one.item() for one in values[:3]))
        remedy = likelihoods.remedy(site.distribution, values)
        raise ProgramError(
            f"row {row} of {name!r} is outside the support of its likelihood {site.distribution}: {remedy}"
        )
