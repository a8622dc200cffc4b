"""Fields that the model reads beside observing them: which entries the density of an entry depends on.

Entries are changed one at a time, at the same latents: what a site observes changes, and so do the densities
that read it. Where no entry depends on itself, not by way of others either, their product is a density of
the field, drawn entry by entry; else it is none.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ppl_vae.contract.probe import Arrays

BASES = 4  # rows that are changed
ENTRIES = 256  # that are changed at most
NUMBERS = 2**21  # of a field, over all changed rows

Node = tuple[str, int | None]  # a field, and an entry of it, or all of them
# Of rows, and copies of them one after the other that differ: by observed site the values, and the log
# densities of the first copy's values under each, rows first. Where the third argument is true, the sites
# hold the first copy's values, and what differs is what the model is called with.
Densities = Callable[[Arrays, Arrays, bool], Mapping[str, tuple[np.ndarray, np.ndarray]]]


class Reading(NamedTuple):
    """How the density of a field reads the field.

    Attributes
    ----------
    site : str
        That observes the field.
    by_argument : bool
        The density reads what the model is called with, not what `ppl.sample` returns.
    loop : tuple of tuple of int
        An entry whose density depends on the entry itself, or two that depend on each other; else empty.
    as_given : bool
        The site observes the field as it is.
    known : bool
        False where a distribution counts several entries as one, so that this cannot be told.
    tried, entries : int
        Entries that were changed, of all.
    """

    site: str
    as_given: bool
    by_argument: bool
    loop: tuple[tuple[int, ...], ...]
    known: bool
    tried: int
    entries: int

    def in_order(self, field: str) -> bool:
        """Tell whether the entries of a field depend on others alone, so that they can be drawn in turn."""
        return self.known and not self.loop and self.as_given and self.site == field

    def looped(self, field: str) -> str:
        """Say what depends on what in `loop`."""
        first = ", ".join(map(str, self.loop[0]))
        if len(self.loop) == 1:
            return f"reads the value that it scores: that of {field}[{first}] depends on {field}[{first}]"
        second = ", ".join(map(str, self.loop[1]))
        return f"has no order: those of {field}[{first}] and {field}[{second}] depend on each other"


def readings(rows: Arrays, densities: Densities, seed: int = 0) -> dict[str, Reading]:
    """Return the fields whose density reads them, of rows by field."""
    rng = np.random.default_rng(seed)
    base, changed = _changed(rows, rng)
    whole = [(name, None) for name in base]
    first = _Seen.of(base, changed, whole, densities)
    nodes = [whole[index] for index in _among_loops(first.edges())]
    if not nodes:
        return {}
    held = first._replace(density=_Seen.of(base, changed, whole, densities, held=True).density)
    by_argument = {whole[index][0] for index in _among_loops(held.edges())}
    names = [name for name, _ in nodes]
    entries = [(name, entry) for name in names for entry in _chosen(base[name], len(names), rng)]
    seen = _Seen.of(base, changed, entries, densities)
    loops = [entries[index] for index in _among_loops(seen.edges(fine=True))]
    unknown = {entries[index][0] for index in _among_loops(seen.edges())} - {name for name, _ in loops}
    found = {}
    for name in names:
        shape = base[name].shape[1:]
        looped = [np.unravel_index(entry, shape) for other, entry in loops if other == name]
        loop = tuple(tuple(map(int, place)) for place in looped[: _length(seen, entries, loops, name)])
        tried = sum(other == name for other, _ in entries)
        site, size = seen.site(entries, name), base[name][0].size
        as_given = np.array_equal(seen.values[site].ravel(), base[name].ravel())
        known = name not in unknown
        found[name] = Reading(site, as_given, name in by_argument, loop, known, tried, size)
    return found


def may_loop(reached: Mapping[str, tuple[set[str], set[str]]]) -> bool:
    """Tell whether fields may read themselves, given those that each observed site's values and its density
    may depend on.
    """
    names = sorted(set[str]().union(*(fields for pair in reached.values() for fields in pair)))
    edges = [
        [any(second in of_values and first in of_density for of_values, of_density in reached.values())
         for second in names] for first in names
    ]  # fmt: skip
    return bool(names and _among_loops(np.array(edges)))


def _length(seen: "_Seen", entries: Sequence[Node], loops: Sequence[Node], name: str) -> int:
    """Return how many entries of a field tell of its loop: 1 where the first depends on itself."""
    first = next((index for index, node in enumerate(entries) if node in loops and node[0] == name), None)
    return 1 if first is not None and seen.edges(fine=True)[first, first] else 2


def _changed(rows: Arrays, rng: np.random.Generator) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return a few rows, and others of which every number differs where the data has another one."""
    count = len(next(iter(rows.values())))
    order = rng.permutation(count)
    base = {name: values[order[:BASES]] for name, values in rows.items()}
    changed = {}
    for name, mine in base.items():
        pool = rows[name][order].reshape(count, -1)
        flat = mine.reshape(len(mine), -1)
        place = np.array([np.argmax(pool != row, axis=0) for row in flat])
        other = np.take_along_axis(pool, place, 0)
        low, high = pool.min(), pool.max()
        spare = np.where(flat == low, high, low) if low != high else np.zeros_like(flat) + (low == 0)
        changed[name] = np.where(other == flat, spare.astype(flat.dtype), other).reshape(mine.shape)
    return base, changed


