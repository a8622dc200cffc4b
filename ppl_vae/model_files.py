"""Model files: read, executed, and looked through for the one program that each declares."""

import ast
import hashlib
import itertools
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

from ppl_vae import reading
from ppl_vae.declaration import undecorated
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.program import PlainProgram, Program

_ROLES = ("model", "guide")
_PREFIX = "ppl_vae_model_"  # of the names of modules
_counter = itertools.count()
_executed: dict[tuple[Path, str], type[Program] | Program] = {}


@dataclass(frozen=True)
class ModelSource:
    """Where a program comes from.

    Attributes
    ----------
    name : str
        The gallery name, or the name of the file without its ending.
    path : Path or None
        The file; None for a program of an interactive session.
    sha256 : str
        Of the file's bytes.
    text : str
        The source, to read.
    origin : str
        "gallery", "file", "session" for what was defined in Python and is written out with all that it uses,
        or "python" where that cannot be done.
    lacking : str
        What has no source, for origin "python".
    """

    name: str
    path: Path | None
    sha256: str
    text: str
    origin: str
    content: bytes = field(default=b"", repr=False, compare=False)
    lacking: str = field(default="", compare=False)

    def record(self) -> dict[str, str]:
        """Return what a run folder keeps: origin, name, sha256 and, of a user's file, the path."""
        record = {"origin": self.origin, "name": self.name, "sha256": self.sha256}
        if self.origin == "gallery" or self.path is None:
            return record
        return record | {"path": str(self.path.resolve())}


