"""What functions name: the objects that they, and the functions that they call, get from around them."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from types import CodeType, ModuleType
from typing import Any

# Whose functions are not looked into.
LIBRARIES = ("torch", "pyro", "jax", "numpyro", "flax", "numpy", "scipy", "pandas", "sklearn", "ppl_vae")
MOST = 1000  # entries of a container that is looked into


def named_by(*functions: Callable) -> Iterator[tuple[str, Any]]:
    """Yield the functions, the objects that they are methods of, and all that they name, each once, after the
    names that they go by.
    """
    seen: dict[int, Any] = {}  # holds what it has seen: an id is an object's own while that lives
    left: list[tuple[str, Any]] = [("", function) for function in functions]
    while left:
        name, one = left.pop()
        if id(one) in seen:
            continue
        seen[id(one)] = one
        yield name, one
        owner, function = getattr(one, "__self__", None), getattr(one, "__func__", one)
        if isinstance(one, partial):
            left += [(name, part) for part in (one.func, *one.args, *one.keywords.values())]
        elif inspect.isfunction(function) and root_of(function) not in LIBRARIES:
            function = inspect.unwrap(function)
            variables = inspect.getclosurevars(function)
            left += [(type(owner).__name__, owner), *getattr(owner, "__dict__", {}).items()]
            left += [*variables.nonlocals.items(), *variables.globals.items()]
            # These come last: old runs number modules in the order of those above.
            left[:0] = _within(function)
        else:
            left[:0] = _entries(name, one)


def root_of(value: Any) -> str:
    """Return the name of the package that a value, or else its type, comes from."""
    if isinstance(value, ModuleType):
        return value.__name__.partition(".")[0]
    return str(getattr(value, "__module__", None) or type(value).__module__).partition(".")[0]


def _within(function: Callable) -> Iterator[tuple[str, Any]]:
    """Yield the defaults of a function, what functions and comprehensions within it name, and what it takes
    from modules of Python.
    """
    yield from ((function.__name__, value) for value in function.__defaults__ or ())
    yield from (function.__kwdefaults__ or {}).items()
    codes = [function.__code__]
    for code in codes:
        codes += [part for part in code.co_consts if isinstance(part, CodeType)]
    names = dict.fromkeys(name for code in codes for name in code.co_names)
    for name, value in [(name, function.__globals__[name]) for name in names if name in function.__globals__]:
        yield name, value
        if isinstance(value, ModuleType) and value.__name__.split(".")[0] not in LIBRARIES:
            yield from ((inner, vars(value)[inner]) for inner in names if inner in vars(value))


def _entries(name: str, one: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(one, Mapping) and len(one) <= MOST:
        yield from ((f"{name}[{key!r}]", value) for key, value in one.items())
    elif isinstance(one, (list, tuple)) and len(one) <= MOST:
        yield from ((f"{name}[{number}]", value) for number, value in enumerate(one))


def library_of(*functions: Callable, among: tuple[str, ...]) -> str | None:
    """Return which of some libraries functions are written in: the only one that they name; else None."""
    roots = {root_of(kind) for _, one in named_by(*functions) for kind in (one, *type(one).__mro__)}
    found = [name for name in among if name in roots]
    return found[0] if len(found) == 1 else None
