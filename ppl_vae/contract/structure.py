"""Rules about the parts of a program: its fields, networks and sites."""

import inspect
from typing import Any

import numpy as np

from ppl_vae.contract.case import Case
from ppl_vae.contract.probe import BrokenRule, NotApplicable, ProgramFailure, Seen, other_event
from ppl_vae.faults import said
from ppl_vae.program import Program, data_fields
from ppl_vae.shapes import other_shape


def fields(case: Case) -> str:
    """The data has what the program needs, in the shapes that it was made for."""
    have = ", ".join(case.data.fields)
    if case.plain:
        _bound(case)
        return f"model and guide take {', '.join(case.probe.fields)}"
    for role in ("model", "guide"):
        if getattr(type(case.program), role) is getattr(Program, role):
            raise BrokenRule(f"the program declares no {role}: add a method {role}(self, ppl, net, x)")
    for name, parameter in inspect.signature(case.program.guide).parameters.items():
        needed = parameter.default is parameter.empty and name not in ("ppl", "net", "n")
        if needed and parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name not in case.data.fields:
            raise BrokenRule(
                f"the guide needs the field {name!r}, the data has {have}: add it to the data, "
                f"or declare {name}=None where it is optional"
            )
    used = [name for name in _declared(case.program) if name in case.data.fields]
    if not used:
        raise BrokenRule(f"the program uses none of the data's fields ({have}): name them as parameters")
    _adapt(case)
    unused = [name for name in case.data.fields if name not in used]
    return f"uses {', '.join(used)}" + (f"; not {', '.join(unused)}" if unused else "")


def _declared(program: Program) -> tuple[str, ...]:
    try:
        return data_fields(program)
    except Exception as error:
        raise BrokenRule(said(error)) from error


def _adapt(case: Case) -> None:
    try:
        case.program = case.program.adapted_to(case.data)
    except Exception as error:
        raise BrokenRule(said(error)) from error


def _bound(case: Case) -> Any:
    try:
        return case.probe
    except ProgramFailure as failure:
        raise BrokenRule(str(failure)) from failure


def networks(case: Case) -> str:
    """The networks build."""
    probe = _bound(case)
    if case.plain:
        raise NotApplicable("a plain program makes its networks itself")
    weights = probe.weights()
    names = dict.fromkeys(name.split(".")[0] for name in weights)
    count = sum(array.size for array in weights.values())
    return f"{', '.join(names) or 'none'}: {count:,} numbers"


def batch(case: Case) -> str:
    """Guide and model run on rows of the data, in both modes."""
    missing = [name for name in case.probe.fields if name not in case.data.fields]
    try:
        _ = case.traces, case.trained
    except ProgramFailure as failure:
        raise BrokenRule(f"{failure}{_hint(case, str(failure))}") from failure
    return f"guide and model run on {case.size} rows" + (f" without {', '.join(missing)}" if missing else "")


def _hint(case: Case, text: str) -> str:
    """Return the remedy for what users often meet."""
    whole = [name for name, values in case.rows.items() if values.dtype.kind in "iu"]
    if whole and "dtype" in text:
        return f": {', '.join(whole)} holds whole numbers, turn them into floats before a network"
    if "named" in text or "duplicated" in text:
        return ": give every site a name of its own, and open ppl.minibatch once"
    return ""


def sites(case: Case) -> str:
    """Guide and model share their latent sites, and the model observes the data."""
    guide, model = case.traces.guide, case.traces.model
    drawn = {name for name, site in guide.items() if not site.observed and not site.auxiliary}
    latent = [name for name, site in model.items() if not site.observed]
    for name in latent:
        if name not in drawn:
            raise BrokenRule(
                f"site {name!r} of the model is not in the guide: sample it there, or observe it with obs="
            )
    for name in sorted(drawn - set(latent)):
        raise BrokenRule(
            f"site {name!r} of the guide is not in the model: remove it, or sample it in the model too"
        )
    if not case.observed():
        raise BrokenRule("the model observes no data: pass the data to a site with obs=x")
    return f"latent {', '.join(latent) or 'none'}; observed {', '.join(case.observed())}"


