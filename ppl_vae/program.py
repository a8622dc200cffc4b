"""What a declared model is.

A Program is a frozen dataclass with three methods: `networks`, `model` and `guide`. It holds sizes and names,
never tensors, and binds to a backend with `ppl_vae.bind`.

Axes, from left to right, of every array that a program sees:

    particles   samples of the guide for one datum (leftmost; absent with one particle)
    data        the rows of the batch: the plate "data", dim -1 of every batch shape
    event       what one site draws for one datum: latent vectors, C x H x W images, code grids

Networks of ppl_vae keep every leading axis as it is, so that the same network serves one sample and many; a
module of the library's own gets particles folded into the rows.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, NamedTuple

from ppl_vae import annotations
from ppl_vae.declaration import Declaration
from ppl_vae.errors import DataError, ProgramError, UsageError

_SKIPPED = ("self", "ppl", "net", "n")


class Program(Declaration):
    """A variational autoencoder as a model, a guide and the networks that both use.

    Subclasses are frozen dataclasses. A field `<name>_shape` that is None is filled in from the data's field
    `<name>`.

    Attributes
    ----------
    backends : tuple of str
        The backends that can run the program. A program whose networks exist on one side only says so here.
    """

    backends: ClassVar[tuple[str, ...]] = ("pyro", "numpyro")
    declared: ClassVar[bool] = True  # and no pair of plain functions

    def networks(self, nn: Any) -> dict[str, Any]:
        """Return the networks by name (an empty dict where there are none).

        Each is a `Network`, a layer of the backend's `nn`, a learned array (`nn.Parameter`), a module of the
        backend's own library (the program then runs on that backend alone), or a list of such, of lists too.
        """
        return {}

    def model(self, ppl: Any, net: Any, **data: Any) -> None:
        """Draw latents and score data; data is None when drawing from the prior. Abstract."""
        raise NotImplementedError(f"{type(self).__name__} declares no model(self, ppl, net, ...)")

    def guide(self, ppl: Any, net: Any, **data: Any) -> None:
        """Approximate the posterior of every latent site of `model`, given the data. Abstract."""
        raise NotImplementedError(f"{type(self).__name__} declares no guide(self, ppl, net, ...)")

    def schedules(self) -> dict[str, Any]:
        """Return what changes with the step, by name: numbers, schedules or their texts.

        Model and guide read the present value as `ppl.scalar(name)`.
        """
        return {}

    def adapted_to(self, data: Any) -> "Program":
        """Fill in what the program leaves open from the data.

        Parameters
        ----------
        data : ppl_vae.data.Data
            Anything with `fields` and `shape(field)`.

        Raises
        ------
        DataError
            Where a shape that the program fixes is not the data's.
        """
        changes = {}
        for field in fields(self):
            name, shape = field.name.removesuffix("_shape"), None
            if not field.name.endswith("_shape") or name not in data.fields:
                continue
            declared, shape = getattr(self, field.name), tuple(data.shape(name))
            if declared is None:
                changes[field.name] = shape
            elif tuple(declared) != shape:
                raise DataError(
                    f"the data's {name} has shape {shape} per row, the program was made for {tuple(declared)}"
                )
        try:
            return replace(self, **changes)
        except UsageError:
            kinds = annotations.types(type(self))
            for name, shape in changes.items():
                if not annotations.matches(shape, kinds[name]):
                    takes = f"{type(self).__name__} takes {name}: {annotations.words(kinds[name])}"
                    of = f"the data's {name.removesuffix('_shape')} has shape {shape} per row"
                    raise DataError(f"{of}, and {takes}: reshape the data") from None
            raise

    def refuse_open(self) -> None:
        """Raise DataError while a shape is open."""
        for field in fields(self):
            if field.name.endswith("_shape") and getattr(self, field.name) is None:
                name = field.name.removesuffix("_shape")
                raise DataError(
                    f"{type(self).__name__} needs data with a field {name!r}, or a given {field.name}"
                )

    @staticmethod
    def num_classes(data: Any, name: str) -> int:
        """Return how many classes an integer field of the data has, for `adapted_to`.

        Raises
        ------
        DataError
            Where it is missing, negative or not whole.
        """
        refuse_lacking([name], data.fields)
        values = data.raw("train")[name]
        if values.dtype.kind not in "biu" or values.min() < 0:
            raise DataError(f"the field {name!r} holds no classes: give whole numbers from 0 on")
        getattr(data, "counted", set()).add(name)
        return int(values.max()) + 1

    def filled(self, **makers: Callable[[], Any]) -> "Program":
        """Return the program with each named field that is None set to what its maker returns."""
        return replace(self, **{name: make() for name, make in makers.items() if getattr(self, name) is None})


def needed(program: Program) -> list[str]:
    """Return the data fields without which a program's guide cannot run."""
    parameters = _parameters(program, "guide").items()
    return [name for name, parameter in parameters if parameter.default is parameter.empty]


