"""Sites of NumPyro's traces, and what NumPyro says about shapes in one line."""

import math
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array
from numpyro import handlers
from numpyro.distributions.kl import kl_divergence

from ppl_vae.backends.common import site as common
from ppl_vae.backends.common.site import Trace, under


class Site(common.Site):
    """A site of a NumPyro trace, whose distribution holds the mask."""

    intermediates: Any = None

    def _density(self) -> Array:
        extra = (self.intermediates,) if self.intermediates else ()
        return self.fn.log_prob(self.value, *extra)

    def closed_kl(self, prior: common.Site) -> Array | None:
        try:
            return kl_divergence(self.fn, prior.fn)
        except NotImplementedError:
            return None

    def _supported(self) -> Array:
        return jnp.asarray(self.inner.support(self.value))

    @property
    def masks(self) -> list[tuple[Any, Array]]:
        masked = [fn for fn in under(self.fn) if isinstance(fn, dist.MaskedDistribution)]
        return [(fn, jnp.asarray(fn._mask, bool)) for fn in masked if not isinstance(fn._mask, bool)]

    @property
    def validated(self) -> bool:
        return self.inner.__dict__.get("_validate_args") is not False

    @property
    def distribution(self) -> str:
        return super().distribution.removesuffix("Logits").removesuffix("Probs")


class Recorded(handlers.trace):
    """A function whose sites are recorded; refuses in the user's line what NumPyro stumbles over later."""

    def process_message(self, msg: dict[str, Any]) -> None:
        super().process_message(msg)
        if msg["type"] == "sample":
            common.refuse_odd_site(msg["name"], msg["fn"], msg["value"])
        elif msg["type"] == "plate" and msg["value"] is not None:
            size, part = msg["args"]
            common.refuse_other_rows(msg["name"], part or size, len(msg["value"]))


def trace_of(trace: Mapping[str, Mapping[str, Any]]) -> Trace:
    """Return the sample sites of a NumPyro trace, without its parameters, plates and deterministic values."""
    plates = {name: node["args"] for name, node in trace.items() if node["type"] == "plate"}
    factors = {name: size / part for name, (size, part) in plates.items() if part and part < size}
    return Trace({name: _site(node, factors) for name, node in trace.items() if node["type"] == "sample"})


def mutable(trace: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the networks' mutable state after a run, by site."""
    return {name: node["value"] for name, node in trace.items() if node["type"] == "mutable"}


def _site(node: Mapping[str, Any], factors: Mapping[str, float]) -> Site:
    frames = node["cond_indep_stack"]
    subsampling = math.prod(factors.get(frame.name, 1) for frame in frames)
    scale = 1.0 if node["scale"] is None else node["scale"]
    site = Site(**common.facts(node, frames, scale, subsampling))
    site.intermediates = node["intermediates"]
    return site


def broken_plate(error: BaseException) -> str | None:
    """Return in one line what site does not fit its plate; None for any other error."""
    frame, message = error.__traceback__, None
    while frame is not None:
        # NumPyro does not say which site it was: the plate's message does.
        if frame.tb_frame.f_code.co_name == "process_message":
            message = frame.tb_frame.f_locals.get("msg")
        frame = frame.tb_next
    if not isinstance(message, dict) or "Incompatible shapes for broadcasting" not in str(error):
        return None
    plate = message["cond_indep_stack"][-1]
    return (
        f"site {message['name']!r} has batch shape {tuple(message['fn'].batch_shape)} in the plate "
        f"{plate.name!r} of size {plate.size}: put every axis of one row into the event with "
        ".to_event(number of axes)"
    )
