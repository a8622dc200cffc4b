"""Numbers that change with the step (learning rates, weights): a schedule maps a step 0, 1, ... to a
value.
"""

from ppl_vae.schedules.base import Schedule
from ppl_vae.schedules.plateau import Plateau, PlateauState
from ppl_vae.schedules.steps import Constant, Cosine, Cyclical, Linear, StepTable, iwae_table
from ppl_vae.schedules.text import as_schedule, text_of

__all__ = [
    "Constant",
    "Cosine",
    "Cyclical",
    "Linear",
    "Plateau",
    "PlateauState",
    "Schedule",
    "StepTable",
    "as_schedule",
    "iwae_table",
    "text_of",
]
