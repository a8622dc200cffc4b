"""Discrete latents of the model that the guide does not draw: enumerated, and summed out per row."""

import copy
from collections.abc import Callable, Mapping
from typing import Any

from ppl_vae.backends.common.site import Site, Trace
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions

DEEPEST = 4  # the plates, rows and particles among them, that enumerated values lie left of


def values_left_of(place: int) -> Callable[[str, Any, Mapping[str, Any]], Any | None]:
    """Return a function of a latent's name, distribution and `infer` that returns all of its values where it
    is to be enumerated, each site along an axis of its own, the first left of `place` batch axes.
    """
    axes: dict[str, int] = {}

    def values(name: str, fn: Any, infer: Mapping[str, Any]) -> Any | None:
        if not infer.get("enumerate"):
            return None
        support = fn.enumerate_support(expand=False)
        right = place + axes.setdefault(name, len(axes))
        return support.reshape((support.shape[0],) + (1,) * right + tuple(fn.event_shape))

    return values


def summed_out(F: Functions, model: Trace, drawn: Mapping[str, Any], place: int) -> Trace:
    """Return the model's sites without those that were enumerated: the sites that depend on them have the
    density that is left, each given those before it, once all values are summed over.

    Parameters
    ----------
    F : Functions
    model : Trace
        Of a run in which the sites that `drawn` lacks took the values of `values_left_of(place)`.
    drawn : dict
        By latent site of the guide.
    place : int
        Batch axes, at most, of a site that depends on none of them.

    Raises
    ------
    ProgramError
        For sites in different plates that are summed out, and for one outside their plates that depends on
        them.
    """
    gone = {name: set(s.plates) for name, s in model.latent.items() if s.enumerated and name not in drawn}
    if not gone:
        return model
    listed, plates = ", ".join(sorted(gone)), next(iter(gone.values()))
    left, total, before = Trace(), 0.0, 0.0
    for name, site in model.items():
        density = site.log_density
        if density.ndim <= place:
            left[name] = site
            continue
        if not site.local:
            raise ProgramError(f"site {name!r} is global: {listed} cannot be summed out for each row")
        if any(one != plates for one in gone.values()) or not plates <= set(site.plates):
            raise ProgramError(
                f"{listed} cannot be summed out: {name!r} depends on what lies in other plates; draw them in "
                "the guide, or use a stock TraceEnum_ELBO without validation rows"
            )
        for plate in set(site.plates) - plates:  # given the values, its entries are independent
            density = F.sum(density, plate.dim, keepdims=True)
        total = density + total
        now = F.logsumexp(total.reshape(-1, *total.shape[-place:]), 0)
        if name not in gone:
            marginal, axes = now - before, max(-plate.dim for plate in site.plates)
            left[name] = _marginal(site, marginal.reshape(marginal.shape[place - axes :]))
        before = now
    return left


def refuse_unknown(tracer: Any, model: Trace, batch: Any, given: Mapping[str, Any], **options: Any) -> None:
    """Refuse what a model draws at given latents, where both depend on a site that is summed out: it was
    drawn from its prior, as if they knew nothing of it. `options` are those of the model's run.
    """
    for gone, site in model.latent.items():
        if not site.enumerated or gone in given:
            continue
        left = tracer.summed_model(batch, given, **options)
        marginal = {name for name, one in left.items() if one.marginal}
        if marginal & set(given) and marginal - set(given):
            listed = ", ".join(sorted(marginal))
            raise ProgramError(
                f"site {gone!r} is summed out, and {listed} depend on it: draw it in the guide too, for what "
                "the model makes of given latents"
            )
        return


def _marginal(site: Site, log_density: Any) -> Site:
    made = copy.copy(site)
    made.marginal = True
    vars(made)["log_density"] = log_density
    return made
