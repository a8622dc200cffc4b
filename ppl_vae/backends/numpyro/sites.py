"""Sites of a NumPyro trace as plain arrays, and what NumPyro says about shapes in plain words."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpyro.distributions as dist
from jax import Array

from ppl_vae.backends.numpyro.terms import is_latent_or_observed

WRAPPERS = (dist.Independent, dist.MaskedDistribution, dist.ExpandedDistribution)


def log_density(node: Mapping[str, Any]) -> Array:
    """Return a site's log density with its mask and with scale 1."""
    extra = (node["intermediates"],) if node["intermediates"] else ()
    return node["fn"].log_prob(node["value"], *extra)


def taken_apart(trace: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict], dict[str, dict]]:
    """Return the arrays of each sample site, for a compiled function to return, and what else is known of it.

    Both together are the fields of `ppl_vae.contract.probe.Site`.
    """
    nodes = {name: node for name, node in trace.items() if is_latent_or_observed(node)}
    known = {name: _known(node) for name, node in nodes.items()}
    arrays = {
        name: {"value": jnp.asarray(node["value"]), "supported": _supported(node)}
        for name, node in nodes.items()
    }
    for name, node in nodes.items():
        arrays[name]["log_prob"], known[name]["error"] = _log_prob(node)
    return arrays, known


def _known(node: Mapping[str, Any]) -> dict[str, Any]:
    fn, inner = node["fn"], _inner(node["fn"])
    return {
        "name": node["name"],
        "distribution": type(inner).__name__,
        "observed": bool(node["is_observed"]),
        "factor": isinstance(inner, dist.Unit),
        "plates": {frame.name: frame.dim for frame in node["cond_indep_stack"]},
        "batch_shape": tuple(fn.batch_shape),
        "event_shape": tuple(fn.event_shape),
        "levels": getattr(inner, "levels", None),
        "reparametrised": bool(fn.has_rsample),
        "enumerated": bool(node["infer"].get("enumerate")),
        "deterministic": bool(getattr(inner, "deterministic", False)) or isinstance(inner, dist.Delta),
    }


def broken_plate(error: BaseException) -> str | None:
    """Return in plain words what site does not fit its plate; None for any other error."""
    frame, message = error.__traceback__, None
    while frame is not None:
        # NumPyro does not say which site it was: the plate's message does.
        message = (
            frame.tb_frame.f_locals.get("msg")
            if frame.tb_frame.f_code.co_name == "process_message"
            else message
        )
        frame = frame.tb_next
    if not isinstance(message, dict) or "Incompatible shapes for broadcasting" not in str(error):
        return None
    plate = message["cond_indep_stack"][-1]
    return (
        f"site {message['name']!r} has batch shape {tuple(message['fn'].batch_shape)} in the plate "
        f"{plate.name!r} of size {plate.size}: put every axis of one row into the event with "
        ".to_event(number of axes)"
    )


def _inner(fn: Any) -> Any:
    """Return the distribution under `to_event`, `mask` and `expand`."""
    while isinstance(fn, WRAPPERS):
        fn = fn.base_dist
    return fn


def _log_prob(node: Mapping[str, Any]) -> tuple[Array | None, str]:
    try:
        return log_density(node), ""
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        return None, f"log_prob fails ({type(error).__name__}: {lines[0]})"


def _supported(node: Mapping[str, Any]) -> Array | None:
    """Return which entries of a value lie in the support, or are masked away; None if unknown."""
    fn, inner = node["fn"], _inner(node["fn"])
    try:
        found = jnp.asarray(inner.support(node["value"]))
        while isinstance(fn, WRAPPERS):
            if isinstance(fn, dist.MaskedDistribution) and not isinstance(fn._mask, bool):
                inside = len(fn.event_shape) - len(inner.event_shape)
                mask = jnp.asarray(fn._mask, bool)
                found = found | ~mask.reshape(mask.shape + (1,) * inside)
            fn = fn.base_dist
        return found
    except (NotImplementedError, ValueError, AttributeError, TypeError):
        return None
