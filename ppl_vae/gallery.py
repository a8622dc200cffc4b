"""Find, load and copy model files, scripts and recipes.

A name stands for the working folder's `models/NAME.py`, else for the file that the package brings along; a
path stands for itself. Scripts are looked up alike in `inference/`, recipes in `inference/recipes/`.
"""

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields as dataclass_fields
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import ppl_vae
from ppl_vae import checks, model_files, session
from ppl_vae.errors import PplVaeError, RunError, UsageError
from ppl_vae.model_files import ModelSource
from ppl_vae.program import PlainProgram, Program
from ppl_vae.store.disk import write
from ppl_vae.store.manifest import holds_run

_KINDS = {
    "model": ("models", ".py"),
    "script": ("inference", ".py"),
    "recipe": ("inference/recipes", ".yaml"),
}
_sources: WeakKeyDictionary = WeakKeyDictionary()  # a Program class or a PlainProgram -> its ModelSource


class Entry(NamedTuple):
    """A row of the gallery's table."""

    name: str
    summary: str
    backends: tuple[str, ...]
    origin: str


def packaged() -> Path:
    """Return the folder that holds the `models/` and `inference/` that belong to this package.

    In a checkout it is the checkout: a `_gallery` that an editable install left elsewhere is never used.
    """
    package = Path(ppl_vae.__file__).absolute().parent
    checkout = package.parent
    if (checkout / "models").is_dir() and (checkout / "pyproject.toml").is_file():
        return checkout
    return package / "_gallery"


def find(name_or_path: str | os.PathLike, kind: str = "model") -> Path:
    """Return the file that a name or path stands for.

    Parameters
    ----------
    name_or_path : str or path
        A text that ends like a file or contains a slash is a path, any other a name.
    kind : str
        "model", "script" or "recipe".

    Raises
    ------
    UsageError
        Where there is no such file; names that are close are listed.
    """
    text, ending = os.fspath(name_or_path), _KINDS[kind][1]
    if not isinstance(name_or_path, str) or text.endswith(ending) or "/" in text or os.sep in text:
        path = Path(text).expanduser().absolute()
        if path.is_file():
            return path
        raise UsageError(f"there is no {kind} file {text}" + (": it is a folder" if path.is_dir() else ""))
    known = _known(kind)
    if text not in known:
        hint = _hint(text, known)
        if Path(text + ending).is_file():
            hint = f": for the file of this folder write {text}{ending}"
        raise UsageError(f"unknown {kind} {text!r}{hint}")
    return known[text]


def source(name_or_path: str | os.PathLike) -> ModelSource:
    """Return a model file's name, path, hash and text without executing it."""
    path = find(name_or_path)
    by_name = path.stem == os.fspath(name_or_path)
    return model_files.read(path, "gallery" if by_name and _is_packaged(path) else "file")


def load(name_or_path: str | os.PathLike, /, **fields: Any) -> Program | PlainProgram:
    """Return the program of a model file.

    Parameters
    ----------
    name_or_path : str or path
        A gallery name or a file. The file declares one public Program class (or says which one with
        `program = ...`), or two functions `model` and `guide` of plain Pyro or NumPyro.
    **fields
        Values for the program's fields.

    Raises
    ------
    UsageError
        For an unknown name, an unknown field or a value that the program refuses.
    ProgramError
        For a file that fails, or that declares no program, several, or one without a guide.
    """
    return _made(source(name_or_path), fields)


def load_recorded(
    record: Mapping[str, Any],
    model_file: str | os.PathLike | None = None,
    *,
    fields: Mapping[str, Any] | None = None,
    run: str | os.PathLike | None = None,
) -> Program | PlainProgram:
    """Return the program that a run was trained with.

    Parameters
    ----------
    record : mapping
        What `ModelSource.record` gave when the run was made.
    model_file : path, optional
        The file to take instead, whatever the record says.
    fields : mapping, optional
        The program's fields as recorded.
    run : path, optional
        The run folder: a file in it is a copy to read and is not executed.

    Raises
    ------
    RunError
        Where the recorded file is gone, has changed or cannot be executed safely.
    """
    if model_file is not None:
        return _made(model_files.read(find(Path(model_file))), fields or {})
    name, origin, path = (str(record.get(key, "")) for key in ("name", "origin", "path"))
    if origin == "gallery":
        file = packaged() / "models" / f"{name}.py"
        if not re.fullmatch(r"\w[\w-]*", name) or not file.is_file():
            raise RunError(
                f"the run's model {name!r} is not in this gallery: name its file with model_file=..."
            )
        return _made(model_files.read(file, "gallery"), fields or {})
    if origin == session.ORIGIN:
        option = "model_file=..., or open_run(..., program=...)"
        kept = session.recorded(record, None if run is None else Path(run), "model", option)
        return _made(kept, fields or {})
    if origin != "file" or not path:
        raise RunError(
            f"the run's program {name!r} was defined in Python, not in a model file: "
            "name a file that declares it with model_file=..., or give it: open_run(..., program=...)"
        )
    return _made(model_files.recorded_source(Path(path), record, run, "model_file=..."), fields or {})


