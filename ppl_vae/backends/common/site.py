"""Sample sites and traces, the same for every backend. Arrays are the backend's."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

from ppl_vae.errors import PplVaeError, ProgramError
from ppl_vae.faults import Fault

ROWS_DIM = -1  # of the plate over the rows of a batch
PARTICLES = "particles"  # the plate of several draws per row, left of the program's own axes
UNKNOWN = (NotImplementedError, RuntimeError, ValueError, AttributeError, TypeError)  # of a support
WRAPPERS = {"Independent", "MaskedDistribution", "ExpandedDistribution"}  # the names of both libraries


class Plate(NamedTuple):
    """A plate around a site: its axis `dim` of the batch shape, counted from the right, and the entries at
    hand; -1 where it takes any number.
    """

    name: str
    dim: int
    size: int


@dataclass(eq=False)
class Site:
    """One sample site of a trace. A backend's subclass knows how its distributions score.

    Attributes
    ----------
    name : str
    fn : Any
        The backend's distribution.
    value : array
        [*batch, *event].
    observed : bool
        Its value was given. A factor is observed.
    plates : tuple of Plate
    scale : float or array
        The factor that handlers put on the log density, without that of subsampled plates.
    subsampling : float
        Rows of all plates over the rows at hand, by which libraries scale a site up.
    enumerated, auxiliary, marginal : bool
        Summed out; of the guide alone; its density is what is left once other sites are summed out.
    apart : frozenset of str
        Plates in the place of that over the rows which are others.
    """

    name: str
    fn: Any
    value: Any
    observed: bool
    plates: tuple[Plate, ...]
    scale: Any = 1.0
    subsampling: float = 1.0
    enumerated: bool = False
    auxiliary: bool = False
    marginal: bool = False
    apart: frozenset[str] = frozenset()

    def _density(self) -> Any:
        """Return the log density of the value, masked, with scale 1."""
        raise NotImplementedError

    def closed_kl(self, prior: "Site") -> Any | None:
        """Return KL(self || prior) in closed form, masked, scale 1, [*batch]; None where none is known."""
        raise NotImplementedError

    def _supported(self) -> Any:
        """Tell which entries of the value lie in the support of `inner`."""
        raise NotImplementedError

    def inside(self) -> Any | None:
        """Tell which entries of the value lie in the support or are masked; None where that is unknown."""
        try:
            inside = self._supported()
            for owner, mask in self.masks:
                within = len(owner.event_shape) - len(self.inner.event_shape)
                inside = inside | ~mask.reshape(tuple(mask.shape) + (1,) * within)
            return inside
        except UNKNOWN:
            return None

    def supports(self, value: Any) -> Any | None:
        """Tell which entries of another value lie in the support; None where that is unknown."""
        try:
            return replace(self, value=value)._supported()
        except UNKNOWN:
            return None

    @property
    def masks(self) -> list[tuple[Any, Any]]:
        """Distributions whose entries are left out, each with the array of bool that says so."""
        raise NotImplementedError

    def numbers(self) -> Any:
        """Return how many numbers of a draw its density counts for a row: `dims`, or without those masked."""
        if not self.masks:
            return self.dims
        counted = self.value == self.value
        for owner, mask in self.masks:
            counted = counted & mask.reshape(tuple(mask.shape) + (1,) * len(owner.event_shape))
        batch = counted.shape[: counted.ndim - len(self.event_shape)]
        return self.summed(counted.reshape((*batch, -1)).sum(-1))

    @property
    def validated(self) -> bool:
        """Its distribution checks its values."""
        raise NotImplementedError

    @cached_property
    def inner(self) -> Any:
        """The distribution under `to_event`, `mask` and `expand`."""
        return under(self.fn)[-1]

    @cached_property
    def log_density(self) -> Any:
        """The log density of the value in nats, masked, with scale 1, [*batch]."""
        try:
            return self._density()
        except PplVaeError:
            raise
        except Exception as error:
            where = f"batch shape {self.batch_shape}, event shape {self.event_shape}"
            who = f"the log density of site {self.name!r} ({self.distribution}, {where})"
            raise Fault(f"{who} at values of shape {tuple(self.value.shape)}", error) from error

    @property
    def log_prob(self) -> Any:
        """The log density in nats, masked, under the scale that handlers ask for, [*batch]."""
        return self.scaled(self.log_density)

    def scaled(self, term: Any) -> Any:
        """Return a term under the scale that handlers ask for."""
        return term if isinstance(self.scale, (int, float)) and self.scale == 1 else term * self.scale

    @property
    def distribution(self) -> str:
        """The name of the distribution's kind."""
        return type(self.inner).__name__

    @property
    def local(self) -> bool:
        """It lies in a plate over the rows."""
        return any(self._over_rows(plate) for plate in self.plates)

    def _over_rows(self, plate: Plate) -> bool:
        return plate.dim == ROWS_DIM and plate.name not in self.apart

    @property
    def further(self) -> list[Plate]:
        """The plates that are neither over the rows nor over particles."""
        return [p for p in self.plates if p.name != PARTICLES and not self._over_rows(p)]

    def summed(self, value: Any) -> Any:
        """Return numbers, [*batch], summed over the further plates."""
        axes = [plate.dim for plate in self.further]
        if ROWS_DIM in axes:
            value = value.sum(-1)[..., None]
        left = tuple(axis for axis in axes if axis != ROWS_DIM)
        return value.sum(left) if left else value

    @property
    def factor(self) -> bool:
        """It is a number added to the log density, no draw."""
        return self.distribution == "Unit"

    @property
    def batch_shape(self) -> tuple[int, ...]:
        """Sizes of the plates' axes."""
        return tuple(self.log_density.shape if self.marginal else self.fn.batch_shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one draw."""
        return tuple(self.fn.event_shape)

    @property
    def dims(self) -> int:
        """Numbers in one draw for a row: in all entries of the further plates."""
        return max(1, math.prod((*self.event_shape, *(max(plate.size, 1) for plate in self.further))))

    @property
    def deterministic(self) -> bool:
        """It can draw one value only."""
        return bool(getattr(self.inner, "deterministic", False)) or self.distribution == "Delta"

    @property
    def discrete(self) -> bool:
        """Its distribution is a probability mass, not a density."""
        return bool(self.inner.support.is_discrete)

    @property
    def reparametrised(self) -> bool:
        """Gradients pass through its draws."""
        return bool(self.fn.has_rsample)

    @property
    def levels(self) -> int | None:
        """Grey levels that the distribution counts."""
        return getattr(self.inner, "levels", None)

    def metrics(self) -> Mapping[str, Any]:
        """Return numbers that the distribution reports of itself."""
        return self.inner.metrics() if hasattr(self.inner, "metrics") else {}


def under(fn: Any) -> list[Any]:
    """Return a distribution and those under `to_event`, `mask` and `expand`, the innermost last."""
    layers = [fn]
    while not WRAPPERS.isdisjoint(kind.__name__ for kind in type(layers[-1]).__mro__):
        layers.append(layers[-1].base_dist)
    return layers


def refuse_other_rows(plate: str, entries: int, rows: int) -> None:
    """Refuse a plate of the model with fewer entries than the guide's of its name, which replace them."""
    if entries < rows:
        raise ProgramError(
            f"the plate {plate!r} has {rows} rows in the guide and {entries} in the model: give both the "
            "rows of the batch"
        )


def refuse_odd_site(name: str, fn: Any, value: Any) -> None:
    """Refuse what is no distribution, or no array of values."""
    if not hasattr(fn, "event_shape"):
        raise ProgramError(f"site {name!r} takes a distribution, no {type(fn).__name__}")
    if value is not None and not hasattr(value, "shape"):
        raise ProgramError(f"site {name!r} observes an array, no {type(value).__name__}")


def facts(node: Mapping[str, Any], frames: Sequence[Any], scale: Any, subsampling: float) -> dict[str, Any]:
    """Return the fields of `Site` that a node of either library's trace has under the same names; `frames`
    are its plates, `scale` is with that of subsampled ones.
    """
    return {
        "name": node["name"],
        "fn": node["fn"],
        "value": node["value"],
        "observed": bool(node["is_observed"]),
        "plates": tuple(Plate(frame.name, frame.dim, frame.size) for frame in frames),
        "scale": scale if subsampling == 1 else scale / subsampling,
        "subsampling": subsampling,
        "enumerated": bool(node["infer"].get("enumerate")),
        "auxiliary": bool(node["infer"].get("is_auxiliary")),
    }


class Trace(dict[str, Site]):
    """Sites by name, in the order in which they were drawn."""

    @property
    def latent(self) -> "Trace":
        """The sites that were drawn."""
        return Trace({name: site for name, site in self.items() if not site.observed})

    @property
    def observed(self) -> "Trace":
        """The sites whose value was given, factors included."""
        return Trace({name: site for name, site in self.items() if site.observed})

    @property
    def auxiliary(self) -> frozenset[str]:
        """Sites of a guide that are no latents of the model: what autoguides make their latents of."""
        return frozenset(name for name, site in self.latent.items() if site.auxiliary)

    @property
    def local(self) -> "Trace":
        """The sites in a plate over the rows."""
        return Trace({name: site for name, site in self.items() if site.local})

    @property
    def drawn(self) -> dict[str, Any]:
        """The values of the latent sites."""
        return {name: site.value for name, site in self.latent.items()}


@dataclass(frozen=True, eq=False)
class Pair:
    """One run of the guide, and one of the model at the guide's draws.

    Attributes
    ----------
    guide, model : Trace
    again : callable
        Takes a role and what to stop, "parameters" or "draws": runs guide or model once more at the same
        draws, with either the parameters or the draws as constants. Statistics stay as they are.
    state : Any
        The networks' mutable state after both, where a backend hands it on.
    """

    guide: Trace
    model: Trace
    again: Callable[[str, str], Trace]
    state: Any = None
