"""How a program is trained, checked and resolved once, before any data is read."""

import inspect
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass, replace
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae import checks, gallery, likelihoods, objectives
from ppl_vae.backends import NAMES
from ppl_vae.backends import backend as backend_named
from ppl_vae.closures import library_of
from ppl_vae.data import Data, of
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.objectives import ELBO
from ppl_vae.options import COMPILE, Training
from ppl_vae.program import PlainProgram, Program

TRAINING = tuple(field.name for field in fields(Training))
GUESSED = ("max_plate_nesting",)  # by a stock ELBO at its first step, if it was not given


@dataclass(frozen=True)
class Settings:
    """All that `fit` and `ppl-vae train` take besides program and data."""

    objective: Any  # of ppl_vae, a stock ELBO or a callable
    training: Training
    backend: str
    compile: str = "auto"
    batch_size_given: bool = True

    @classmethod
    def of(
        cls,
        program: Program | PlainProgram,
        objective: Any = None,
        backend: str | None = None,
        compile: str = "auto",
        **training: Any,
    ) -> "Settings":
        """Check what was asked for a program and fill in what was not."""
        checks.options("fit", training, TRAINING, _elsewhere(program, objective))
        given = training.get("batch_size") is not None
        options = Training(**training if given else {**training, "batch_size": Training.batch_size})
        backend = backend or program.backends[0]
        check_backend(program, backend)
        check_compile(compile, backend)
        objective = make_objective(ELBO() if objective is None else objective, backend)
        return cls(objective, options, backend, compile, given)

    def for_rows(self, count: int) -> "Settings":
        """Return the settings for so many rows: batches that nobody gave a size are no larger, and are shared
        out evenly.
        """
        if self.batch_size_given or self.training.batch_size <= count:
            return self
        size = max(count - count % self.training.devices, 1)
        return replace(self, training=replace(self.training, batch_size=size))


def _elsewhere(program: Program | PlainProgram, objective: Any) -> dict[str, str]:
    """Return how options of the data and fields of the program and of the objective are given, by name."""
    kinds = [*reversed(objectives.OBJECTIVES.values()), type(objective)]
    owners = [kind for kind in kinds if is_dataclass(kind)]
    found = {name: f"data.of(..., {name}=...)" for name in of.__kwdefaults__ if name not in TRAINING}
    found |= {field.name: f"{kind.__name__}({field.name}=...)" for kind in owners for field in fields(kind)}
    if not program.declared:
        return found
    source, made = gallery.source_of(program), f"{type(program).__name__}("
    if source.origin != "python":
        made = f"load({source.name if source.origin == 'gallery' else str(source.path)!r}, "
    return found | {field.name: f"{made}{field.name}=...)" for field in fields(program)}


def program_of(given: Any, backend: str | None = None) -> Program | PlainProgram:
    """Return a program from what a user may give: itself, its class, (model, guide), a name or a path.

    A pair of functions is of the library that they name, where that is one; else of the backend asked for.
    """
    if isinstance(given, (str, Path)):
        return gallery.load(given)
    if isinstance(given, tuple) and len(given) == 2:
        library = library_of(*given, among=NAMES)
        return PlainProgram(*given, backend=library or backend or PlainProgram.backend)
    if isinstance(given, type) and issubclass(given, Program):
        return given()
    if not isinstance(given, (Program, PlainProgram)):
        raise ProgramError(
            f"{given!r} is no program: give a Program, a pair (model, guide), or a name or path"
        )
    return given


def check_backend(program: Program | PlainProgram, backend: str) -> None:
    """Refuse a program that has no twin on a backend."""
    checks.one_of("backend", backend, NAMES)
    if backend not in program.backends:
        name = getattr(program, "name", type(program).__name__)
        raise UsageError(
            f"{name} runs on {', '.join(program.backends)} only: choose backend={program.backends[0]!r}"
        )


def check_compile(compile: str, backend: str) -> None:
    """Refuse an unknown choice, and one that a backend does not have."""
    checks.one_of("compile", compile, COMPILE)
    if (backend, compile) == ("numpyro", "off"):
        raise UsageError("compile='off': NumPyro always compiles, leave it away")


def settle_binarize(program: Program | PlainProgram, data: Data, backend: str) -> Data:
    """Decide what "auto" means: new bits at every step for a Bernoulli on grey levels, else none."""
    if data.binarize != "auto":
        return data
    bits = False
    if data.levels is not None and data.levels > 2:
        named = getattr(program, "likelihood", None)
        bits = likelihoods.takes(named) == "bits" if named else _observes_bits(program, data, backend)
    return data.under("dynamic" if bits else "none")


def _observes_bits(program: Program | PlainProgram, data: Data, backend: str) -> bool:
    """Return whether the model observes x as bits; False for one that fails, which training tells."""
    if not program.declared:
        return False
    kinds: list[str] = []

    def look(tracer: Any, batch: Any) -> None:
        site = tracer.model(batch).observed.get("x")
        kinds.append(type(site.inner).__name__ if site else "")

    with suppress(Exception):
        bound = backend_named(backend).bind(program.adapted_to(data))
        rows = {name: values[:2] for name, values in data.raw("train").items() if name in bound.fields}
        with bound.passes(0) as passes:
            passes.described(look, rows | {"x": np.round(rows["x"])})
    return bool(kinds) and likelihoods.of_distribution(kinds[0]).takes == "bits"


def make_objective(value: Any, backend: str) -> Any:
    """Return an objective from its text form, or as it is.

    Raises
    ------
    UsageError
        For an unknown name or option.
    """
    if isinstance(value, type):
        if not issubclass(value, objectives.Objective):
            raise UsageError(f"the objective {value.__name__} is a class: give an object, {value.__name__}()")
        return objectives.make(value)
    if not isinstance(value, str):
        return value
    if not objectives.names_stock(value):
        return objectives.parse(value)
    name, options = objectives.parts(value)
    for key, given in options.items():
        if isinstance(given, str) or (key == "num_particles" and given < 1):
            raise UsageError(f"objective {value!r}: {key}={given} is not a number that it can be made with")
    kind = backend_named(backend).stock_objective(name)
    checks.options(name, options, inspect.signature(kind).parameters)
    try:
        return kind(**options)
    except (TypeError, ValueError) as error:
        raise UsageError(f"objective {value!r}: {error}") from None


def objective_text(objective: Any) -> str:
    """Return an objective in the text form that `make_objective` reads (for a callable, its name)."""
    if isinstance(objective, objectives.Objective):
        return objectives.objective_text(objective)
    module = type(objective).__module__.split(".")[0]
    if module in ("pyro", "numpyro"):
        return objectives.text_of(f"{module}.infer.{type(objective).__name__}", _changed(objective))
    return getattr(objective, "__qualname__", type(objective).__qualname__)


def _changed(objective: Any) -> dict[str, Any]:
    """Return the numbers and truth values of a stock ELBO that are not its defaults."""
    taken = inspect.signature(type(objective).__init__).parameters.values()
    given = {p.name: (getattr(objective, p.name, p.default), p.default) for p in taken}
    return {
        name: value
        for name, (value, default) in given.items()
        if isinstance(value, Real) and value != default and name not in GUESSED
    }
