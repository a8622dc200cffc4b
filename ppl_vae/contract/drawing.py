"""Rules about drawing: from the prior, and from the likelihood at given latents."""

import numpy as np

from ppl_vae.contract.case import Case, differ, shown
from ppl_vae.contract.probe import BrokenRule, NotApplicable, ProgramFailure

PLAIN = "a plain program says itself how to draw from it"


def prior(case: Case) -> str:
    """Without data the model draws rows of the data's shape."""
    if case.plain:
        raise NotApplicable(PLAIN)
    for n in (3, 1):
        try:
            sites = case.probe.draw(n, case.seed).model
        except ProgramFailure as failure:
            raise BrokenRule(
                f"model(n={n}) without data: {failure}: every field is None then, take sizes from the program"
            ) from failure
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
    return f"draws {', '.join(case.observed())} without data"


def decoding(case: Case) -> str:
    """At given latents the model draws from the very likelihood by which it scores."""
    if case.plain:
        raise NotApplicable(PLAIN)
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
