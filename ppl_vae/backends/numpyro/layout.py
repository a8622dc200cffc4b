"""Where the axes of a program's sites lie: any program's draws come out as [draws, rows, plates, event]."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
from jax import Array, ShapeDtypeStruct
from numpyro.distributions import Delta, Unit

from ppl_vae.backends.numpyro.distributions import Codebook
from ppl_vae.backends.numpyro.sites import log_density
from ppl_vae.backends.numpyro.terms import Trace, base, is_latent_or_observed, is_local
from ppl_vae.diagnostics.drawn import Sites, check_shared
from ppl_vae.errors import ProgramError

Site = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout(Sites):
    """A program's sites, of which one trace holds one draw: draws are mapped over whole traces.

    Attributes
    ----------
    shapes : dict of str to ShapeDtypeStruct
        By latent site: what `values` returns for one row.
    raw : dict of str to ShapeDtypeStruct
        By site outside the rows: the value as it is drawn.
    """

    shapes: dict[str, ShapeDtypeStruct] = field(default_factory=dict)
    raw: dict[str, ShapeDtypeStruct] = field(default_factory=dict)

    def values(self, name: str, site: Site) -> Array:
        """Return a site's value as [rows, plates, event]; a global one has no rows."""
        value, fn = jnp.asarray(site["value"]), site["fn"]
        split = value.ndim - len(fn.event_shape)
        batch, event = jnp.broadcast_shapes(value.shape[:split], fn.batch_shape), value.shape[split:]
        kept = [len(batch) + dim for dim in self.kept[name]]
        dropped = [axis for axis in range(len(batch)) if axis not in kept]
        if any(batch[axis] != 1 for axis in dropped):
            raise ProgramError(f"site {name!r} has batch shape {batch}: is a .to_event missing?")
        value = jnp.broadcast_to(value, (*batch, *event))
        value = value.transpose(*kept, *dropped, *range(len(batch), value.ndim))
        return value.reshape(*(batch[axis] for axis in kept), *event)

    def codes(self, name: str, site: Site) -> Array | None:
        """Return the numbers of a codebook's vectors, [rows, plates, grid]; None for other sites."""
        fn = base(site["fn"])
        return fn.nearest(self.values(name, site)) if isinstance(fn, Codebook) else None

    def restored(self, name: str, value: Array) -> Array:
        """Return what `values` gave in the shape that the program draws: [batch axes, event]."""
        kept = self.kept[name]
        order = sorted(range(len(kept)), key=lambda i: kept[i])
        value = value.transpose(*order, *range(len(kept), value.ndim))
        sizes = iter(value.shape[: len(kept)])
        batch = [next(sizes) if dim in kept else 1 for dim in range(min(kept, default=0), 0)]
        return value.reshape(*batch, *value.shape[len(kept) :])

    def log_prob(self, name: str, site: Site) -> Array:
        """Return a site's log density, masked, never scaled, [rows]; one number if global."""
        value = log_density(site)
        return value.reshape(-1, value.shape[-1]).sum(0) if name in self.local else value.sum()


def read(guide: Trace, model: Trace) -> Layout:
    """Return the layout of a pair of traces of one row.

    Raises
    ------
    ProgramError
        For latent sites that guide and model do not share, by name.
    """
    inner = {name: site for name, site in guide.items() if is_latent_or_observed(site)}
    drawn = {name: site for name, site in inner.items() if not site["is_observed"]}
    auxiliary = {name for name, site in drawn.items() if site["infer"].get("is_auxiliary")}
    sites = {name: site for name, site in model.items() if is_latent_or_observed(site)}
    latent = tuple(name for name, site in sites.items() if not site["is_observed"])
    check_shared(set(latent), set(drawn) - auxiliary)
    given = [name for name in sites if name not in latent]
    factors = tuple(name for name in given if isinstance(base(sites[name]["fn"]), Unit))
    observed = tuple(name for name in given if name not in factors)
    named = (*latent, *observed)
    size = {name: math.prod(jnp.shape(sites[name]["value"])) for name in named}
    layout = Layout(
        latent=latent,
        observed=observed,
        factors=factors,
        local=frozenset(name for name, site in (*sites.items(), *inner.items()) if is_local(site)),
        deterministic=() if auxiliary else tuple(name for name in latent if _is_certain(drawn[name])),
        kept={name: _kept(sites[name]) for name in named},
        plates={name: tuple(plate for _, plate in _plates(sites[name])) for name in named},
        largest=max(size.values(), default=1),
        latents=max(1, sum(size[name] for name in latent)),
    )
    layout.shapes.update({name: _form(layout.values(name, sites[name])) for name in latent})
    outside = (name for name in layout.shared if name not in factors)
    layout.raw.update({name: _form(jnp.asarray(sites[name]["value"])) for name in outside})
    return layout


def _form(value: Array) -> ShapeDtypeStruct:
    return ShapeDtypeStruct(value.shape, value.dtype)


def _plates(site: Site) -> list[tuple[int, str]]:
    """Return the distance from the right, 1 for the rows, and the name of a site's plates."""
    return sorted((-frame.dim, frame.name) for frame in site["cond_indep_stack"])


def _kept(site: Site) -> tuple[int, ...]:
    plates, batch = [distance for distance, _ in _plates(site)], tuple(site["fn"].batch_shape)
    free = [d for d in range(len(batch), 0, -1) if d not in plates and batch[-d] > 1]
    return tuple(-d for d in (*plates, *free))


def _is_certain(site: Site) -> bool:
    return isinstance(base(site["fn"]), Delta) or getattr(base(site["fn"]), "deterministic", False)