def read(path: Path, origin: str = "file", kind: str = "model") -> ModelSource:
    """Read a model file, or of another `kind`, without executing it.

    Raises
    ------
    UsageError
        Where there is no such file.
    ProgramError
        Where it cannot be read or is not text.
    """
    path = path.expanduser().absolute()
    if path.is_dir():
        raise UsageError(f"{path} is a folder: name the {kind} file in it")
    try:
        content = reading.whole(path)
        text = content.decode("utf-8")
    except FileNotFoundError:
        raise UsageError(f"there is no {kind} file {path}: check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ProgramError(f"cannot read {path} as a {kind} file: {error}") from None
    return ModelSource(path.stem, path, digest(content), text, origin, content)


def recorded_source(
    path: Path, record: Mapping[str, Any], run: str | Path | None, option: str, kind: str = "model"
) -> ModelSource:
    """Return a recorded file, where it lies outside the run folder and is still the same.

    Raises
    ------
    RunError
        Naming the `option` that gives another file, and the copy of this one in the run folder.
    """
    remedy = f"name the file with {option}"
    if run is not None:
        remedy += f" (a copy is {Path(run) / kind}.py)"
    if not path.is_absolute():
        raise RunError(f"the run records its {kind} by the relative path {path}: {remedy}")
    try:
        real = path.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a null character, links that go round
        raise RunError(f"the run records its {kind} by the path {str(path)!r} ({error}): {remedy}") from None
    if path != real:  # such as /proc/self/cwd/model.py, which is whatever lies here now
        raise RunError(f"the run records its {kind} by {path}, which leads to {real}: {remedy}")
    if run is not None and real.is_relative_to(Path(run).resolve()):
        raise RunError(
            f"the {kind} file {path} lies inside the run folder and is not executed unasked: {remedy}"
        )
    if not path.is_file():
        raise RunError(f"the run's {kind} file {path} is gone: {remedy}")
    model_source = read(path, kind=kind)
    if model_source.sha256 != record.get("sha256"):
        raise RunError(f"the {kind} file {path} has changed since the run: restore it, or {remedy}")
    return model_source


def digest(content: bytes) -> str:
    """Return the sha256 of a file's bytes."""
    return hashlib.sha256(content).hexdigest()


def declared(source: ModelSource) -> type[Program] | Program | PlainProgram:
    """Execute a model file and return what it declares: a class, or `program` as the file sets it.

    A file that declares a Program is executed once, and again only when it has changed. A file of plain
    functions is executed afresh each time: its networks are often globals, and two bound programs share none.
    """
    key = (source.path, source.sha256)
    if key not in _executed:
        program = _pick(execute(source), source)
        if not program.declared:
            return program
        _executed[key] = program
    return _executed[key]


def summary(source: ModelSource) -> tuple[str, tuple[str, ...]]:
    """Return the first line of a file's docstring and the backends that it runs on, without executing it."""
    try:
        tree = ast.parse(source.content)
    except (SyntaxError, ValueError) as error:
        return f"(cannot be read: {_one_line(error)})", ()
    line = (ast.get_docstring(tree) or "").partition("\n")[0]
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    if not classes:
        return line, tuple(_imported_backends(tree))
    return line, next(filter(None, map(_declared_backends, classes)), Program.backends)


def _declared_backends(node: ast.ClassDef) -> tuple[str, ...]:
    for one in node.body:
        targets = one.targets if isinstance(one, ast.Assign) else [getattr(one, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == "backends" for target in targets):
            try:
                return tuple(ast.literal_eval(one.value))
            except (ValueError, TypeError):
                return ()
    return ()


def execute(source: ModelSource) -> ModuleType:
    """Execute a file as a module of its own.

    Raises
    ------
    ProgramError
        Where it fails: with its line.
    """
    name = f"{_PREFIX}{re.sub(r'[^A-Za-z0-9_]', '_', source.name)}_{next(_counter)}"
    module = ModuleType(name)
    module.__file__ = str(source.path)
    sys.modules[name] = module  # before execution: dataclasses look their module up there
    try:
        exec(compile(source.content, str(source.path), "exec", dont_inherit=True), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        line = _line_of(error, source)
        place = f"{source.path}, line {line}" if line else str(source.path)
        raise ProgramError(f"{place}: {_one_line(error)}{_remedy(error)}") from error
    return module


def _line_of(error: BaseException, source: ModelSource) -> int | None:
    if isinstance(error, SyntaxError) and error.filename == str(source.path):
        return error.lineno
    frames = traceback.extract_tb(error.__traceback__)
    return next((frame.lineno for frame in reversed(frames) if frame.filename == str(source.path)), None)


def fault(error: BaseException) -> str | None:
    """Return the line of an executed file that an error comes through, and what it says; None of others."""
    where = place(error)
    return None if where is None else f"{where}: {_one_line(error)}"


def place(error: BaseException) -> str | None:
    """Return the file and line of an executed file that an error comes through; None of others."""
    files = {
        getattr(module, "__file__", None)
        for name, module in [*sys.modules.items()]
        if name.startswith(_PREFIX)
    }
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return f"{frame.filename}, line {frame.lineno}"
    return None


def _one_line(error: BaseException) -> str:
    said = error.msg if isinstance(error, SyntaxError) else str(error)
    return ": ".join(filter(None, [type(error).__name__, " ".join(said.split())]))


def _remedy(error: BaseException) -> str:
    if isinstance(error, ModuleNotFoundError) and error.name:
        if error.name.split(".")[0] in ("jax", "numpyro", "flax", "optax"):
            return " (install it with: pip install 'ppl-vae[numpyro]')"
        return " (install it, or put its folder on PYTHONPATH)"
    return ""


def _pick(module: ModuleType, source: ModelSource) -> type[Program] | Program | PlainProgram:
    """Return `program`, else the only public Program class, else the two functions."""
    space = vars(module)
    if "program" in space:
        return _checked(space["program"], source)
    classes = {
        one.__name__: one
        for name, one in space.items()
        if _is_program(one) and one.__module__ == module.__name__ and not name.startswith("_")
    }
    if len(classes) > 1:
        raise ProgramError(
            f"{source.path} declares {len(classes)} programs ({', '.join(classes)}): "
            f"say which is meant with a line such as program = {next(iter(classes))}"
        )
    if classes:
        return _checked(next(iter(classes.values())), source)
    return _plain(space, source)


def _is_program(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, Program) and value is not Program


def _checked(value: Any, source: ModelSource) -> type[Program] | Program | PlainProgram:
    """Refuse what is no program, and classes that lack a part that every program has."""
    if isinstance(value, PlainProgram):
        return value
    kind = value if isinstance(value, type) else type(value)
    if not _is_program(kind):
        raise ProgramError(f"{source.path}: `program` is a {kind.__name__}, not a Program")
    if remedy := undecorated(kind):
        raise ProgramError(f"{source.path}: {remedy}")
    for role in _ROLES:
        if getattr(kind, role) is getattr(Program, role):
            raise ProgramError(f"{source.path}: class {kind.__name__} has no {role}(self, ppl, net, ...)")
    return value


def _plain(space: Mapping[str, Any], source: ModelSource) -> PlainProgram:
    present = [role for role in _ROLES if callable(space.get(role))]
    if len(present) == 1:
        (missing,) = set(_ROLES) - set(present)
        raise ProgramError(f"{source.path} has a {present[0]} but no {missing}: add a function {missing}")
    if not present:
        raise ProgramError(
            f"{source.path} declares no program: write a class that inherits from ppl_vae.Program, "
            "or two functions, model and guide"
        )
    named = space.get("backend")
    backends = [named] if named in Program.backends else list(_imported_backends(ast.parse(source.content)))
    if len(backends) != 1:
        raise ProgramError(
            f"{source.path} imports {' and '.join(backends) or 'neither pyro nor numpyro'}: "
            'say which one its functions are written in with a line backend = "pyro" or backend = "numpyro"'
        )
    return PlainProgram(space["model"], space["guide"], source.name, backends[0])


def _imported_backends(tree: ast.AST) -> Iterator[str]:
    modules = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            modules.add((node.module or "").split(".")[0])
    return (backend for backend in Program.backends if backend in modules)
