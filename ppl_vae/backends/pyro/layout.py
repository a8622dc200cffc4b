"""Where the axes of a program's sites lie: any program's draws come out as [draws, rows, plates, event]."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pyro import poutine
from pyro.distributions import Delta, Unit
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ppl_vae.backends.pyro.distributions import Codebook
from ppl_vae.backends.pyro.terms import base, is_latent_or_observed, is_local
from ppl_vae.diagnostics.drawn import Sites, check_shared
from ppl_vae.errors import ProgramError

Site = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class Layout(Sites):
    """A program's sites.

    Attributes
    ----------
    depth : int
        Batch axes of the deepest site: draws are a plate left of them.
    """

    depth: int

    def values(self, name: str, site: Site) -> Tensor:
        """Return a site's value as [draws (or 1), rows, plates, event]; a global one has no rows."""
        value, fn = site["value"], site["fn"]
        split = value.ndim - fn.event_dim
        event = value.shape[split:]
        batch = torch.broadcast_shapes(value.shape[:split], fn.batch_shape)
        return self._ordered(name, value.expand(*batch, *event), batch, event)

    def codes(self, name: str, site: Site) -> Tensor | None:
        """Return the numbers of a codebook's vectors, [draws, rows, plates, grid]; None for other sites."""
        fn = base(site["fn"])
        return fn.nearest(self.values(name, site)) if isinstance(fn, Codebook) else None

    def _ordered(self, name: str, value: Tensor, batch: torch.Size, event: torch.Size) -> Tensor:
        if len(batch) > self.depth + 1:
            raise ProgramError(f"site {name!r} has batch shape {tuple(batch)}: is a .to_event missing?")
        full = (*(1,) * (self.depth + 1 - len(batch)), *batch)
        value = value.reshape(*full, *event)
        kept = [self.depth + 1 + dim for dim in self.kept[name]]
        dropped = [axis for axis in range(1, self.depth + 1) if axis not in kept]
        order = (0, *kept, *dropped, *range(self.depth + 1, value.ndim))
        return value.permute(order).reshape(full[0], *(full[axis] for axis in kept), *event)

    def restored(self, name: str, value: Tensor) -> Tensor:
        """Return what `values` gave in the shape that the program draws: [draws, batch axes, event]."""
        kept = self.kept[name]
        # Names by distance from the right: the axes in ascending order, placeholders where the site has none.
        order = sorted(range(len(kept)), key=lambda i: kept[i])
        value = value.permute(0, *(1 + i for i in order), *range(1 + len(kept), value.ndim))
        sizes = iter(value.shape[1 : 1 + len(kept)])
        batch = [next(sizes) if dim in kept else 1 for dim in range(-self.depth, 0)]
        return value.reshape(value.shape[0], *batch, *value.shape[1 + len(kept) :])

    def alone(self, name: str, value: Tensor) -> Tensor:
        """Return the only draw of what `restored` gave, without axes that the site does not have."""
        absent = self.depth + min(self.kept[name], default=0)
        return value.reshape(value.shape[1 + absent :])

    def log_prob(self, name: str, site: Site) -> Tensor:
        """Return a site's log density, masked, never scaled, [draws (or 1), rows]; one a draw if global."""
        value = scale_and_mask(site["fn"].log_prob(site["value"]), 1.0, site["mask"])
        value = value.reshape(*(1,) * (self.depth + 1 - value.ndim), *value.shape)
        rows = value.shape[-1] if name in self.local else 1
        value = value.reshape(value.shape[0], -1, rows).sum(1)
        return value if name in self.local else value.squeeze(-1)


def read(guide: poutine.Trace, model: poutine.Trace) -> Layout:
    """Return the layout of a pair of traces, made without a plate of draws.

    Raises
    ------
    ProgramError
        For latent sites that guide and model do not share, by name.
    """
    inner = {name: site for name, site in guide.nodes.items() if is_latent_or_observed(site)}
    drawn = {name: site for name, site in inner.items() if not site["is_observed"]}
    auxiliary = {name for name, site in drawn.items() if site["infer"].get("is_auxiliary")}
    sites = {name: site for name, site in model.nodes.items() if is_latent_or_observed(site)}
    latent = tuple(name for name, site in sites.items() if not site["is_observed"])
    check_shared(set(latent), set(drawn) - auxiliary)
    given = [name for name in sites if name not in latent]
    factors = tuple(name for name in given if isinstance(base(sites[name]["fn"]), Unit))
    observed = tuple(name for name in given if name not in factors)
    both = [*sites.items(), *inner.items()]
    depth = max((max(len(site["fn"].batch_shape), *_plates(site), 1) for _, site in both), default=1)
    named = (*latent, *observed)
    return Layout(
        depth=depth,
        latent=latent,
        observed=observed,
        factors=factors,
        local=frozenset(name for name, site in both if is_local(site)),
        deterministic=() if auxiliary else tuple(name for name in latent if _is_certain(drawn[name])),
        kept={name: _kept(sites[name]) for name in named},
        plates={name: _names(sites[name]) for name in named},
        largest=max((sites[name]["value"].numel() for name in named), default=1),
        latents=max(1, sum(sites[name]["value"].numel() for name in latent)),
    )


def _plates(site: Site) -> dict[int, str]:
    """Return the names of a site's plates by their distance from the right, 1 for the rows."""
    return {-frame.dim: frame.name for frame in site["cond_indep_stack"] if frame.vectorized}


def _names(site: Site) -> tuple[str, ...]:
    plates = _plates(site)
    return tuple(plates[distance] for distance in sorted(plates))


def _kept(site: Site) -> tuple[int, ...]:
    plates, batch = _plates(site), tuple(site["fn"].batch_shape)
    free = [d for d in range(len(batch), 0, -1) if d not in plates and batch[-d] > 1]
    return tuple(-d for d in (*sorted(plates), *free))


def _is_certain(site: Site) -> bool:
    return isinstance(base(site["fn"]), Delta) or getattr(base(site["fn"]), "deterministic", False)
