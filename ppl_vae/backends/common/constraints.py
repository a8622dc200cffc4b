"""Parameters of distributions outside their constraints, of which closed forms and clamps make numbers."""

from collections.abc import Iterator, Mapping
from typing import Any

from ppl_vae.backends.common.site import Site, Trace
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions

SUM, TOP = 1e-3, 1e-6  # how far rounding carries a sum of probabilities, and one beyond its upper bound

Outside = Mapping[tuple[int, str], tuple[Any, Any]]


def outside(F: Functions, **traces: Trace) -> dict[tuple[int, str], tuple[Any, Any]]:
    """Return of each parameter of guide and model, by its place and what to say of it, whether an entry lies
    outside its constraint, and the first that does.

    Bounds belong to the inside: there a density is right, or no finite number. NaN is outside of all.
    """
    found: dict[tuple[int, str], tuple[Any, Any]] = {}  # JAX sorts by the keys
    for role, trace in traces.items():
        for name, site in trace.items():
            for owner, parameter, constraint, value in _parameters(F, site):
                inside, shown, words = _meets(F, constraint, value)
                if 0 in inside.shape:
                    continue
                first = F.argmax(F.to_float(~inside).reshape(-1))
                text = f"site {name!r} of the {role}: {parameter} of its {owner} is {{}}, it must {words}"
                found[len(found), text] = (~inside).any(), F.to_float(shown.reshape(-1)[first])
    return found


def refuse_outside_constraints(found: Outside, nan: bool = True) -> None:
    """Raise ProgramError for a parameter outside its constraint; see `said`."""
    if text := said(found, nan):
        raise ProgramError(text)


def said(found: Outside, nan: bool = True) -> str:
    """Say in one line what lies outside, of what `outside` returns, on the host; "" where nothing does.
    Without `nan`, NaN does not count.
    """
    bad = ((text, float(value)) for (_, text), (one, value) in found.items() if one)
    return next((text.format(f"{value:.4g}") for text, value in bad if nan or value == value), "")


def _parameters(F: Functions, site: Site) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield owner, name, constraint and value of the parameters of a distribution and of those within it."""
    left = [site.fn]
    while left:
        fn = left.pop()
        for value in vars(fn).values():
            parts = value if isinstance(value, (list, tuple)) else [value]
            left += [part for part in parts if hasattr(part, "arg_constraints")]
        for name, constraint in fn.arg_constraints.items():
            value = vars(fn).get(name)
            if isinstance(value, (int, float)):
                value = F.asarray(value, F.to_float(site.value))
            if hasattr(value, "dtype"):
                yield type(fn).__name__, name, constraint, value


def _meets(F: Functions, constraint: Any, value: Any) -> tuple[Any, Any, str]:
    """Tell which entries meet a constraint, what to show of each, and what it asks for."""
    while hasattr(constraint, "base_constraint"):
        constraint = constraint.base_constraint
    if "Simplex" in type(constraint).__name__:
        least, total = F.min(value, -1), F.sum(value, -1)
        inside = (least >= 0) & (F.abs(total - 1) < SUM)
        return inside, F.where(least < 0, least, total), "be probabilities that sum to 1, as of a softmax"
    inside = value == value
    lower, upper = (getattr(constraint, f"{end}_bound", None) for end in ("lower", "upper"))
    if lower is not None:
        inside = inside & (value >= lower)
    if upper is not None:
        inside = inside & (value <= upper + TOP)
    return inside, F.broadcast_to(value, inside.shape), f"be {_within(lower, upper)}"


def _within(lower: Any, upper: Any) -> str:
    if not all(end is None or isinstance(end, (int, float)) for end in (lower, upper)):
        return "within its bounds"
    if (lower, upper) == (0, 1):
        return "between 0 and 1, as of a sigmoid"
    ends = {"at least": lower, "at most": upper}
    known = " and ".join(f"{word} {end:g}" for word, end in ends.items() if end is not None)
    return f"{known or 'a number'}{', as of softplus or exp' if lower == 0 else ''}"
