"""Data: named fields in named splits, as NumPy arrays with the rows first."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.errors import UsageError
from ppl_vae.summaries import Row, Summarised, shape_text

SPLITS = ("train", "valid", "test")
ALL = "all"  # the rows of all splits, in this order
KINDS = ("image", "vector", "counts", "sound")
BINARIZE = ("auto", "none", "dynamic", "static")


@dataclass(frozen=True, eq=False, repr=False)
class Data(Summarised):
    """A data set.

    Parameters
    ----------
    name : str
        Name or path under which it was loaded.
    splits : dict
        `{"train" | "valid" | "test": {field: array}}`, rows first. Quantised images are stored as
        unsigned integers `[N, C, H, W]`.
    kind : str
        "image", "vector", "counts" or "sound".
    levels : int or None
        Number of grey levels of a quantised `x`; `raw` hands out `x / (levels - 1)`.
    binarize : str
        "none", "dynamic" (new bits each time a row is trained on), "static" (bits drawn once), or "auto": not
        decided yet. `fit` makes it dynamic for a Bernoulli likelihood on grey levels, else none.
    split_rule, source, licence : str
        How the splits were made, where the data came from, and under which terms.
    coords : dict
        Names of the columns (or of the classes, for `y`) by field, where they are known.
    options : dict or None
        What `load` was called with, so that a run can load the same data again. None: made in memory.
    labels : dict
        Names of the rows by split, `[N]` of text, where they have any.
    notes : tuple of str
        What was taken for what.
    roles : dict
        Columns by the role that they were given.
    counted : set
        Fields whose classes a program has counted.

    Raises
    ------
    UsageError
        If `kind` or `binarize` is unknown, or `x` cannot be binarized as it leaves [0, 1].
    """

    name: str
    splits: dict[str, dict[str, np.ndarray]]
    kind: str
    levels: int | None = None
    binarize: str = "auto"
    split_rule: str = ""
    source: str = ""
    licence: str = ""
    coords: dict[str, list] = field(default_factory=dict)
    options: dict | None = None
    labels: dict[str, np.ndarray] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    roles: dict[str, Any] = field(default_factory=dict)
    counted: set[str] = field(default_factory=set)

    def __post_init__(self):
        checks.one_of("kind of data", self.kind, KINDS)
        checks.one_of("binarize", self.binarize, BINARIZE)
        if self.binarize in ("dynamic", "static"):
            self._refuse_unless_probabilities()

    def _refuse_unless_probabilities(self):
        for split, rows in self.splits.items():
            if "x" not in rows:
                raise UsageError(f"binarize={self.binarize!r} needs a field x, {self.name} has {list(rows)}")
            if self.levels is None and (rows["x"].min() < 0 or rows["x"].max() > 1):
                low, high = rows["x"].min(), rows["x"].max()
                raise UsageError(
                    f"binarize={self.binarize!r} needs x in [0, 1], but x of {self.name} ({split}) lies in "
                    f"[{low:g}, {high:g}]: scale it, or use binarize='none'"
                )

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields, the same in every split."""
        return tuple(next(iter(self.splits.values())))

    def shape(self, field: str) -> tuple[int, ...]:
        """Shape of one row of a field, without the row axis."""
        if field not in self.fields:
            raise UsageError(f"{self.name} has no field {field!r}: it has {', '.join(self.fields)}")
        return next(iter(self.splits.values()))[field].shape[1:]

    def num_rows(self, split: str) -> int:
        """Number of rows of a split; 0 for "train", "valid" or "test" where there is none."""
        if split in SPLITS and split not in self.splits:
            return 0
        return sum(len(next(iter(self._split(one).values()))) for one in self._named(split))

    def refuse_empty(self, split: str) -> None:
        """Refuse a split without rows.

        Raises
        ------
        UsageError
        """
        if not self.num_rows(split):
            raise UsageError(f"{self.name} has no rows in the split {split!r}: {self._known}")

    def raw(self, split: str) -> dict[str, np.ndarray]:
        """Rows as a program receives them, never binarized.

        Returns
        -------
        dict
            field -> `[N, ...]`: a quantised x as float32 in [0, 1], other floats float32, integers int64,
            masks (bool) as they are.
        """
        if split == ALL:
            return _joined([self.raw(one) for one in self._named(split)])
        rows = self._split(split)
        return {n: as_taken(values, self.levels if n == "x" else None) for n, values in rows.items()}

    def rows(self, split: str, seed: int = 0) -> "Rows":
        """Rows as they are scored: `raw`, with x replaced by bits (float32 0 or 1) if the data is binarized;
        those of all splits, in the order train, valid, test, for "all". They keep their names.

        The bits come from `np.random.default_rng([seed, index of the split])`, the same on every backend.
        Static bits are part of the data: there the seed is not used.
        """
        if split == ALL:
            joined = _joined([self.rows(one, seed) for one in self._named(split)])
            return Rows(joined, self.names(split), self.coords.get("x"))
        rows = self.raw(split)
        if self.binarize in ("dynamic", "static"):
            seed = 0 if self.binarize == "static" else seed
            rng = np.random.default_rng([seed, SPLITS.index(split)])
            x = rows["x"]
            rows["x"] = (rng.random(x.shape, dtype=np.float32) < x).astype(np.float32)
        return Rows(rows, self.names(split), self.coords.get("x"))

    def names(self, split: str) -> np.ndarray | None:
        """Names of the rows of a split, [N] of text, where they have any."""
        found = [self.labels.get(one) for one in self._named(split)]
        return None if any(names is None for names in found) else np.concatenate(found)

    def _summary(self) -> tuple[str, list[Row]]:
        what = [self.kind, f"{self.levels} levels" if self.levels else "", f"binarize={self.binarize!r}"]
        rows = ", ".join(f"{split} {self.num_rows(split):,}" for split in self.splits)
        one = next(iter(self.splits.values()))
        shapes = [(f"{n} per row", f"{shape_text(a.shape[1:])}, {a.dtype}") for n, a in one.items()]
        return f"Data {self.name!r}: {', '.join(filter(None, what))}", [("rows", rows), *shapes]

    def under(self, binarize: str) -> "Data":
        """Return the same data under another rule of binarization."""
        return self if binarize == self.binarize else replace(self, binarize=binarize)

    def train_rows(self) -> dict[str, np.ndarray]:
        """Rows to train on: `raw` if dynamic (the backend draws new bits each step), else `rows`."""
        return self.raw("train") if self.binarize == "dynamic" else self.rows("train")

    @cached_property
    def sha256(self) -> str:
        """Hash of the content: names, types, shapes and bytes of all fields in all splits."""
        digest = hashlib.sha256()
        for split in sorted(self.splits):
            for name in sorted(self.splits[split]):
                values = np.ascontiguousarray(self.splits[split][name])
                digest.update(f"{split}/{name} {values.dtype.str} {values.shape}\n".encode())
                digest.update(values.data.cast("B") if values.size else b"")
        return digest.hexdigest()

    def describe(self) -> dict:
        """What this data is, as values for JSON: written into every result."""
        about = {name: getattr(self, name) for name in ("name", "kind", "levels", "binarize")}
        about["rows"] = {split: self.num_rows(split) for split in self.splits}
        about["shapes"] = {name: list(self.shape(name)) for name in self.fields}
        return about | {name: getattr(self, name) for name in ("split_rule", "source", "licence", "sha256")}

    def _named(self, split):
        """Names of the splits that one names: itself, or all of them."""
        return [one for one in SPLITS if one in self.splits] if split == ALL else [split]

    @property
    def _known(self):
        return f"it has {', '.join(self.splits)}, and {ALL} for all of them"

    def _split(self, split):
        if not isinstance(split, str) or split not in self.splits:
            raise UsageError(f"{self.name} has no split {split!r}: {self._known}")
        return self.splits[split]


class Rows(dict[str, np.ndarray]):
    """Rows by field, with the names of the rows, [N] of text, and of the columns of x where there are any."""

    def __init__(
        self,
        fields: Mapping[str, np.ndarray],
        names: np.ndarray | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        super().__init__(fields)
        self.names, self.columns = names, columns

    def called(self, field: str, place: Sequence[int]) -> str:
        """Return how the row, and the column, of a number of a field are called: `, row 'a', column 'b',`."""
        row, *within = place
        named = [] if self.names is None else [f"row {str(self.names[row])!r}"]
        if field == "x" and len(within) == 1 and self.columns and len(self.columns) == self["x"].shape[1]:
            named.append(f"column {self.columns[within[0]]!r}")
        return f", {', '.join(named)}," if named else ""


def _joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def as_taken(values: np.ndarray, levels: int | None = None) -> np.ndarray:
    """Return one field in the scale and type in which a program receives it."""
    if levels is not None:
        return values.astype(np.float32) / np.float32(levels - 1)
    if values.dtype.kind == "f":
        return values.astype(np.float32, copy=False)
    return values if values.dtype.kind == "b" else values.astype(np.int64)