def source_of(program: Any) -> ModelSource:
    """Return where a program comes from: the file that `load` read, else a module of what defines it and of
    all that it uses.
    """
    kind = type(program) if program.declared else program
    if kind in _sources:
        return _sources[kind]
    if program.declared:
        return session.source(kind.__name__, {"program": program})
    name = getattr(program.model, "__name__", type(program.model).__name__)
    parts = {"backend": program.backend, "model": program.model, "guide": program.guide}
    return session.source(name, parts)


def names() -> list[Entry]:
    """Return the gallery's table: name, what it is, backends and where it lies. No model file is executed."""
    rows = []
    for name, path in sorted(_known("model").items()):
        origin = "gallery" if _is_packaged(path) else "file"
        try:
            rows.append(Entry(name, *model_files.summary(model_files.read(path, origin)), origin))
        except PplVaeError as error:
            rows.append(Entry(name, f"({error})", (), origin))
    return rows


def script(name: str | os.PathLike) -> Path:
    """Return the path of an inference script."""
    return find(name, "script")


def scripts() -> list[str]:
    """Return the names of the inference scripts."""
    return sorted(_known("script"))


def copy(name_or_path: str | os.PathLike, dest: str | os.PathLike) -> Path:
    """Copy a model, script or recipe to a folder or a new file, to be edited, and return the new file.

    Raises
    ------
    UsageError
        For an unknown name, and where the file exists or its folder does not: nothing is overwritten.
    RunError
        Where the disk is full or fails.
    """
    known = {kind: _known(kind) for kind in _KINDS}
    text = os.fspath(name_or_path)
    kind = next((kind for kind in known if text in known[kind] or text.endswith(_KINDS[kind][1])), "model")
    origin, target = find(name_or_path, kind), Path(dest).expanduser()
    if target.is_dir():
        target = target / origin.name
    if os.path.lexists(target):
        raise UsageError(f"{target} exists and is not overwritten: choose another name")
    return write(target, origin.read_bytes())


def _known(kind: str) -> dict[str, Path]:
    """Return the files of a kind by name; the working folder's come before the package's, unless it is (in) a
    run, whose files are read and not executed.
    """
    folder, ending = _KINDS[kind]
    paths: dict[str, Path] = {}
    here = Path.cwd()
    own = [] if any(map(holds_run, (here, *here.parents))) else [here]
    for root in (*own, packaged()):
        for path in sorted((root / folder).glob(f"*{ending}")):
            if not path.name.startswith(("_", ".")):
                paths.setdefault(path.stem, path)
    return paths


def _is_packaged(path: Path) -> bool:
    ours = packaged() / "models" / path.name
    return ours.is_file() and path.samefile(ours)


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=3)
    if close:
        return f": did you mean {' or '.join(close)}?"
    return f": choose one of {', '.join(sorted(known)) or '(none found)'}, or give a path to a file"


def _made(model_source: ModelSource, values: Mapping[str, Any]) -> Program | PlainProgram:
    """Execute the file and fill in the fields."""
    declared = model_files.declared(model_source)
    kind = declared if not declared.declared or isinstance(declared, type) else type(declared)
    _sources[kind] = model_source
    return filled(declared, values, model_source.name)


def filled(declared: Any, values: Mapping[str, Any], called: str) -> Program | PlainProgram:
    """Return a program with values for its fields."""
    plain = not declared.declared
    known = [] if plain else [one.name for one in dataclass_fields(declared) if one.init]
    for name in values:
        if name not in known:
            hint = checks.meant(name, known)
            raise UsageError(f"{called} has no field {name!r}: {hint} has {', '.join(known) or 'no fields'}")
    if plain:
        return declared
    try:
        return declared(**values) if isinstance(declared, type) else replace(declared, **values)
    except PplVaeError:
        raise
    except Exception as error:
        raise UsageError(f"{called}: {' '.join(str(error).split())}") from error
