"""What a person defines in Python, in a notebook's cells say, as the source of a module that makes it again.

A run folder holds the module to read. It is executed from a copy that the user's own cache keeps, by the hash
of its content: what a received folder holds never runs unasked.
"""

import contextlib
import inspect
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ppl_vae import model_files
from ppl_vae.errors import PplVaeError, RunError
from ppl_vae.model_files import ModelSource
from ppl_vae.session.definitions import functions
from ppl_vae.session.writer import Lacking, Writer
from ppl_vae.store import disk

ORIGIN = "session"


def source(name: str, objects: Mapping[str, Any]) -> ModelSource:
    """Return the source of a module that gives objects their names, and `lacking` where it is not to be had.

    Parameters
    ----------
    name : str
        What to call it.
    objects : mapping
        Functions, classes and objects by the names that they get.
    """
    main = next(value for value in objects.values() if not isinstance(value, str))
    writer = Writer(_home(main))
    try:
        for one, value in objects.items():
            writer.add(one, value)
        text = writer.text()
        compile(text, name, "exec", dont_inherit=True)
    except (Lacking, RecursionError, SyntaxError, ValueError) as error:
        return replace(_alone(name, main), lacking=" ".join(str(error).split()))
    content = text.encode()
    return ModelSource(name, None, model_files.digest(content), text, ORIGIN, content)


def _home(value: Any) -> Mapping[str, Any]:
    """Return the names of the module that an object, or what it is of, was defined in; of a library's object
    those of the session, for it is imported.
    """
    value = getattr(value, "func", getattr(value, "__func__", value))
    part = value if functions_of(value) or isinstance(value, type) else type(value)
    found = functions_of(part)
    space = found[0].__globals__ if found else vars(inspect.getmodule(part) or sys)
    file, name = str(space.get("__file__", "")), str(space.get("__name__", ""))
    installed = "site-packages" in file or name.partition(".")[0] in ("ppl_vae", *sys.stdlib_module_names)
    return vars(sys.modules["__main__"]) if installed and name != "__main__" else space


def functions_of(value: Any) -> list[Any]:
    """Return the functions of which something is made; none where it is an object."""
    return functions(value) if callable(value) else []


def _alone(name: str, value: Any) -> ModelSource:
    """Return the source of a function or a class without what it uses: to read."""
    value = getattr(value, "func", value)
    part = value if isinstance(value, type) or functions_of(value) else type(value)
    try:
        text, file = inspect.getsource(part), inspect.getsourcefile(part)
    except (OSError, TypeError):
        text, file = "", None
    path = Path(file).absolute() if file and Path(file).is_file() else None
    return ModelSource(name, path, model_files.digest(text.encode()), text, "python")


def keep(source: ModelSource) -> None:
    """Keep the source of a session in the user's cache, from where it is executed; without one that can be
    written to, a run asks for its program.
    """
    if source.origin != ORIGIN:
        return
    path = kept(source.sha256)
    with contextlib.suppress(OSError, PplVaeError):
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write(path, source.content)


def kept(sha256: str) -> Path:
    """Return the place of a source in the user's cache, by its hash."""
    import pooch

    return Path(pooch.os_cache("ppl_vae")) / "sources" / f"{sha256}.py"


def recorded(record: Mapping[str, Any], run: Path | None, kind: str, option: str) -> ModelSource:
    """Return a source of a run, of which the user's cache has a copy.

    Raises
    ------
    RunError
        Where it has none, as on another machine, with the `option` that gives it.
    """
    name, sha256 = str(record.get("name", "")), str(record.get("sha256", ""))
    copy = f" (a copy to read is {run / kind}.py)" if run is not None else ""
    if re.fullmatch("[0-9a-f]{64}", sha256) and (path := kept(sha256)).is_file():
        found = model_files.read(path, ORIGIN, kind)
        if found.sha256 == sha256:
            return replace(found, name=name)
    raise RunError(
        f"the run's {kind} {name!r} was defined in a session whose source this machine does not keep: "
        f"give it with {option}{copy}"
    )
