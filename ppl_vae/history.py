"""What the rows of a run's history tell."""

from collections.abc import Mapping, Sequence
from typing import Any

from ppl_vae.training import CHOICE


def chosen(history: Sequence[Mapping[str, Any]], keep: str) -> Mapping[str, Any]:
    """Return the row of validation that tells of the weights a run keeps; empty without validation."""
    rows = [row for row in history if row["split"] == "valid" and row.get("elbo_nats") is not None]
    if not rows or keep == "last":
        return rows[-1] if rows else {}
    return max(rows, key=lambda row: row.get(CHOICE, row["elbo_nats"]))
