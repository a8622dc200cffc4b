"""Schedules from numbers and texts, and the texts that give them back."""

from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.schedules.base import Schedule, number
from ppl_vae.schedules.plateau import Plateau
from ppl_vae.schedules.steps import Constant, Cosine, Cyclical, Linear, StepTable, iwae_table


def as_schedule(value: Any) -> Schedule:
    """Return a schedule from a number, a schedule or a text.

    Texts are `0.5`, `constant:0.5`, `linear:START:END:STEPS`, `cosine:START:END:STEPS[:WARM_UP]`,
    `cyclical:START:END:STEPS[:CYCLES[:RATIO]]`, `table:VALUE:STEP:VALUE[:STEP:VALUE ...]`,
    `iwae:STEPS_PER_PASS[:START[:STAGES]]` and, for learning rates,
    `plateau:START[:FACTOR[:PATIENCE[:THRESHOLD[:MINIMUM]]]]`.

    Raises
    ------
    UsageError
        For anything else, and for values that make no sense.
    """
    if isinstance(value, str):
        return _read(value)
    if isinstance(value, Schedule) and not isinstance(value, type):
        return value
    if callable(value):
        raise UsageError(
            f"a {type(value).__name__} is no schedule: {_FORMS}, or give an object with __call__(step) and "
            "check_fits(max_steps)"
        )
    return Constant(number("a schedule", value))


def text_of(value: Any) -> str:
    """Return the text from which `as_schedule` makes an equal schedule; for an object that no text gives,
    `<CLASS>`, which `as_schedule` refuses.
    """
    text = str(value)
    try:
        known = isinstance(value, str) or as_schedule(text) == as_schedule(value)
    except UsageError:
        known = False
    return text if known else f"<{type(value).__name__}>"


def _read(text: str) -> Schedule:
    if text.startswith("<"):
        raise UsageError(f"the schedule {text} was an object of a class of Python: give it again")
    name, *parts = text.strip().split(":")
    if not parts:
        name, parts = "constant", [name]
    maker = _MAKERS.get(name)
    if maker is None:
        raise UsageError(f"unknown schedule {text!r}: {_FORMS}")
    try:
        return maker(*map(float, parts))
    except UsageError as error:
        raise UsageError(f"schedule {text!r}: {error}") from None
    except (TypeError, ValueError):
        raise UsageError(f"cannot read the schedule {text!r}: {_FORMS}") from None


def _table(*parts: float) -> StepTable:
    return StepTable(parts[::2], parts[1::2])


_MAKERS = {kind.text_name: kind for kind in (Constant, Linear, Cosine, Cyclical, Plateau)}
_MAKERS |= {"table": _table, "iwae": iwae_table}
_FORMS = (
    "write a number, linear:0:1:1000, cosine:1e-3:1e-5:20000, cyclical:0:1:20000:4:0.5, "
    "table:1e-3:5000:1e-4, iwae:500 or plateau:1e-3:0.5:10"
)
