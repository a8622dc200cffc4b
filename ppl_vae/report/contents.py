"""What the page of a run holds: arrays, numbers and text."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Comparison:
    """The bound beside what independent columns give the same rows.

    Attributes
    ----------
    nats : float
        Of the independent columns, in nats per row.
    better : float
        How much more the run gives each row, in nats.
    stderr : float or None
        Its standard error over rows, which are the same ones on both sides.
    n, fitted : int
        Rows scored, and training rows that the columns were fitted to.
    columns : int
    family : str
        The distribution of a column.
    """

    nats: float
    better: float
    stderr: float | None
    n: int
    fitted: int
    columns: int
    family: str


@dataclass(frozen=True)
class Finding:
    """The bound of a run: nats per row, over `n` rows of a split.

    Attributes
    ----------
    program, split : str
    n : int
    nats : float
    stderr : float or None
        Over rows.
    k : int or None
        Draws of an importance weighted bound; None: the ELBO.
    bits_per_dim : float or None
        Where the observations are masses, or levels.
    comparison : Comparison or str
        Or why there is none.
    """

    program: str
    split: str
    n: int
    nats: float
    stderr: float | None
    k: int | None = None
    bits_per_dim: float | None = None
    comparison: Comparison | str = ""


@dataclass(frozen=True)
class Row:
    """A row of the data, and what the run says of it."""

    number: int
    nats: float
    name: str = ""
    label: str = ""
    original: np.ndarray | None = None
    reconstruction: np.ndarray | None = None


@dataclass(frozen=True)
class Labels:
    """The classes [N] of rows, and their names by number."""

    field: str
    values: np.ndarray
    names: Sequence[str] = ()

    def name(self, value: int) -> str:
        """Return the name of a class."""
        return str(self.names[value]) if 0 <= value < len(self.names) else str(value)


@dataclass(frozen=True)
class Contents:
    """All that the page shows; what is left out is not shown.

    Attributes
    ----------
    title : str
    kind : {"image", "vector", "counts", "sound"}
    finding : Finding or None
    samples, originals, reconstructions : [N, *event] or None
        Of one field; NaN where a number is masked. Reconstructions and originals agree by row.
    columns : sequence of str
        Names of the columns of a vector.
    latents : dict of str to [N, *event]
        By site.
    labels : Labels or None
        Of the rows that have latents.
    worst : sequence of Row
        The rows of the lowest bound, the lowest first.
    judged : int
        Among how many.
    history : list of dict
        Rows with `step`, `split` and numbers, as in metrics.jsonl.
    details : dict of str to mapping
        Tables that are folded away, by their titles.
    missing : sequence of str
        What could not be made, and why.
    """

    title: str = "Run"
    kind: str = "image"
    finding: Finding | None = None
    samples: Any = None
    originals: Any = None
    reconstructions: Any = None
    columns: Sequence[str] = ()
    latents: Mapping[str, np.ndarray] = field(default_factory=dict)
    labels: Labels | None = None
    worst: Sequence[Row] = ()
    judged: int = 0
    history: Sequence[Mapping[str, Any]] = ()
    details: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Sequence[str] = ()