def _column(field: str) -> str:
    option = {"y": "label", "batch": "batch", "mask": "mask"}.get(field)
    return f", or name the column of a table with {option}=..." if option else ""


def refuse_lacking(names: Iterable[str], fields: Sequence[str]) -> None:
    """Raise DataError where data lacks one of the fields of some names."""
    for name in names:
        if name not in fields:
            raise DataError(
                f"the program needs a field {name!r}, the data has {', '.join(fields)}: "
                f"give an .npz or a dict of arrays that holds {name} too{_column(name)}"
            )


def refuse_missing(program: Program, batch: Mapping[str, Any], latents: Sequence[str]) -> None:
    """Raise DataError where the guide is to draw global latents and the batch lacks a field that it needs."""
    for name in needed(program):
        if name not in batch:
            raise DataError(
                f"{', '.join(latents)} come from the guide, which needs {name!r}: give it as a covariate"
            )


@dataclass(frozen=True)
class PlainProgram:
    """Two functions of plain Pyro or plain NumPyro, taken as they are.

    Attributes
    ----------
    model, guide : callable
        Take the batch's arrays as arguments, both the same.
    name : str
        What to call the program in results.
    backend : str
        "pyro" or "numpyro".
    """

    model: Callable
    guide: Callable
    name: str = "plain"
    backend: str = "pyro"
    declared: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for role in ("model", "guide"):
            if not callable(getattr(self, role)):
                raise ProgramError(f"{self.name}: `{role}` is not a function")

    @property
    def backends(self) -> tuple[str, ...]:
        """The one backend that the functions are written in."""
        return (self.backend,)

    def schedules(self) -> dict[str, Any]:
        """Return nothing: plain functions have no scalars by name."""
        return {}


def taken(program: Program, role: str) -> tuple[str, ...]:
    """Return the names of the data fields that `model` or `guide` declares as parameters."""
    return tuple(_parameters(program, role))


def data_fields(program: Program) -> tuple[str, ...]:
    """Return the names of the data fields that a program uses, those of its model first; refuses `*args`."""
    names: dict[str, None] = {}
    for role in ("model", "guide"):
        for name, parameter in _parameters(program, role).items():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise ProgramError(
                    f"{type(program).__name__}.{role} takes *{name}: "
                    "name the data fields that it uses one by one"
                )
            names[name] = None
    return tuple(names)


def required(program: Program, role: str) -> tuple[str, ...]:
    """Return the data fields that `model` or `guide` does not run without."""
    parameters = _parameters(program, role).items()
    return tuple(name for name, parameter in parameters if parameter.default is parameter.empty)


def _parameters(program: Program, role: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(getattr(program, role)).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in _SKIPPED}


class Arguments(NamedTuple):
    """The data fields that two plain functions take, in their order.

    Attributes
    ----------
    positional : tuple of str
        Passed by position, whatever the parameters are called.
    named : tuple of str
        Passed by name: they come after a parameter that keeps its default.
    """

    positional: tuple[str, ...] = ()
    named: tuple[str, ...] = ()


def arguments(program: PlainProgram, fields: tuple[str, ...]) -> Arguments:
    """Return the data fields that a plain model, and with it the guide, is called with.

    Its parameters of fields' names, and "x" for a first parameter of any other name.

    Raises
    ------
    ProgramError
        Where the model needs something else, or the guide cannot be called with the same.
    """
    positional, named, skipped = [], [], False
    parameters = inspect.signature(program.model).parameters
    for position, parameter in enumerate(parameters.values()):
        optional = parameter.default is not parameter.empty
        optional |= parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        unnamed = position == 0 and parameter.name not in fields and "x" not in parameters
        field = "x" if unnamed else parameter.name
        if field in fields:
            (named if skipped or parameter.kind is parameter.KEYWORD_ONLY else positional).append(field)
        elif optional:
            skipped = True
        else:
            listed = ", ".join(fields)
            raise ProgramError(
                f"{program.name}: the model needs {parameter.name!r}: the data has the fields {listed}"
            )
    try:
        inspect.signature(program.guide).bind(*positional, **dict.fromkeys(named))
    except TypeError as error:
        raise ProgramError(
            f"{program.name}: model and guide are called with the same fields, "
            f"{', '.join(positional + named)}, and the guide does not take them ({error})"
        ) from None
    return Arguments(tuple(positional), tuple(named))
