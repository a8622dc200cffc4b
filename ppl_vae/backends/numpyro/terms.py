"""The terms of the bound, per datum and per site, from one trace of the guide and one of the model."""

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, random
from numpyro import handlers
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import scale_and_mask

from ppl_vae import likelihoods, objectives
from ppl_vae.errors import ProgramError

PARTICLES = "particles"
Trace = dict[str, dict[str, Any]]


@dataclass
class ELBOTerms:
    """Terms of the bound, in nats. With P particles every per-datum term has shape [P, B], else [B].

    Attributes
    ----------
    log_likelihood : Array
        Sum over the observed sites.
    kl : dict of str to Array
        By local site: closed form where one is registered (and asked for), else log q - log p at the sample.
    kl_global : dict of str to Array
        By site outside the plate "data", summed over the whole data set: [] or [P].
    auxiliary : dict of str to Array
        Guide factors, such as the commitment of a VQ guide. Not part of a reported bound.
    metrics : dict of str to Array
        Numbers that a guide's distributions tell about themselves.
    """

    log_likelihood: Array
    kl: dict[str, Array] = field(default_factory=dict)
    kl_global: dict[str, Array] = field(default_factory=dict)
    auxiliary: dict[str, Array] = field(default_factory=dict)
    metrics: dict[str, Array] = field(default_factory=dict)


class Traces(NamedTuple):
    """The guide's trace, the model's trace that replays it, and the mutable state after both."""

    guide: Trace
    model: Trace
    state: dict[str, Any]


def traces(
    bound: Any,
    batch: Mapping[str, Array],
    key: Array,
    particles: int = 1,
    params: Mapping[str, Any] | None = None,
    state: Mapping[str, Any] | None = None,
) -> Traces:
    """Run guide and model once, purely; several particles are a plate left of "data".

    Parameters
    ----------
    bound : Bound or PlainBound
    batch : dict of str to array
    key : Array
        Decides every draw, in the way of NumPyro's own ELBOs.
    particles : int
    params, state : dict or None
        Values by site name; None: those kept in `bound`.
    """
    values = dict(bound.params if params is None else params)
    values |= bound.state if state is None else state
    model_key, guide_key = random.split(key)
    plate = numpyro.plate(PARTICLES, particles, dim=-2) if particles > 1 else nullcontext()
    with bound.unscaled(), plate:
        seeded = handlers.seed(bound.guide, guide_key)
        guide = handlers.trace(handlers.substitute(seeded, data=values)).get_trace(**batch)
        values |= _mutable(guide)
        replayed = handlers.replay(handlers.seed(bound.model, model_key), trace=guide)
        model = handlers.trace(handlers.substitute(replayed, data=values)).get_trace(**batch)
    state = _mutable(guide) | _mutable(model)
    return Traces(_of_the_rows_at_hand(guide), _of_the_rows_at_hand(model), state)


def _mutable(trace: Trace) -> dict[str, Any]:
    return {name: site["value"] for name, site in trace.items() if site["type"] == "mutable"}


def subsampled(trace: Trace) -> dict[str, float]:
    """Return by how much the plates of each site scale it up from the rows at hand to all rows."""
    plates = {name: site["args"] for name, site in trace.items() if site["type"] == "plate"}
    factors = {name: size / part for name, (size, part) in plates.items() if part and part < size}
    return {
        name: math.prod(factors.get(frame.name, 1) for frame in site["cond_indep_stack"])
        for name, site in trace.items()
        if is_latent_or_observed(site)
    }


def _of_the_rows_at_hand(trace: Trace) -> Trace:
    """Return the sites without the scale of their plates' subsampling: each term is that of its own row."""
    scales = {name: trace[name]["scale"] / by for name, by in subsampled(trace).items() if by != 1}
    return trace | {name: trace[name] | {"scale": scale} for name, scale in scales.items()}


def is_latent_or_observed(site: Mapping[str, Any]) -> bool:
    """Tell sample sites of the program from parameters, plates and deterministic values."""
    return site["type"] == "sample"


def is_local(site: Mapping[str, Any]) -> bool:
    """Tell whether a site lies in a plate over the rows (dim -1)."""
    return any(frame.dim == -1 for frame in site["cond_indep_stack"])


def log_prob(site: Mapping[str, Any]) -> Array:
    """Return a site's log density, masked and scaled as asked, but not by a plate's subsampling."""
    extra = (site["intermediates"],) if site["intermediates"] else ()
    return scale_and_mask(site["fn"].log_prob(site["value"], *extra), site["scale"])


