"""What a distribution of the project's own is: declared once, adapted by each backend (`ppl.dist`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, ClassVar

Array = Any
Shape = tuple[int, ...]


class Distribution:
    """A distribution over arrays of any backend.

    Subclasses are dataclasses, frozen and compared by identity (`@dataclass(frozen=True, eq=False)`); their
    fields are the parameters. Methods other than those below that take `F` first, and properties, are there
    on the backend's distribution too, without the `F`. With a method `metrics(F)`, numbers by name, a guide's
    distribution tells about itself in every training step.

    Attributes
    ----------
    static : tuple of str
        Fields that are no arrays.
    event_dim : int
        Axes of one draw.
    parameter_dim : int or None
        Axes on the right of every array field that are no batch axes, those of the event first; None:
        `event_dim`.
    support : str
        Name of a constraint that torch and NumPyro share, or "" where `inside` tells.
    arg_constraints : dict of str to str
        Names of such constraints by field, checked where validation is on.
    discrete, reparametrised, deterministic : bool
        It is a probability mass; gradients pass through draws; all its draws are equal.
    """

    static: ClassVar[tuple[str, ...]] = ()
    event_dim: ClassVar[int] = 0
    parameter_dim: ClassVar[int | None] = None
    support: ClassVar[str] = ""
    arg_constraints: ClassVar[Mapping[str, str]] = {}
    discrete: ClassVar[bool] = False
    reparametrised: ClassVar[bool] = False
    deterministic: ClassVar[bool] = False

    @classmethod
    def array_fields(cls) -> tuple[str, ...]:
        """Return the names of the fields that are arrays."""
        return tuple(field.name for field in fields(cls) if field.name not in cls.static)

    @classmethod
    def static_fields(cls) -> tuple[str, ...]:
        """Return the names of the other fields."""
        return tuple(field.name for field in fields(cls) if field.name in cls.static)

    def shapes(self, F: Any) -> tuple[Shape, Shape]:
        """Return batch shape and event shape."""
        full = tuple(F.broadcast_shapes(*(getattr(self, name).shape for name in self.array_fields())))
        split = len(full) - self._inner
        return full[:split], full[split : split + self.event_dim]

    def expanded(self, F: Any, shape: Shape) -> "Distribution":
        """Return the distribution with a larger batch shape."""
        values = {name: getattr(self, name) for name in self.array_fields()}
        right = {name: value.shape[value.ndim - self._inner :] for name, value in values.items()}
        return replace(self, **{n: F.broadcast_to(v, (*shape, *right[n])) for n, v in values.items()})

    @property
    def _inner(self) -> int:
        return self.event_dim if self.parameter_dim is None else self.parameter_dim

    def inside(self, F: Any, value: Array) -> Array:
        """Tell which values lie in the support, where no name says."""
        raise NotImplementedError(f"{type(self).__name__} names no support")

    def log_prob(self, F: Any, value: Array) -> Array:
        """Return the log mass or log density in nats, [*batch]."""
        raise NotImplementedError

    def draw(self, F: Any, noise: Any, shape: Shape) -> Array:
        """Draw an array of the shape (sample axes, batch shape, event shape)."""
        raise NotImplementedError

    def mean(self, F: Any) -> Array:
        """Return the centre that a reconstruction shows, the mean if nothing else is said."""
        raise NotImplementedError


def alike(F: Any, *arrays: Array) -> list[Array]:
    """Return arrays repeated to one shape."""
    shape = F.broadcast_shapes(*(array.shape for array in arrays))
    return [F.broadcast_to(array, shape) for array in arrays]


CLOSED: dict[tuple[type, type], Callable] = {}


def closed_kl(q: type, p: type) -> Callable[[Callable], Callable]:
    """Register a function (F, q, p) as the closed form of KL(q || p), in nats."""

    def keep(function: Callable) -> Callable:
        CLOSED[q, p] = function
        return function

    return keep


def kl(F: Any, q: Distribution, p: Distribution) -> Array:
    """Return KL(q || p) in closed form.

    Raises
    ------
    NotImplementedError
        Where none is registered.
    """
    if (type(q), type(p)) not in CLOSED:
        raise NotImplementedError(f"no closed form of KL({type(q).__name__} || {type(p).__name__})")
    return CLOSED[type(q), type(p)](F, q, p)


def own_members(declared: type[Distribution], F: Any, instance: Callable) -> dict[str, Any]:
    """Return the properties and methods that a class adds to `Distribution`, for a backend's class.

    `instance` returns the declared distribution of the backend's one; methods lose the argument `F`.
    """
    added: dict[str, Any] = {}
    for owner in _added_classes(declared):
        for name, member in vars(owner).items():
            if name.startswith("_") or hasattr(Distribution, name) or isinstance(member, (str, tuple)):
                continue
            if isinstance(member, property):
                added[name] = property(_reader(name, instance), doc=member.__doc__)
            elif callable(member):
                added[name] = _method(name, F, instance, member.__doc__)
    return added


def _added_classes(declared: type[Distribution]) -> Sequence[type]:
    """Return the classes below `Distribution`, the most general first."""
    return [owner for owner in reversed(declared.__mro__) if issubclass(owner, Distribution)][1:]


def _reader(name: str, instance: Callable) -> Callable:
    return lambda self: getattr(instance(self), name)


def _method(name: str, F: Any, instance: Callable, doc: str | None) -> Callable:
    def method(self: Any, *arguments: Any) -> Any:
        return getattr(instance(self), name)(F, *arguments)

    method.__name__, method.__doc__ = name, doc
    return method
