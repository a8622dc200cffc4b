"""Objectives of a user's own file: `my.py:FreeBits(floor=0.5)`."""

from dataclasses import is_dataclass
from pathlib import Path
from weakref import WeakKeyDictionary

from ppl_vae import model_files
from ppl_vae.errors import ProgramError
from ppl_vae.model_files import ModelSource
from ppl_vae.objectives.base import Objective

_sources: WeakKeyDictionary[type, ModelSource] = WeakKeyDictionary()


def load(path: str, name: str) -> type[Objective]:
    """Execute a file and return its class of a name.

    Raises
    ------
    UsageError
        Where there is no such file.
    ProgramError
        For a file that fails, or that has no such frozen dataclass.
    """
    source = model_files.read(Path(path))
    kind = vars(model_files.execute(source)).get(name)
    if not (isinstance(kind, type) and issubclass(kind, Objective)):
        raise ProgramError(f"{path} has no class {name} that inherits from ppl_vae.Objective")
    if not is_dataclass(kind) or not kind.__dataclass_params__.frozen:
        raise ProgramError(f"{path}: put @dataclass(frozen=True) above class {name}")
    if kind.loss is Objective.loss:
        raise ProgramError(f"{path}: class {name} has no loss(self, F, terms, scalars)")
    _sources[kind] = source
    return kind


def source_of(kind: type[Objective]) -> ModelSource | None:
    """Return the file that `load` read an objective from; None for any other."""
    return _sources.get(kind)
