"""What training asks for: one class an objective, which computes it on every backend.

`parse` reads the text form that the command line and run folders use.
"""

from ppl_vae.objectives.base import Group, Loss, Objective, scheduled
from ppl_vae.objectives.elbo import ELBO
from ppl_vae.objectives.importance import IWAE, STL, DReG
from ppl_vae.objectives.text import (
    OBJECTIVES,
    make,
    names_stock,
    objective_text,
    parse,
    parts,
    source_of,
    text_of,
)

__all__ = [
    "ELBO",
    "IWAE",
    "OBJECTIVES",
    "STL",
    "DReG",
    "Group",
    "Loss",
    "Objective",
    "make",
    "names_stock",
    "objective_text",
    "parse",
    "parts",
    "scheduled",
    "source_of",
    "text_of",
]