def check_plates(traces: Iterable[Trace], rows: int) -> None:
    """Refuse sites in other plates than that over the rows; see `ppl_vae.objectives.check_plates`."""
    for trace in traces:
        for name, site in trace.items():
            if is_latent_or_observed(site):
                frames = [(frame.name, frame.dim, frame.size) for frame in site["cond_indep_stack"]]
                objectives.check_plates(name, frames, rows)


def check_sites(guide: Trace, model: Trace) -> None:
    """Refuse what the project's own objectives cannot estimate; see `ppl_vae.objectives.check_sites`."""
    found = {
        name: objectives.Latent(bool(site["infer"].get("enumerate")), site["fn"].has_rsample)
        for name, site in latent_sites(guide).items()
    }
    objectives.check_sites(found, latent_sites(model), "numpyro")


def latent_sites(trace: Trace) -> Trace:
    """Return the latent sites of a trace by name."""
    sites = trace.items()
    return {n: site for n, site in sites if is_latent_or_observed(site) and not site["is_observed"]}


class Support(NamedTuple):
    """Which values of an observed site lie in its support, and the least and the greatest value."""

    inside: Array
    low: Array
    high: Array


def inside_support(model: Trace) -> dict[str, Support]:
    """Compare each observed site with its support, unless made with `validate_args=False`."""
    checked = {}
    for name, site in model.items():
        seen = is_latent_or_observed(site) and site["is_observed"] and jnp.size(site["value"])
        if seen and base(site["fn"]).__dict__.get("_validate_args") is not False:
            value = jnp.asarray(site["value"])
            checked[name] = Support(site["fn"].support(value), value.min(), value.max())
    return checked


def refuse_outside(model: Trace, checked: Mapping[str, Support]) -> None:
    """Refuse data outside the support of its likelihood, as `inside_support` found it.

    Raises
    ------
    ProgramError
    """
    for name, (fine, low, high) in checked.items():
        if not fine.all():
            row = int(np.argwhere(~fine)[0][-1]) if fine.ndim else 0
            kind = type(base(model[name]["fn"])).__name__.removesuffix("Logits").removesuffix("Probs")
            remedy = likelihoods.remedy(kind, float(low), float(high))
            raise ProgramError(
                f"row {row} of {name!r} is outside the support of its likelihood {kind}: {remedy}"
            )


def elbo_terms(guide: Trace, model: Trace, analytic_kl: bool = True) -> ELBOTerms:
    """Return the terms of the bound from a pair of traces."""
    terms = ELBOTerms(log_likelihood=jnp.zeros(()))
    likelihood: list[Array] = []
    for name, site in model.items():
        if not is_latent_or_observed(site):
            continue
        if not site["is_observed"]:
            kl = _divergence(guide[name], site, analytic_kl)
            (terms.kl if is_local(site) else terms.kl_global)[name] = kl if is_local(site) else _over_rows(kl)
        elif is_local(site):
            likelihood.append(log_prob(site))
        else:
            terms.kl_global[name] = _over_rows(-log_prob(site))
    if likelihood:
        terms.log_likelihood = sum(likelihood[1:], start=likelihood[0])
    for name, site in guide.items():
        if not is_latent_or_observed(site):
            continue
        if site["is_observed"]:
            terms.auxiliary[name] = log_prob(site)
        terms.metrics |= _metrics(site["fn"])
    return terms


def _over_rows(term: Array) -> Array:
    return term.sum(-1) if term.ndim else term


def _divergence(q: Mapping[str, Any], p: Mapping[str, Any], analytic: bool) -> Array:
    if analytic:
        try:
            return scale_and_mask(kl_divergence(q["fn"], p["fn"]), q["scale"])
        except NotImplementedError:
            pass
    return log_prob(q) - log_prob(p)


def base(distribution: Any) -> Any:
    """Return the distribution under `to_event`, `mask` and the like."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _metrics(distribution: Any) -> dict[str, Array]:
    distribution = base(distribution)
    return distribution.metrics() if hasattr(distribution, "metrics") else {}


def log_weights(guide: Trace, model: Trace) -> Array:
    """Return log p(x, z) - log q(z | x) over all local sites, guide factors left out: [B], or [P, B].

    Raises
    ------
    ProgramError
        Where a latent is global: one weight a datum would count it once a datum.
    """
    total: list[Array] = []
    for sign, trace in ((1, model), (-1, guide)):
        for name, site in trace.items():
            if not is_latent_or_observed(site) or (sign < 0 and site["is_observed"]):
                continue
            if not is_local(site):
                raise ProgramError(
                    f"site {name!r} is global: importance weights a datum are wrong for it; use the ELBO"
                )
            total.append(sign * log_prob(site))
    return sum(total[1:], start=total[0])
