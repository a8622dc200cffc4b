"""What the columns of a table, or the arrays of a file, are for, and the fields that are made of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any

import numpy as np

from ppl_vae.errors import UsageError

Classes = Mapping[str, Sequence[str]]
NO_CLASSES: Classes = MappingProxyType({})
ROLES = ("x", "label", "batch", "index", "ignore", "mask")
ROW_LABELS = "names of rows"  # where they travel with the fields: no parameter of a program is called so


@dataclass(frozen=True)
class Roles:
    """What the columns of a table, or the arrays of a file, are for; None: as they look.

    Attributes
    ----------
    x : str or sequence of str, optional
        What becomes x; by default every column of numbers that is nothing else. Text becomes codes.
    label, batch : str, optional
        Classes (the field y) and groups (the field batch); text becomes codes.
    index : str, optional
        Names of the rows; "none": nothing is taken for them; "": nothing but a column without a name.
    ignore : str or sequence of str, optional
        What is left out.
    mask : str, optional
        "nan": missing numbers of x are 0 and False in the field mask. A name: the column of the mask.
    lenient : bool
        The roles are those of other data: columns that are not there are passed over, but for x.
    """

    x: str | Sequence[str] | None = None
    label: str | None = None
    batch: str | None = None
    index: str | None = None
    ignore: str | Sequence[str] | None = None
    mask: str | None = None
    lenient: bool = False

    def __post_init__(self):
        for role in ("x", "ignore"):
            object.__setattr__(self, role, _listed(role, getattr(self, role)))
        for role in ("label", "batch", "index", "mask"):
            name = getattr(self, role)
            if name is not None and (not isinstance(name, (str, int)) or isinstance(name, bool)):
                raise UsageError(f"{role}={name!r}: give the name of one column")
            object.__setattr__(self, role, None if name is None else str(name))

    def record(self) -> dict[str, Any]:
        """Return the roles that are given, as values for JSON."""
        return {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}

    @property
    def given(self) -> dict[str, list[str]]:
        """Names of columns by role."""
        named = {role: getattr(self, role) for role in ROLES}
        named |= {"mask": None} if self.mask == "nan" else {}
        named |= {"index": None} if self.index in ("none", "") else {}
        return {role: [names] if isinstance(names, str) else names for role, names in named.items() if names}

    def by_field(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Return values by field that are given by field, or by the column that the field was made of."""
        called = {self.label: "y", self.batch: "batch"}
        fields = {called.get(str(name), str(name)): values for name, values in given.items()}
        if len(fields) < len(given):
            raise UsageError(f"{', '.join(map(str, given))}: two of them are one field, give one")
        return fields

    def column(self, field: str) -> str:
        """Return the column that a field is made of, the field itself where no role says so."""
        made = {"y": self.label, "batch": self.batch, "mask": None if self.mask == "nan" else self.mask}
        return made.get(field) or field

    def called(self, field: str) -> str:
        """Return a field in words, with the column that it is made of: 'batch' (the column 'site')."""
        column = self.column(field)
        return repr(field) if column == field else f"{field!r} (the column {column!r})"

    def among(self, columns: Iterable[str]) -> "Roles":
        """Return the roles of these columns.

        Raises
        ------
        UsageError
            For a column that is not there, and for one with two roles.
        """
        columns, roles = list(columns), self
        if self.lenient:
            lost = {role for role, names in self.given.items() if set(names) - set(columns)} - {"x", "ignore"}
            ignored = [name for name in self.ignore or () if name in columns]
            roles = replace(self, ignore=ignored or None, **dict.fromkeys(lost))
            roles = replace(roles, index="") if "index" in lost else roles
        roles._check(columns)
        return roles

    def _check(self, columns: Sequence[str]) -> None:
        taken = {}
        for role, names in self.given.items():
            for name in names:
                if name not in columns:
                    close = get_close_matches(name, columns, 1)
                    close = ["nan"] if role == "mask" and name.lower() == "nan" else close
                    meant = f" (did you mean {close[0]!r}?)" if close else ""
                    shown = ", ".join(columns[:12]) + (" ..." if len(columns) > 12 else "")
                    raise UsageError(f"{role}: there is no column {name!r}{meant}; there are {shown}")
                if name in taken:
                    raise UsageError(f"the column {name!r} cannot be both {taken[name]} and {role}")
                taken[name] = role


def _listed(role: str, names: Any) -> list[str] | None:
    if names is None:
        return None
    if isinstance(names, str):
        return [name.strip() for name in names.split(",")]
    if isinstance(names, (int, np.ndarray)) or not isinstance(names, Iterable):
        raise UsageError(f"{role}={names!r}: give names of columns")
    return [str(name) for name in names]


NO_ROLES = Roles()


@dataclass
class Table:
    """Fields made of a table.

    Attributes
    ----------
    fields : dict
        Named arrays, rows first; the names of the rows under `ROW_LABELS` where there are any.
    coords : dict
        Names of columns (x) and of classes (y, batch).
    notes : list of str
        What was taken for what.
    index : str
        The column that the names of the rows were taken from; "" for none with a name.
    """

    fields: dict[str, Any]
    coords: dict[str, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    index: str = ""
