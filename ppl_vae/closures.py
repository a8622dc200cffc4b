"""What functions name: the objects that they, and the functions that they call, get from around them."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import ModuleType
from typing import Any

LIBRARIES = ("torch", "pyro", "jax", "numpyro", "flax", "numpy")  # whose functions are not looked into


def named_by(*functions: Callable) -> Iterator[Any]:
    """Yield the functions, the objects that they are methods of, and all that they name, each once."""
    seen: dict[int, Any] = {}  # holds what it has seen: an id is an object's own while that lives
    left: list[Any] = list(functions)
    while left:
        one = left.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield one
        if isinstance(one, partial):
            left += [one.func, *one.args, *one.keywords.values()]
            continue
        owner, function = getattr(one, "__self__", None), getattr(one, "__func__", one)
        if inspect.isfunction(function) and root_of(function) not in LIBRARIES:
            named = inspect.getclosurevars(inspect.unwrap(function))
            left += [owner, *getattr(owner, "__dict__", {}).values()]
            left += [*named.nonlocals.values(), *named.globals.values()]


def root_of(value: Any) -> str:
    """Return the name of the package that a value, or else its type, comes from."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0]
    return str(getattr(value, "__module__", None) or type(value).__module__).partition(".")[0]


def library_of(*functions: Callable, among: tuple[str, ...]) -> str | None:
    """Return which of some libraries functions are written in: the only one that they name; else None."""
    roots = {root_of(kind) for one in named_by(*functions) for kind in (one, *type(one).__mro__)}
    found = [name for name in among if name in roots]
    return found[0] if len(found) == 1 else None
