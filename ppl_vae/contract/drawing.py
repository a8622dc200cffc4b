"""Rules about drawing: from the prior, and from the likelihood at given latents."""

from typing import Any

import numpy as np

from ppl_vae.contract.case import Case, differ, shown
from ppl_vae.contract.probe import BrokenRule, NotApplicable, ProgramFailure, Seen
from ppl_vae.contract.reading import Reading

PLAIN = "sample and decode do not apply: two functions need data"


def entries(case: Case) -> str:
    """A likelihood is a density of what it scores: an entry may depend on others, in some order."""
    if case.readings is None:
        raise NotApplicable("the model does not run on rows with other numbers: which it reads is not known")
    said = []
    for name, reading in case.readings.items():
        site = f"site {reading.site!r}"
        if reading.loop:
            raise BrokenRule(
                f"{site}: its density {reading.looped(name)}: shift or mask what the network sees of {name}, "
                "or give what is known beforehand as a field of its own"
            )
        if not reading.known:
            said.append(
                f"{site} reads {name} itself and counts several entries as one: whether it is a density of "
                f"{name} is not known; what is drawn or shown is given what it takes of {name}, such as a "
                "total: to choose it, give it as a field of its own"
            )
            continue
        some = (
            "" if reading.tried == reading.entries else f" (of {reading.tried} of {reading.entries} entries)"
        )
        said.append(f"{site} reads {name} itself, entries depend on others in an order{some}")
    known = any(reading.known for reading in case.readings.values())
    verbs = "; reconstruct and predictive draws do not apply" if known else ""
    return "; ".join(said) + verbs if said else "no likelihood reads what it scores"


def prior(case: Case) -> str:
    """Without data the model draws rows of the data's shape; a conditional one given its covariates."""
    if case.plain:
        raise NotApplicable(PLAIN)
    if read := _reading(case, drawn=True):
        names = ", ".join(read)
        if all(one.in_order(name) for name, one in read.items()):
            raise NotApplicable(f"the model reads {names}: sample draws its entries each given those before")
        if not any(one.known for one in read.values()):
            raise NotApplicable(f"the model reads {names}: what sample draws is given what it takes without")
        raise NotApplicable(f"sample does not apply, the model reads {names}")
    given = None
    for n in (3, 1):
        sites, given = _drawn(case, n, given)
        for name, site in case.observed().items():
            if name not in sites or sites[name].observed:
                raise BrokenRule(
                    f"model(n={n}) without data draws no site {name!r}: reach its ppl.sample in every case"
                )
            draws, wanted = sites[name].value, (n, *site.value.shape[1:])
            if draws.shape != wanted:
                raise BrokenRule(f"model(n={n}) draws {name!r} of shape {draws.shape}, the data has {wanted}")
            if not np.isfinite(draws).all():
                raise BrokenRule(f"model(n={n}) draws NaN or infinity at site {name!r}: bound its parameters")
    if given:
        return f"draws {', '.join(case.observed())} given {', '.join(given)}: so do sample and decode"
    return f"draws {', '.join(case.observed())} without data"


def _reading(case: Case, drawn: bool) -> dict[str, Reading]:
    """Return the fields that their own density reads, without loops; `drawn`: as arguments, not as draws."""
    found = (case.readings or {}).items()
    return {name: one for name, one in found if not one.loop and (one.by_argument or not drawn)}


def _drawn(case: Case, n: int, given: dict[str, Any] | None) -> tuple[dict[str, Seen], dict[str, Any] | None]:
    """Return the sites of n draws, and the covariates that the model does not draw without."""
    try:
        rows = None if given is None else {name: values[:n] for name, values in given.items()}
        return case.probe.draw(n, case.seed, rows).model, given
    except ProgramFailure as failure:
        taken = _fields_observed(case).values()
        covariates = {name: values for name, values in case.batch().items() if name not in taken}
        if given is None and covariates:
            return _drawn(case, n, covariates)
        what = "every field is None then" if given is None else f"only {', '.join(given)} are given then"
        raise BrokenRule(
            f"model(n={n}) without data: {failure}: {what}, take sizes from the program"
        ) from failure


def decoding(case: Case) -> str:
    """At given latents the model draws from the very likelihood by which it scores."""
    if case.plain:
        raise NotApplicable(PLAIN)
    if read := _reading(case, drawn=False):
        said = f"the model reads {', '.join(read)}"
        if any(one.known for one in read.values()):
            raise NotApplicable(f"{said}: decode does not apply, latents alone give no centre")
        _reconstructed(case)
        raise NotApplicable(f"{said}: what decode shows is given what it takes without")
    rows, latent = case.batch(), case.traces.latent()
    taken = _fields_observed(case)
    given = {name: values for name, values in rows.items() if name not in taken.values()}
    try:
        drawn = case.probe.draw(case.size, case.seed, given, latent).model
    except ProgramFailure as failure:
        raise BrokenRule(f"drawing at given latents: {failure}") from failure
    new = {field: drawn[site].value.astype(rows[field].dtype) for site, field in taken.items()}
    scored = case.probe.trace({**rows, **new}, case.seed, values=latent).model
    for site in taken:
        ours, theirs = drawn[site].log_prob, scored[site].log_prob
        if differ(ours, theirs, drawn[site].dims):
            raise BrokenRule(
                f"site {site!r} draws from another likelihood ({shown(ours.mean())} nats per row) than it "
                f"scores by ({shown(theirs.mean())}): the model may use the data in obs= alone"
            )
    _reconstructed(case)
    return f"{', '.join(taken) or 'nothing'} drawn at given latents is scored as it was drawn"


def _reconstructed(case: Case) -> None:
    try:
        outputs = case.probe.reconstruct(case.batch(), case.seed)
    except ProgramFailure as failure:
        raise BrokenRule(f"reconstructing: {failure}: give the likelihood a mean") from failure
    for name, values in outputs.items():
        if values.shape != case.observed()[name].value.shape or not np.isfinite(values).all():
            raise BrokenRule(
                f"reconstructing: the mean of site {name!r} has shape {values.shape} or is not finite: "
                f"the data has shape {case.observed()[name].value.shape}"
            )


def _fields_observed(case: Case) -> dict[str, str]:
    """Return by observed site the field that it takes: that of its name, else the one with its values."""
    rows, observed = case.batch(), {}
    for name, site in case.observed().items():
        same = (field for field, values in rows.items() if np.array_equal(values, site.value))
        field = name if name in rows else next(same, None)
        if field is not None:
            observed[name] = field
    return observed
