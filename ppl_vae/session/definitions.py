"""Where the source of an object lies: a file, the cells of a notebook, whatever `linecache` knows."""

import __future__

import ast
import inspect
import linecache
import symtable
import textwrap
from collections import ChainMap
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any, NamedTuple

MAGICS = ("time", "timeit", "capture", "prun")  # of cells that are Python below their first line
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda


class Statement(NamedTuple):
    """A statement at the top level of a file or cell."""

    node: ast.stmt
    text: str

    def binds(self, name: str) -> bool:
        """Tell whether it gives a name another value."""
        return not isinstance(self.node, ast.AugAssign) and name in _bound(self.text)

    def imports_within(self, name: str) -> bool:
        """Tell whether it imports a module of a package that a name stands for, as `import name.part`."""
        aliases = self.node.names if isinstance(self.node, ast.Import) else []
        return any(not one.asname and one.name.startswith(f"{name}.") for one in aliases)

    def changes(self, name: str) -> bool:
        """Tell whether it changes what a name holds: an assignment to a part of it."""
        node = self.node
        if not isinstance(node, (ast.Assign, ast.AugAssign, ast.AnnAssign)):
            return False
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        whole = not isinstance(node, ast.AugAssign)
        return any(_root(one) == name and not (whole and isinstance(one, ast.Name)) for one in targets)


def _root(node: ast.AST) -> str | None:
    while isinstance(node, (ast.Attribute, ast.Subscript)):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)


def used(text: str) -> list[str]:
    """Return the names that a source looks up outside itself."""
    tables = _tables(symtable.symtable(text, "<source>", "exec"))
    names = {s.get_name() for t in tables for s in t.get_symbols() if s.is_referenced() and s.is_global()}
    return sorted(names)


@lru_cache(4096)
def _bound(text: str) -> set[str]:
    symbols = symtable.symtable(text, "<source>", "exec").get_symbols()
    return {s.get_name() for s in symbols if s.is_assigned() or s.is_imported() or s.is_namespace()}


@lru_cache(64)
def _parsed(text: str) -> ast.Module:
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError):
        return ast.Module([], [])


def statements(texts: list[str]) -> list[Statement]:
    """Return the statements of some sources in their order; what is no Python is left out."""
    found = []
    for text in texts:
        for node in _parsed(text).body:
            if (cell := _cell_of_magic(node)) is not None:
                found += statements([cell])
            else:
                found.append(Statement(node, _lines(text, node)))
    return found


def _cell_of_magic(node: ast.stmt) -> str | None:
    """Return the Python below a cell's magic such as %%time, as IPython rewrites it."""
    call = getattr(node, "value", None)
    if not isinstance(call, ast.Call) or getattr(call.func, "attr", "") != "run_cell_magic":
        return None
    values = [part.value for part in call.args if isinstance(part, ast.Constant)]
    return values[2] if len(values) == 3 and values[0] in MAGICS else None


def _lines(text: str, node: ast.AST) -> str:
    if isinstance(node, ast.Lambda):
        return f"({ast.get_source_segment(text, node)})"
    first = min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])
    segment = ast.get_source_segment(text, node)
    if first == node.lineno and isinstance(node, ast.stmt) and not isinstance(node, Definition):
        return segment
    return textwrap.dedent("\n".join(text.splitlines()[first - 1 : node.end_lineno]))


def functions(value: Any) -> list[FunctionType]:
    """Return the functions of which a function or a class is made, without what dataclasses generate."""
    if not isinstance(value, type):
        function = inspect.unwrap(value)
        return [function] if isinstance(function, FunctionType) else []
    parts = [getattr(part, "fget", None) or getattr(part, "__func__", part) for part in vars(value).values()]
    found = [inspect.unwrap(part) for part in parts if callable(part)]
    inner = value.__qualname__ + "."
    return [
        part
        for part in found
        if isinstance(part, FunctionType)
        and part.__qualname__.startswith(inner)
        and part.__code__.co_filename != "<string>"
    ]


def source_lines(code: CodeType, space: Mapping[str, Any]) -> str:
    """Return the source that a code was compiled from; nothing where it is not to be had."""
    return "".join(linecache.getlines(code.co_filename, dict(space)))


def session(space: Mapping[str, Any]) -> list[str]:
    """Return the sources that made a module's names: a notebook's cells in their order, or a file, and the
    sources of its functions.
    """
    cells = space.get("In")
    file = space.get("__file__")
    texts = []
    if isinstance(file, str) and file.endswith(".py") and Path(file).is_file():
        texts.append("".join(linecache.getlines(file)))
    else:
        parts = [value for value in [*space.values()] if isinstance(value, (FunctionType, type))]
        codes = [f.__code__ for part in parts for f in functions(part) if f.__globals__ is space]
        texts += [source_lines(code, space) for code in {code.co_filename: code for code in codes}.values()]
    return texts + ([one for one in cells if isinstance(one, str)] if isinstance(cells, list) else [])


def definition(value: Any, made_by: list[Statement]) -> str | None:
    """Return the text that defines a function or a class, decorators included; of a lambda an expression."""
    name = getattr(value, "__qualname__", "").rpartition(".")[2]
    for function in functions(value):
        code, text = function.__code__, source_lines(function.__code__, function.__globals__)
        nodes = [node for node in ast.walk(_parsed(text)) if isinstance(node, Definition)]
        nodes = [node for node in nodes if getattr(node, "name", "<lambda>") == name]
        nodes = [node for node in nodes if _first(node) <= code.co_firstlineno <= node.end_lineno]
        if not isinstance(value, type):
            nodes = [node for node in nodes if _first(node) == code.co_firstlineno]
        if name == "<lambda>" and len(nodes) > 1:
            nodes = [node for node in nodes if (node.body.lineno, node.body.col_offset) == _start(code)]
        if len({_lines(text, node) for node in nodes}) == 1:
            return _lines(text, nodes[0])
    if name != getattr(value, "__qualname__", ""):
        return None
    own = [one for one in made_by if isinstance(one.node, Definition) and one.node.name == name]
    return own[-1].text if own else None


def _first(node: ast.AST) -> int:
    return min([node.lineno, *(one.lineno for one in getattr(node, "decorator_list", ()))])


def _start(code: CodeType) -> tuple[int, int] | None:
    """Return the line and the column where the body of a code begins."""
    places = ((line, column) for line, _, column, end in code.co_positions() if line and end)
    return min(places, default=None)


def scope(value: Any, home: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the names in a function's or a class's text mean: what it closes over, then globals, by
    default those of a `home`.
    """
    closed: dict[str, Any] = {}
    space = home
    for function in functions(value):
        space = function.__globals__
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name != "__class__":
                closed[name] = cell.cell_contents
    return ChainMap(closed, space)


def defers_annotations(value: Any) -> bool:
    """Tell whether annotations of a function or a class are kept as texts."""
    return any(f.__code__.co_flags & __future__.annotations.compiler_flag for f in functions(value))
