"""Sites of a Pyro trace as plain arrays, and what Pyro says about shapes in plain words."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyro.distributions as dist
from pyro.distributions.util import scale_and_mask
from torch import Tensor

from ppl_vae.contract.probe import Site

WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)
MISMATCH = re.compile(r"Shape mismatch inside plate\('(.*)'\) at site (\S+) dim (-?\d+), (\d+) vs (\d+)")


def log_density(node: Mapping[str, Any]) -> Tensor:
    """Return a site's log density with its mask and with scale 1."""
    return scale_and_mask(node["fn"].log_prob(node["value"]), 1.0, node["mask"])


def site_of(node: Mapping[str, Any]) -> Site:
    """Return a sample site of a trace as arrays."""
    fn, inner = node["fn"], _inner(node["fn"])
    log_prob, error = _log_prob(node)
    return Site(
        name=node["name"],
        distribution=type(inner).__name__,
        observed=node["is_observed"],
        factor=isinstance(inner, dist.Unit),
        plates={frame.name: frame.dim for frame in node["cond_indep_stack"] if frame.vectorized},
        batch_shape=tuple(fn.batch_shape),
        event_shape=tuple(fn.event_shape),
        value=_host(node["value"]),
        log_prob=log_prob,
        error=error,
        supported=_supported(node),
        levels=getattr(inner, "levels", None),
        reparametrised=bool(fn.has_rsample),
        enumerated=bool(node["infer"].get("enumerate")),
        deterministic=bool(getattr(inner, "deterministic", False)) or isinstance(inner, dist.Delta),
    )


def broken_plate(error: BaseException) -> str | None:
    """Return in plain words what site does not fit its plate; None for any other error."""
    found = MISMATCH.search(str(error)) if isinstance(error, ValueError) else None
    if found is None:
        return None
    plate, site, _, size, other = found.groups()
    return (
        f"site {site!r} has {other} numbers in the place of the {size} of the plate {plate!r}: put every "
        "axis of one row into the event with .to_event(number of axes)"
    )


def _inner(fn: Any) -> Any:
    """Return the distribution under `to_event`, `mask` and `expand`."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn


def _log_prob(node: Mapping[str, Any]) -> tuple[np.ndarray | None, str]:
    try:
        return _host(log_density(node)), ""
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return None, f"log_prob fails ({type(error).__name__}: {lines[0]})"


def _supported(node: Mapping[str, Any]) -> np.ndarray | None:
    """Return which entries of a value lie in the support, or are masked away; None if unknown."""
    fn, inner = node["fn"], _inner(node["fn"])
    try:
        found = inner.support.check(node["value"])
        masks = [(fn, node["mask"])]
        while isinstance(fn, WRAPPERS):
            if isinstance(fn, dist.MaskedDistribution):
                masks.append((fn, fn._mask))
            fn = fn.base_dist
        for owner, mask in masks:
            if isinstance(mask, Tensor):
                inside = len(owner.event_shape) - len(inner.event_shape)
                found = found | ~mask.bool().reshape(mask.shape + (1,) * inside)
        return _host(found)
    except (NotImplementedError, RuntimeError, AttributeError, TypeError):
        return None


def _host(value: Tensor) -> np.ndarray:
    return value.detach().cpu().numpy().copy()