def plate(case: Case) -> str:
    """What belongs to a row lies in a plate over the rows, in guide and model alike."""
    inside = (
        "sample it within `with ppl.minibatch(x):`" if not case.plain else "sample it in a plate over rows"
    )
    for label, site in case.traces.both().items():
        if not site.local and case.size in site.batch_shape:
            raise BrokenRule(f"site {label} has rows but lies outside the plate over the rows: {inside}")
    for name, site in case.observed().items():
        if not site.local:
            raise BrokenRule(f"site {name!r} takes data but lies outside the plate over the rows: {inside}")
    for name, site in case.traces.guide.items():
        twin = case.traces.model.get(name)
        if twin is not None and not site.observed and twin.local != site.local:
            within, without = ("guide", "model") if site.local else ("model", "guide")
            raise BrokenRule(
                f"site {name!r} lies in the plate over the rows in the {within} but not in the {without}: "
                f"{inside}"
            )
    shared = [name for name, site in case.traces.model.items() if not site.local and not site.observed]
    return f"global: {', '.join(shared)}" if shared else "every site belongs to a row"


def shapes(case: Case) -> str:
    """Event and batch shapes agree, and every site has one number per row."""
    for name, site in case.traces.guide.items():
        twin = case.traces.model.get(name)
        if twin is not None and not site.observed and twin.event_shape != site.event_shape:
            raise BrokenRule(other_event(name, site.event_shape, twin.event_shape))
    for label, site in case.traces.both().items():
        _one_number(label, site, case.size)
    _same_with_few(case)
    for name, site in case.observed().items():
        row_shape = site.value.shape[1:]
        if site.event_shape != row_shape:
            raise BrokenRule(other_shape(name, site.distribution, site.event_shape, row_shape))
    for label, site in case.traces.both().items():
        # Outside the support a density may fail: the rule "support" tells.
        failed = site.log_prob is None and (site.supported is None or site.supported.all())
        if site.value.shape != site.batch_shape + site.event_shape or failed:
            reason = site.error or f"its value has shape {site.value.shape}"
            raise BrokenRule(
                f"site {label} of batch shape {site.batch_shape}, event shape {site.event_shape}: {reason}"
            )
    events = {name: site.event_shape for name, site in case.traces.model.items()}
    return ", ".join(f"{name} {shape}" for name, shape in events.items())


def _one_number(label: str, site: Seen, size: int) -> None:
    wanted = (size,) if site.local else ()
    if site.batch_shape != wanted:
        raise BrokenRule(
            f"site {label} has batch shape {site.batch_shape}, not {wanted}: move the other axes into the "
            "event with .to_event(number of axes)"
        )


def _same_with_few(case: Case) -> None:
    """A site has one event shape, whatever the number of rows."""
    try:
        few = case.few(3).both()
    except ProgramFailure:
        return  # the rule "batch sizes" tells
    for label, site in case.traces.both().items():
        other = few.get(label)
        if other is not None and other.event_shape != site.event_shape:
            raise BrokenRule(
                f"site {label} has event shape {site.event_shape} with {case.size} rows and "
                f"{other.event_shape} with 3: the rows are part of the event, use .to_event for one axis less"
            )


def independence(case: Case) -> str:
    """Two bound programs share nothing."""
    if case.plain:
        raise NotApplicable("a plain program owns its networks: two of them share what the file shares")
    before, other = case.probe.weights(), case.make(case.seed + 1)
    try:
        theirs = other.weights()
        moved = {name: array + 1 if array.dtype.kind == "f" else array for name, array in before.items()}
        case.probe.load_weights(moved)
        changed = [
            name
            for name, array in other.weights().items()
            if not np.array_equal(array, theirs[name], equal_nan=True)
        ]
    finally:
        case.probe.load_weights(before)
        other.close()
    if changed:
        raise BrokenRule(
            f"two bound programs share {changed[0]!r}: make every network inside networks(), not once in "
            "the file"
        )
    return "two bound programs share nothing"
