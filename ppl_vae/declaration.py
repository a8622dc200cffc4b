"""What a declared program and a declared network have in common: fields that are sizes and names."""

import inspect
from collections.abc import Iterable
from dataclasses import fields
from typing import Any, ClassVar

from ppl_vae import annotations, checks
from ppl_vae.errors import UsageError


class Declaration:
    """A frozen dataclass whose fields are what their annotations say: lists become tuples, and whole numbers
    are sizes of at least 1.

    Attributes
    ----------
    from_zero : tuple of str
        The fields whose whole numbers may be 0.
    """

    from_zero: ClassVar[tuple[str, ...]] = ()

    def __new__(cls, *args: Any, **options: Any) -> Any:
        """Raise UsageError for an option that is no field."""
        refuse_unknown(cls, options)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (list, tuple)):
                object.__setattr__(self, field.name, _tuples(value))
            if field.name not in self.from_zero:
                _check_sizes(field.name, value)
        annotations.check(self)

    def require(self, holds: bool, remedy: str) -> None:
        """Raise UsageError for a value of a field, in `__post_init__`."""
        if not holds:
            raise UsageError(f"{type(self).__name__}: {remedy}")


def refuse_unknown(kind: type, options: Iterable[str]) -> None:
    """Raise UsageError for an option that a class is not made with."""
    taken = inspect.signature(kind.__init__).parameters.values()
    if not any(one.kind is one.VAR_KEYWORD for one in taken):
        checks.options(kind.__name__, options, [one.name for one in taken][1:])


def undecorated(kind: type) -> str:
    """Return the remedy for a class that is no frozen dataclass; nothing for one that is."""
    if "__dataclass_fields__" not in vars(kind):
        return f"put @dataclass(frozen=True) above class {kind.__name__}"
    return (
        "" if kind.__dataclass_params__.frozen else f"class {kind.__name__} must be @dataclass(frozen=True)"
    )


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


def _check_sizes(name: str, value: Any) -> None:
    if isinstance(value, bool) or value is None:
        return
    if isinstance(value, int) and value < 1:
        raise UsageError(f"{name}={value}: a size must be at least 1")
    if isinstance(value, (tuple, list)):
        for item in value:
            _check_sizes(name, item)