def _chosen(values: np.ndarray, fields: int, rng: np.random.Generator) -> list[int]:
    """Return the entries to change: all, or neighbours in the middle and others."""
    size = values[0].size
    most = min(ENTRIES // fields, max(2, NUMBERS // (size * len(values))))
    if size <= most:
        return list(range(size))
    start = (size - most // 2) // 2
    near = np.arange(start, start + most // 2)
    far = rng.choice(np.setdiff1d(np.arange(size), near), most - len(near), replace=False)
    return sorted([*near.tolist(), *far.tolist()])


class _Seen(NamedTuple):
    """By node (a field or an entry of it): which numbers that sites observe, and which of their log
    densities, a change of it changes.
    """

    observed: np.ndarray  # [nodes, numbers] of bool
    density: np.ndarray
    single: np.ndarray  # [numbers] of bool: its log density is of one number
    owners: np.ndarray  # [numbers], the name of the site
    values: dict[str, np.ndarray]  # that it observes of the rows as they are

    @classmethod
    def of(
        cls, base: Arrays, changed: Arrays, nodes: Sequence[Node], densities: Densities, held: bool = False
    ) -> "_Seen":
        count, parts, values = 1 + len(nodes), [], {}
        copies = {name: np.stack([values] * count) for name, values in base.items()}
        for place, (name, entry) in enumerate(nodes, 1):
            where = slice(None) if entry is None else entry
            flat = copies[name].reshape(count, len(base[name]), -1)
            flat[place][:, where] = changed[name].reshape(len(base[name]), -1)[:, where]
        joined = {name: values.reshape(-1, *values.shape[2:]) for name, values in copies.items()}
        for name, (value, density) in densities(base, joined, held).items():
            density = density.reshape(count, len(density) // count, -1)
            values[name] = value[: density.shape[1]]
            value = value.reshape(*density.shape, -1)
            other = (value != value[:1]).any((1, 3))
            parts.append((other[1:], _differs(density)[1:], value.shape[-1] == 1, name))
        if not parts:
            none = np.zeros((len(nodes), 0), bool)
            return cls(none, none, np.zeros(0, bool), np.zeros(0, str), {})
        sizes = [part[0].shape[1] for part in parts]
        observed, density = (np.concatenate([part[number] for part in parts], 1) for number in (0, 1))
        single, owners = (np.repeat([part[number] for part in parts], sizes) for number in (2, 3))
        return cls(observed, density, single, owners, values)

    def edges(self, fine: bool = False) -> np.ndarray:
        """Return whether the density of the second node reads the first, [nodes, nodes]; `fine`: as far as
        densities are of one number each.
        """
        counted = self.single if fine else np.ones_like(self.single)
        return (self.density & counted).astype(np.float32) @ (self.observed & counted).T.astype(
            np.float32
        ) > 0

    def site(self, nodes: Sequence[Node], field: str) -> str:
        """Return the first site that observes a field."""
        own = np.any([row for row, (name, _) in zip(self.observed, nodes, strict=True) if name == field], 0)
        return str(self.owners[np.argmax(own)])


def _differs(density: np.ndarray) -> np.ndarray:
    """Tell which log densities [copies, rows, numbers] of a copy differ from the first's beyond rounding."""
    first = density[:1]
    with np.errstate(invalid="ignore"):
        near = np.abs(density - first) <= 1e-5 * np.maximum(np.maximum(np.abs(density), np.abs(first)), 1)
    finite = np.isfinite(density) & np.isfinite(first)
    same = (density == first) | (np.isnan(density) & np.isnan(first))
    return ~np.where(finite, near, same).all(1)


def _among_loops(edges: np.ndarray) -> list[int]:
    """Return the nodes that lie on a loop, or between two."""
    left = np.arange(len(edges))
    while len(left):
        part = edges[np.ix_(left, left)]
        kept = part.any(0) & part.any(1)
        if kept.all():
            break
        left = left[kept]
    return left.tolist()
