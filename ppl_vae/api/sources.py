"""Sources that a run folder holds: of its model, and of an objective and a learning rate of a user's."""

import logging
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ppl_vae import gallery, likelihoods, model_files, objectives, schedules, session
from ppl_vae.api import settings
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.model_files import ModelSource
from ppl_vae.program import PlainProgram, Program
from ppl_vae.store import RunFolder, as_yaml

LOG = logging.getLogger(__name__)


def program_record(program: Program | PlainProgram) -> dict[str, Any]:
    """Return what is recorded of a program."""
    source = gallery.source_of(program)
    if not program.declared:
        return {"program": source.record(), "model": {}}
    values = {field.name: getattr(program, field.name) for field in fields(program)}
    own = source.origin == session.ORIGIN
    return {
        "program": source.record(),
        "model": {name: _field(value, own) for name, value in values.items()},
    }


def _field(value: Any, own: bool) -> Any:
    """Return a program's field as it is recorded: a likelihood of the library's as the text that names it,
    an object that the program's source makes as the name of its class.
    """
    if type(value) in likelihoods.KNOWN.values():
        return str(value)
    if own:
        try:
            as_yaml(value)
        except UsageError:
            return f"<{type(value).__name__}>"
    return value


def objective_source(objective: Any) -> ModelSource | None:
    """Return the source of an objective; None for one that its text makes again."""
    if (source := objectives.source_of(type(objective))) is not None:
        return source
    text = settings.objective_text(objective)
    if type(objective) in objectives.OBJECTIVES.values() and "<" not in text:
        return None
    if type(objective).__module__.partition(".")[0] in ("pyro", "numpyro"):
        return None
    return session.source(text, {"objective": objective})


def schedule_source(lr: Any) -> ModelSource | None:
    """Return the source of a learning rate; None for one that its text makes again."""
    text = schedules.text_of(lr)
    return session.source(text, {"schedule": lr}) if is_object(text) and not isinstance(lr, str) else None


def is_object(value: Any) -> bool:
    """Tell whether a recorded value stands for an object, which has no text."""
    return isinstance(value, str) and value.startswith("<")


def recorded(source: ModelSource | None) -> dict[str, str] | None:
    """Return what is recorded of a source that is to be had."""
    return None if source is None or source.lacking else source.record()


def made(record: Mapping[str, Any], run: Path, kind: str, option: str) -> Any:
    """Return the object of a user's session that a run records."""
    module = model_files.execute(session.recorded(record, run, kind, option))
    return vars(module)[kind]


def keep(sources: Mapping[str, ModelSource], place: str | Path, otherwise: str = "") -> None:
    """Keep sources for a run folder that is about to be written; `otherwise` is a further remedy.

    Raises
    ------
    UsageError
        For an objective or a learning rate that nothing can make again; a program is warned of, for it can be
        given.
    """
    for kind, source in sources.items():
        if source.lacking and kind != "model":
            raise UsageError(
                f"{place} cannot hold the {kind} {source.name} ({source.lacking}): define it, and what it "
                f"uses, at the top level of a file or cell{otherwise}"
            )
    for source in sources.values():
        session.keep(source)
        if source.lacking:
            LOG.warning(
                "%s does not keep the source of %s (%s): open it with open_run(..., program=...)",
                place, source.name, source.lacking,
            )  # fmt: skip


def texts(sources: Mapping[str, ModelSource]) -> dict[str, bytes]:
    """Return the files of sources, to read."""
    return {
        f"{kind}.py": source.text.encode()
        for kind, source in sources.items()
        if kind == "model" or not source.lacking
    }


def refuse_without_checkpoint(folder: RunFolder) -> None:
    """Raise RunError for a run that was saved from memory."""
    if not any(name.startswith("state.") for name in folder.names()):
        raise RunError(
            f"{folder.path} holds a run without a checkpoint, as Run.save writes one from memory: it can be "
            "opened, not gone on with (train with out=... for that)"
        )


def given_program(given: Any, recorded_fields: Mapping[str, Any], backend: str) -> Program | PlainProgram:
    """Return a program of the user's for a run: what it leaves open is as the run records it."""
    if isinstance(given, tuple) and len(given) == 2:
        return PlainProgram(*given, backend=backend)
    whole = isinstance(given, (str, Path, type))
    program = settings.program_of(given)
    settings.check_backend(program, backend)
    if program.declared:
        values = {n: v for n, v in recorded_fields.items() if whole or getattr(program, n, v) is None}
        return gallery.filled(program, values, type(program).__name__)
    if recorded_fields:
        raise ProgramError(f"the run has a declared Program, and {program.name} is a pair of functions")
    return program
