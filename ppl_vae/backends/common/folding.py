"""Modules of a library's own, which take [rows, ...] alone: axes of particles are folded into the rows."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any

from ppl_vae.functions import Functions

OURS = "ppl_vae."


def is_foreign(module: Any, children: Callable[[Any], Iterable[Any]], known: tuple[type, ...]) -> bool:
    """Tell whether a network is, or holds, a module that is none of the layers and networks of ppl_vae, which
    keep leading axes.

    Parameters
    ----------
    module : module
    children : callable
        Returns the modules directly within one.
    known : tuple of type
        The library's own that are layers here, and its lists.
    """
    home = type(module).__module__
    if home.startswith(OURS) and ".layers" in home:
        return False
    if home.startswith(OURS) or type(module) in known:
        return any(is_foreign(child, children, known) for child in children(module))
    return True


class Folded:
    """A call of a foreign module.

    How many axes an array has without particles is learnt from calls without; before there was one, an array
    that begins with (particles, ..., rows) has them. Which axis of what goes in and comes out is that of the
    rows is learnt from calls of different numbers of rows.

    Parameters
    ----------
    F : Functions
    function : callable
    axes : dict
        What was learnt. By place of an array among the arguments: numbers of its axes without particles; by
        (kind, place, number of axes): which axes had the length of the rows in every call.
    particles, depth : int
        Particles, and the batch axes to the right of theirs.
    rows : int or None
    """

    def __init__(
        self,
        F: Functions,
        function: Callable[..., Any],
        axes: dict[Any, set[int]],
        particles: int,
        depth: int,
        rows: int | None,
    ):
        self.F, self.function, self.axes, self.rows = F, function, axes, rows
        self.particles, self.depth = particles, depth

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arrays = list(_arrays((args, kwargs)))
        if self.particles == 1 or self.rows is None:
            for place, array in enumerate(arrays):
                self.axes.setdefault(place, set()).add(array.ndim)
            result = self.function(*args, **kwargs)
            if isinstance(self.rows, int):  # no symbol of a graph that is being captured
                for kind, group in (("in", arrays), ("out", _arrays(result))):
                    for place, array in enumerate(group):
                        self._of_rows(kind, place, array.shape, self.rows)
            return result
        leads = [self._lead(place, array) for place, array in enumerate(arrays)]
        if not any(len(lead) > 1 for lead in leads):
            return self.function(*args, **kwargs)
        lead = tuple(self.F.broadcast_shapes(*filter(None, leads)))
        folded = iter([self._folded(*pair, lead) for pair in zip(arrays, leads, strict=True)])
        args, kwargs = _mapped(lambda _: next(folded), (args, kwargs))
        places = count()
        return _mapped(
            lambda array: self._unfolded(next(places), array, lead), self.function(*args, **kwargs)
        )

    def _of_rows(self, kind: str, place: int, shape: Sequence[int], size: int) -> list[int]:
        """Return the axes that have the length of the rows: in the calls before, too, if there are such."""
        if not isinstance(size, int):
            return [next(axis for axis, length in enumerate(shape) if length == size)]
        found, key = {axis for axis, length in enumerate(shape) if length == size}, (kind, place, len(shape))
        both = self.axes.get(key, found) & found
        if both or key not in self.axes:
            self.axes[key] = both
        return sorted(both or found)

    def _rows_first(self, place: int, array: Any) -> bool:
        known = self.axes.get(("in", place, array.ndim), {0})
        return array.ndim > 0 and array.shape[0] == self.rows and 0 in known

    def _lead(self, place: int, array: Any) -> tuple[int, ...]:
        """Return an array's axes of particles and rows: (rows,) without particles, () without rows."""
        known, count = self.axes.get(place, set()), array.ndim
        fewer = [number for number in known if count - self.depth <= number < count]
        if count in known and not fewer:
            return (self.rows,) if self._rows_first(place, array) else ()
        if count > self.depth and array.shape[0] == self.particles and array.shape[self.depth] == self.rows:
            return tuple(array.shape[: count - max(fewer, default=count - self.depth) + 1])
        return (self.rows,) if self._rows_first(place, array) else ()

    def _unfolded(self, place: int, array: Any, lead: tuple[int, ...]) -> Any:
        # The rows are not the first axis of a recurrent network's last state.
        axes = self._of_rows("out", place, array.shape, math.prod(lead))
        if not axes:
            return array
        return array.reshape((*array.shape[: axes[0]], *lead, *array.shape[axes[0] + 1 :]))

    def _folded(self, array: Any, own: tuple[int, ...], lead: tuple[int, ...]) -> Any:
        if not own:
            return array
        rest = tuple(array.shape[len(own) :])
        if own != lead:
            missing = (1,) * (len(lead) - len(own))
            array = self.F.broadcast_to(array.reshape((*missing, *own, *rest)), (*lead, *rest))
        return array.reshape((math.prod(lead), *rest))


def _arrays(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (tuple, list)):
        for part in tree:
            yield from _arrays(part)
    elif isinstance(tree, dict):
        yield from _arrays(list(tree.values()))
    elif hasattr(tree, "reshape"):
        yield tree


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return nested tuples, lists and dicts of arrays with a function of each array."""
    if isinstance(tree, (tuple, list)):
        parts = [_mapped(function, part) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
    if isinstance(tree, dict):
        return {name: _mapped(function, part) for name, part in tree.items()}
    return function(tree) if hasattr(tree, "reshape") else tree
