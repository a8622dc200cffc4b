"""What the project's own objectives and evaluation refuse, by the name of the site."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae import likelihoods
from ppl_vae.backends.common.site import ROWS_DIM, Pair, Trace
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions
from ppl_vae.likelihoods import Values
from ppl_vae.shapes import other_shape

# What else a program with further plates can do.
NO_PLATES = ", or train with a stock ELBO and without validation rows"


def check_plates(guide: Trace, model: Trace, otherwise: str = "") -> None:
    """Refuse a site that lies in another plate than the one over the rows, which observed sites lie in, with
    a ProgramError that may name a further remedy.

    Log densities are numbers per row: other plates would be averaged or mixed up instead of summed.
    """
    sites = [*model.items(), *guide.items()]
    seen = [plate for _, site in sites if site.observed and not site.factor for plate in site.plates]
    rows = next((plate for plate in seen if plate.dim == ROWS_DIM), None)
    # A plate of the model without an observed site is another one, though it may have as many entries.
    others = {plate.name for site in model.values() for plate in site.plates} - {p.name for p in seen}
    for name, site in sites:
        for plate in site.plates:
            other_size = rows is not None and plate.size != rows.size and min(plate.size, rows.size) >= 0
            if plate.dim != ROWS_DIM or plate.name in others or other_size:
                raise ProgramError(
                    f"site {name!r} lies in the plate {plate.name!r}, which is not the one over the rows of "
                    f"the batch: make its axis part of the event with .to_event{otherwise}"
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
    check_latents(set(pair.guide.latent), set(pair.model.latent))
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
        row = tuple(site.value.shape[site.value.ndim - len(event) :])
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
