"""Where the axes of a program's sites lie: any program's draws come out as [draws, rows, plates, event]."""

import math
from dataclasses import dataclass
from typing import Any

from ppl_vae.backends.common.checks import check_latents
from ppl_vae.backends.common.site import Pair, Site
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions
from ppl_vae.shapes import BY_WEIGHTS


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout:
    """A program's sites.

    Attributes
    ----------
    depth : int
        Batch axes of the deepest site: draws are a plate left of them.
    latent, observed, factors : tuple of str
        Sites of the model.
    local : frozenset of str
        Sites in a plate over the rows, factors included.
    deterministic : tuple of str
        Latent sites for which the guide knows one value only.
    masked : frozenset of str
        Observed sites of which a mask leaves numbers out.
    axes : dict of str to tuple of int
        By site: its batch axes that are more than a placeholder, counted from the right, the rows first.
    plates : dict of str to tuple of str
        By site: the names of the plates among them.
    largest, latents, observations : int
        Numbers in one row of the largest site, of all latent sites and of all observed ones together.
    """

    depth: int
    latent: tuple[str, ...]
    observed: tuple[str, ...]
    factors: tuple[str, ...]
    local: frozenset[str]
    deterministic: tuple[str, ...]
    masked: frozenset[str]
    axes: dict[str, tuple[int, ...]]
    plates: dict[str, tuple[str, ...]]
    largest: int
    latents: int
    observations: int

    @property
    def shared(self) -> tuple[str, ...]:
        """All sites of the model outside the rows, which every row has in common."""
        return tuple(n for n in (*self.latent, *self.observed, *self.factors) if n not in self.local)

    @property
    def rows(self) -> str:
        """The name of the plate over the rows."""
        local = (name for name in (*self.latent, *self.observed) if name in self.local)
        return next((self.plates[name][0] for name in local), "data")

    @property
    def note(self) -> str:
        """Why one weight per row means nothing, or nothing."""
        for name in self.shared:
            return f"site {name!r} is global: log_weight is given the global draw, no weight by itself"
        for name in self.deterministic:
            return (
                f"site {name!r} has one value only in the guide: log_weight is a log joint density, no weight"
            )
        return ""

    def values(self, F: Functions, name: str, site: Site) -> Any:
        """Return a site's value as [draws (or 1), rows, plates, event]; a global one has no rows."""
        split = site.value.ndim - len(site.event_shape)
        event = tuple(site.value.shape[split:])
        batch = tuple(F.broadcast_shapes(tuple(site.value.shape[:split]), site.batch_shape))
        if len(batch) > self.depth + 1:
            why = f": {BY_WEIGHTS}" if self.shared else ""
            raise ProgramError(f"site {name!r} has batch shape {batch}, more than draws and rows{why}")
        full = (*(1,) * (self.depth + 1 - len(batch)), *batch)
        value = F.broadcast_to(site.value, (*batch, *event)).reshape(*full, *event)
        own = [self.depth + 1 + dim for dim in self.axes[name]]
        dropped = [axis for axis in range(1, self.depth + 1) if axis not in own]
        order = (0, *own, *dropped, *range(self.depth + 1, value.ndim))
        return F.permute(value, order).reshape(full[0], *(full[axis] for axis in own), *event)

    def restored(self, F: Functions, name: str, value: Any, alone: bool) -> Any:
        """Return what `values` gave in the shape that the program draws: [draws, batch axes, event]; `alone`:
        the only draw, without axes that the site does not have.
        """
        own = self.axes[name]
        # Names by distance from the right: the axes in ascending order, placeholders where the site has none.
        order = sorted(range(len(own)), key=lambda i: own[i])
        value = F.permute(value, (0, *(1 + i for i in order), *range(1 + len(own), value.ndim)))
        sizes = iter(value.shape[1 : 1 + len(own)])
        batch = [next(sizes) if dim in own else 1 for dim in range(-self.depth, 0)]
        lead = batch[self.depth + min(own, default=0) :] if alone else (value.shape[0], *batch)
        return value.reshape((*lead, *value.shape[1 + len(own) :]))

    def log_density(self, name: str, site: Site) -> Any:
        """Return a site's log density, masked, never scaled, [draws (or 1), rows]; [draws] if global."""
        value = site.log_density
        value = value.reshape(*(1,) * (self.depth + 1 - value.ndim), *value.shape)
        rows = value.shape[-1] if name in self.local else 1
        value = value.reshape(value.shape[0], -1, rows).sum(1)
        return value if name in self.local else value[..., 0]


def read(pair: Pair) -> Layout:
    """Return the layout of a run of guide and model on one row, made without a plate of draws.

    Raises
    ------
    ProgramError
        For latent sites that guide and model do not share, by name.
    """
    drawn, latent = pair.guide.latent, tuple(pair.model.latent)
    auxiliary = pair.guide.auxiliary
    check_latents(set(drawn) - auxiliary, set(latent))
    factors = tuple(name for name, site in pair.model.observed.items() if site.factor)
    observed = tuple(name for name in pair.model.observed if name not in factors)
    both = [*pair.model.items(), *pair.guide.items()]
    named = {name: pair.model[name] for name in (*latent, *observed)}
    sizes = {name: math.prod(site.value.shape) for name, site in named.items()}
    certain = () if auxiliary else tuple(name for name in latent if drawn[name].deterministic)
    return Layout(
        depth=max((max(len(site.batch_shape), *_distances(site), 1) for _, site in both), default=1),
        latent=latent,
        observed=observed,
        factors=factors,
        local=frozenset(name for name, site in both if site.local),
        deterministic=certain,
        masked=frozenset(name for name in observed if pair.model[name].masks),
        axes={name: _axes(site) for name, site in named.items()},
        plates={name: tuple(_distances(site).values()) for name, site in named.items()},
        largest=max(sizes.values(), default=1),
        latents=max(1, sum(sizes[name] for name in latent)),
        observations=sum(sizes[name] for name in observed),
    )


def _distances(site: Site) -> dict[int, str]:
    """Return the names of a site's plates by their distance from the right, 1 for the rows."""
    return dict(sorted((-plate.dim, plate.name) for plate in site.plates))


def _axes(site: Site) -> tuple[int, ...]:
    plates, batch = _distances(site), site.batch_shape
    free = [d for d in range(len(batch), 0, -1) if d not in plates and batch[-d] > 1]
    return tuple(-d for d in (*plates, *free))
