"""Sites of Pyro's traces, and what Pyro says about shapes in one line."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import pyro.distributions as dist
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from pyro.poutine.trace_messenger import TraceHandler, TraceMessenger
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae.backends.common import site as common
from ppl_vae.backends.common.site import Trace, under

MISMATCH = re.compile(r"Shape mismatch inside plate\('(.*)'\) at site (\S+) dim (-?\d+), (\d+) vs (\d+)")


class Site(common.Site):
    """A site of a Pyro trace; `mask` is what handlers ask for."""

    mask: Any = None

    def _density(self) -> Tensor:
        return scale_and_mask(self.fn.log_prob(self.value), 1.0, self.mask)

    def closed_kl(self, prior: common.Site) -> Tensor | None:
        try:
            return scale_and_mask(kl_divergence(self.fn, prior.fn), 1.0, self.mask)
        except NotImplementedError:
            return None

    def _supported(self) -> Tensor:
        return self.inner.support.check(self.value)

    @property
    def masks(self) -> list[tuple[Any, Tensor]]:
        masked = (fn for fn in under(self.fn) if isinstance(fn, dist.MaskedDistribution))
        masks = [(self.fn, self.mask), *((fn, fn._mask) for fn in masked)]
        return [(owner, mask.bool()) for owner, mask in masks if isinstance(mask, Tensor)]

    @property
    def validated(self) -> bool:
        return getattr(self.inner, "_validate_args", False)


class _Recording(TraceMessenger):
    """Refuses in the user's own line what Pyro stumbles over later."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if not poutine.util.site_is_subsample(msg):
            common.refuse_odd_site(msg["name"], msg["fn"], msg["value"])
        elif msg["value"] is not None:
            # len() would make a number of rows that stands for any a certain one.
            entries = msg["fn"].subsample_size or msg["fn"].size
            common.refuse_other_rows(msg["name"], entries, msg["value"].shape[0])


class Recorded(TraceHandler):
    """A function whose sites are recorded; Pyro's own handler adds the shapes of all sites to an error."""

    def __init__(self, function: Callable[..., Any]):
        super().__init__(_Recording(), function)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self.msngr:
            return self.fn(*args, **kwargs)


def trace_of(trace: poutine.Trace) -> Trace:
    """Return the sample sites of a Pyro trace, without those of plates and deterministic values."""
    return Trace({name: _site(node) for name, node in trace.nodes.items() if _is_site(node)})


def _is_site(node: Mapping[str, Any]) -> bool:
    return (
        node["type"] == "sample"
        and not poutine.util.site_is_subsample(node)
        and not node["infer"].get("_deterministic", False)
    )


def _site(node: Mapping[str, Any]) -> Site:
    frames = [frame for frame in node["cond_indep_stack"] if frame.vectorized]
    site = Site(**common.facts(node, frames, node["scale"], _subsampling(frames)))
    site.mask = node["mask"]
    return site


def _subsampling(frames: list[Any]) -> float:
    # Equal sizes are left out, not divided: in a captured graph they are one symbol.
    scaled = [frame for frame in frames if frame.full_size and frame.full_size != frame.size]
    return math.prod(frame.full_size / frame.size for frame in scaled)


def fixed(values: Mapping[str, Tensor]) -> poutine.Trace:
    """Return a trace for `poutine.replay` that gives sites these values."""
    trace = poutine.Trace()
    for name, value in values.items():
        trace.add_node(name, name=name, type="sample", is_observed=False, value=value, infer={})
    return trace


def broken_plate(error: BaseException) -> str | None:
    """Return in one line what site does not fit its plate; None for any other error."""
    match = MISMATCH.search(str(error)) if isinstance(error, ValueError) else None
    if match is None:
        return None
    plate, site, _, size, other = match.groups()
    return (
        f"site {site!r} has {other} numbers in the place of the {size} of the plate {plate!r}: put every "
        "axis of one row into the event with .to_event(number of axes)"
    )
