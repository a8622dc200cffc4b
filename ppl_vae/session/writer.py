"""Writes the source of a module that holds objects of a session, with all that they use."""

import builtins
import copyreg
import functools
import math
import pickle
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

from ppl_vae.session import definitions

LARGEST = 10_000  # numbers of an array, which is written as a list
OWN = ("__name__", "__doc__", "__builtins__", "__file__", "__spec__", "__class__")  # of each module


class Lacking(Exception):
    """Something has no source; the text says what. A `final` one has none that would make an equal object."""

    final = False


class Final(Lacking):
    """See `Lacking`."""

    final = True


def restored(kind: type, *args: Any, state: Mapping[str, Any] | None = None) -> Any:
    """Return an object of a class as copies are made: without its `__init__`, with its attributes."""
    value = kind.__new__(kind, *args)
    vars(value).update(state or {})
    return value


class Writer:
    """The module's text as it grows: definitions come before what uses them.

    Parameters
    ----------
    home : mapping
        The names of the session.
    """

    def __init__(self, home: Mapping[str, Any]):
        self._home, self._module = home, home.get("__name__", "__main__")
        self._statements = definitions.statements(definitions.session(home))
        self._bound: dict[str, Any] = {}
        self._done: set[str] = set()  # texts of statements
        self._active: set[int] = set()
        self._future = False
        self.parts: list[str] = []

    def text(self) -> str:
        """Return the module's source."""
        head = ["from __future__ import annotations"] if self._future else []
        return "\n\n".join([*head, *self.parts]) + "\n"

    def add(self, name: str, value: Any) -> None:
        """Give a value a name of the module."""
        text = self.expression(value)
        if text != name:
            self.parts.append(f"{name} = {text}")

    def expression(self, value: Any) -> str:
        """Return an expression of an equal object; raise Lacking where there is none."""
        try:
            return self._guarded(value)
        except Lacking as lacking:
            names = (n for n, one in [*self._home.items()] if one is value and not n.startswith("_"))
            name = next(names, None)
            if name is None:
                raise
            self._made(name, value, lacking)
            return name

    def _guarded(self, value: Any) -> str:
        if isinstance(value, (type, FunctionType)):
            return self._value(value)
        if id(value) in self._active:
            raise Lacking(f"a {type(value).__name__} contains itself")
        self._active.add(id(value))
        try:
            return self._value(value)
        finally:
            self._active.discard(id(value))

    def _value(self, value: Any) -> str:
        if value is None or value is Ellipsis or type(value) in (bool, int, str, bytes):
            return repr(value)
        if type(value) is float:
            return repr(value) if math.isfinite(value) else f"float({str(value)!r})"
        if type(value) in (list, tuple, set, frozenset, dict):
            return self._container(value)
        if isinstance(value, ModuleType):
            return self._import(value.__name__)
        if isinstance(value, functools.partial):
            return self._call(functools.partial, [value.func, *value.args], value.keywords)
        if isinstance(value, MethodType):
            return f"{self.expression(value.__self__)}.{value.__name__}"
        if isinstance(value, (type, FunctionType, BuiltinFunctionType)) or _is_wrapper(value):
            return self._definition(value)
        return self._array(value) if _is_array(value) else self._object(value)

    def _container(self, value: Any) -> str:
        if type(value) is dict:
            return f"{{{', '.join(f'{self.expression(k)}: {self.expression(v)}' for k, v in value.items())}}}"
        if type(value) in (set, frozenset):
            items = sorted(map(self.expression, value))
            return f"{type(value).__name__}([{', '.join(items)}])"
        items = [self.expression(item) for item in value]
        return f"[{', '.join(items)}]" if type(value) is list else f"({''.join(one + ', ' for one in items)})"

    def _call(self, made_by: Any, args: Any, named: Mapping[str, Any] = {}) -> str:
        parts = [*map(self.expression, args), *(f"{n}={self.expression(v)}" for n, v in named.items())]
        return f"{self.expression(made_by)}({', '.join(parts)})"

    def _array(self, value: Any) -> str:
        import numpy as np

        library = type(value).__module__.partition(".")[0]
        try:
            kept = np.asarray(value.detach().cpu() if library == "torch" else value)
        except TypeError:  # such as torch's bfloat16
            raise Final(f"an array of {value.dtype} is not written as source") from None
        if kept.size > LARGEST or kept.dtype.kind not in "biuf":
            raise Final(f"an array of shape {kept.shape} of {kept.dtype} is not written as source")
        numbers = re.sub(r"\b(nan|inf)\b", r"float('\1')", repr(kept.tolist()))
        text = f"{self._import('numpy')}.array({numbers}, {kept.dtype.name!r})"
        text = f"{text}.reshape({kept.shape})" if kept.size == 0 else text
        text = f"{text}[()]" if isinstance(value, np.generic) else text
        if library == "torch":
            return f"{self._import('torch')}.from_numpy({text})"
        return text if library == "numpy" else f"{self._import('jax.numpy')}.asarray({text})"

    def _object(self, value: Any) -> str:
        kind = type(value)
        if kind.__module__.startswith("ppl_vae.api"):  # never a training, done once more
            raise Final(f"a {kind.__name__} is not written as source")
        if is_dataclass(value) and all(one.init for one in fields(value)):
            return self._call(kind, [], {one.name: getattr(value, one.name) for one in fields(value)})
        try:
            own = dict(getattr(value, "__dict__", {}))
            how = value.__reduce_ex__(2)
            if own:  # an autoguide of Pyro's forgets its model when it is asked for its state
                value.__dict__.update(own)
        except Exception as error:
            raise Lacking(f"a {kind.__name__} cannot be written as source ({error})") from None
        if isinstance(how, str):
            return f"{self._import(pickle.whichmodule(value, how))}.{how}"
        made_by, args, state, *items = (*how, None, None, None, None)[:5]
        if any(items) or not (state is None or (isinstance(state, dict) and made_by is copyreg.__newobj__)):
            raise Lacking(f"a {kind.__name__} has no source")
        if made_by is not copyreg.__newobj__:
            return self._call(made_by, args)
        if hasattr(kind, "__setstate__"):
            raise Lacking(f"a {kind.__name__} has no source")
        return self._call(restored, args, {"state": state} if state else {})

    def _definition(self, value: Any) -> str:
        """Return the name of a function or a class: imported, or with its definition."""
        if (found := self._importable(value)) is not None:
            module, name = found
            return name if module == "builtins" else f"{self._import(module)}.{name}"
        name = getattr(value, "__qualname__", "").rpartition(".")[2]
        if self._bound.get(name, self) is value:
            return name
        text = definitions.definition(value, self._statements)
        if text is None:
            raise Lacking(f"the source of {name or value!r} is not to be had")
        self._future |= definitions.defers_annotations(value)
        if name == "<lambda>":
            self._use(text, definitions.scope(value, self._home))
            return text
        with self._claimed(name, value):
            self._use(text, definitions.scope(value, self._home))
        self.parts.append(text)
        return name

    def _importable(self, value: Any) -> tuple[str, str] | None:
        """Return the module and the name by which another process imports a function or a class."""
        if not isinstance(value, (type, FunctionType, BuiltinFunctionType)) and not _is_wrapper(value):
            return None
        name = getattr(value, "__qualname__", None) or getattr(value, "__name__", "")
        if "<" in name:
            return None
        module = pickle.whichmodule(value, name)
        home = sys.modules.get(module)
        here = module in ("__main__", self._module) and not isinstance(value, BuiltinFunctionType)
        if home is None or here or home.__spec__ is None:
            return None
        try:
            same = functools.reduce(getattr, name.split("."), home) is value
        except AttributeError:
            return None
        return (module, name) if same else None

    def _import(self, module: str) -> str:
        alias = "_" + module.replace(".", "_")
        self._once(f"import {module} as {alias}")
        return alias

    def _once(self, statement: str) -> None:
        if statement not in self._done:
            self._done.add(statement)
            self.parts.append(statement)

    @contextmanager
    def _claimed(self, name: str, value: Any) -> Iterator[None]:
        if name in self._bound and self._bound[name] is not value:
            raise Final(f"two objects are called {name}")
        self._bound[name] = value
        try:
            yield
        except Lacking:
            del self._bound[name]
            raise

    def _use(self, text: str, space: Mapping[str, Any]) -> None:
        for name in definitions.used(text):
            if name not in OWN and name in space and space[name] is not getattr(builtins, name, self):
                self._bind(name, space[name])

    def _bind(self, name: str, value: Any) -> None:
        """Give a name that a source uses the value that it has now."""
        if self._bound.get(name, self) is value:
            return
        if isinstance(value, ModuleType):
            with self._claimed(name, value):
                self._once(
                    f"import {value.__name__}"
                    if name == value.__name__
                    else f"import {value.__name__} as {name}"
                )
                for one in self._statements:
                    if one.imports_within(name):
                        self._once(one.text)
            return
        module, imported = self._importable(value) or ("", ".")
        if "." not in imported and module != "builtins":
            with self._claimed(name, value):
                self._once(f"from {module} import {imported}" + (f" as {name}" if name != imported else ""))
            return
        try:
            text = self._guarded(value)
        except Lacking as lacking:
            if self._home.get(name, self) is not value:
                raise
            self._made(name, value, lacking)
            return
        if text != name:
            with self._claimed(name, value):
                self.parts.append(f"{name} = {text}")

    def _made(self, name: str, value: Any, lacking: Lacking) -> None:
        """Write the statements of the session that made what a name stands for."""
        if self._bound.get(name, self) is value:
            return
        binding = [i for i, one in enumerate(self._statements) if one.binds(name)]
        if lacking.final or not binding:
            raise lacking
        made_by = self._statements[binding[-1]]
        if "__name__" in definitions.used(made_by.text):  # if __name__ == "__main__": is not executed again
            raise lacking
        later = [one for one in self._statements[binding[-1] + 1 :] if one.changes(name)]
        with self._claimed(name, value):
            for one in (made_by, *later):
                self._use(one.text, self._home)
                self._once(one.text)


def _is_array(value: Any) -> bool:
    kind = type(value)
    names = [kind.__name__, *(one.__name__ for one in kind.__mro__ if one.__name__ == "generic")]
    known = not {"ndarray", "Tensor", "ArrayImpl", "generic"}.isdisjoint(names)
    return known and kind.__module__.partition(".")[0] in ("numpy", "torch", "jax", "jaxlib")


def _is_wrapper(value: Any) -> bool:
    """Tell whether an object stands for a function, as those of jax.jit do."""
    return isinstance(getattr(value, "__wrapped__", None), FunctionType) and hasattr(value, "__qualname__")
