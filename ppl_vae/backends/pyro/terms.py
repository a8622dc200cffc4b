"""The terms of the bound, per datum and per site, from one trace of the guide and one of the model."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import pyro
import torch
from pyro import poutine
from pyro.distributions.util import scale_and_mask
from torch import Tensor
from torch.distributions import kl_divergence

from ppl_vae import likelihoods, objectives
from ppl_vae.errors import ProgramError

PARTICLES = "particles"


@dataclass
class ELBOTerms:
    """Terms of the bound, in nats. With P particles every per-datum term has shape [P, B], else [B].

    Attributes
    ----------
    log_likelihood : Tensor
        Sum over the observed sites.
    kl : dict of str to Tensor
        By local site: closed form where one is registered (and asked for), else log q - log p at the sample.
    kl_global : dict of str to Tensor
        By site outside the plate "data", summed over the whole data set: [] or [P].
    auxiliary : dict of str to Tensor
        Guide factors, such as the commitment of a VQ guide. Not part of a reported bound.
    metrics : dict of str to Tensor
        Numbers that a guide's distributions tell about themselves.
    """

    log_likelihood: Tensor
    kl: dict[str, Tensor] = field(default_factory=dict)
    kl_global: dict[str, Tensor] = field(default_factory=dict)
    auxiliary: dict[str, Tensor] = field(default_factory=dict)
    metrics: dict[str, Tensor] = field(default_factory=dict)


def traces(
    bound: Any, batch: Mapping[str, Tensor], particles: int = 1
) -> tuple[poutine.Trace, poutine.Trace]:
    """Return the guide's trace and the model's trace that replays it; several particles are a plate left of
    "data".
    """
    with bound.unscaled():
        if particles == 1:
            return _trace_pair(bound, batch)
        with pyro.plate(PARTICLES, particles, dim=-2, device=bound.device):
            return _trace_pair(bound, batch)


def _trace_pair(bound: Any, batch: Mapping[str, Tensor]) -> tuple[poutine.Trace, poutine.Trace]:
    guide = poutine.trace(bound.guide).get_trace(**batch)
    model = poutine.trace(poutine.replay(bound.model, trace=guide)).get_trace(**batch)
    return guide, model


def is_latent_or_observed(site: Mapping[str, Any]) -> bool:
    """Tell sample sites of the program from the bookkeeping sites of plates and deterministic values."""
    return (
        site["type"] == "sample"
        and not poutine.util.site_is_subsample(site)
        and not site["infer"].get("_deterministic", False)
    )


def is_local(site: Mapping[str, Any]) -> bool:
    """Tell whether a site lies in a plate over the rows (dim -1)."""
    return any(frame.vectorized and frame.dim == -1 for frame in site["cond_indep_stack"])


def log_prob(site: Mapping[str, Any]) -> Tensor:
    """Return a site's log density, masked and scaled as asked, but not by a plate's subsampling."""
    return scale_and_mask(site["fn"].log_prob(site["value"]), _scale(site), site["mask"])


def subsampled(site: Mapping[str, Any]) -> float:
    """Return by how much the plates of a site scale it up from the rows at hand to all rows."""
    frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized and frame.full_size]
    # Equal sizes are left out, not divided: in a captured graph they are one symbol.
    return math.prod(frame.full_size / frame.size for frame in frames if frame.full_size != frame.size)


def _scale(site: Mapping[str, Any]) -> Any:
    factor = subsampled(site)
    return site["scale"] if factor == 1 else site["scale"] / factor


def check_plates(traces: Iterable[poutine.Trace], rows: int) -> None:
    """Refuse sites in other plates than that over the rows; see `ppl_vae.objectives.check_plates`."""
    for trace in traces:
        for name, site in trace.nodes.items():
            if is_latent_or_observed(site):
                frames = [frame for frame in site["cond_indep_stack"] if frame.vectorized]
                objectives.check_plates(name, [(f.name, f.dim, f.size) for f in frames], rows)


def check_sites(guide: poutine.Trace, model: poutine.Trace) -> None:
    """Refuse what the project's own objectives cannot estimate; see `ppl_vae.objectives.check_sites`."""
    found = {
        name: objectives.Latent(bool(site["infer"].get("enumerate")), site["fn"].has_rsample)
        for name, site in latent_sites(guide).items()
    }
    objectives.check_sites(found, latent_sites(model), "pyro")


def latent_sites(trace: poutine.Trace) -> dict[str, Any]:
    """Return the latent sites of a trace by name."""
    sites = trace.nodes.items()
    return {n: site for n, site in sites if is_latent_or_observed(site) and not site["is_observed"]}


def check_support(model: poutine.Trace) -> None:
    """Refuse data outside the support of its likelihood (unless that was made with `validate_args=False`).

    Raises
    ------
    ProgramError
    """
    for name, site in model.nodes.items():
        if not (is_latent_or_observed(site) and site["is_observed"]) or not getattr(
            base(site["fn"]), "_validate_args", False
        ):
            continue
        inside = site["fn"].support.check(site["value"])
        if not bool(inside.all()):
            row = int((~inside).nonzero()[0][-1]) if inside.ndim else 0
            kind, value = type(base(site["fn"])).__name__, site["value"]
            remedy = likelihoods.remedy(kind, float(value.min()), float(value.max()))
            raise ProgramError(
                f"row {row} of {name!r} is outside the support of its likelihood {kind}: {remedy}"
            )


def elbo_terms(guide: poutine.Trace, model: poutine.Trace, analytic_kl: bool = True) -> ELBOTerms:
    """Return the terms of the bound from a pair of traces."""
    terms = ELBOTerms(log_likelihood=torch.zeros(()))
    likelihood: list[Tensor] = []
    for name, site in model.nodes.items():
        if not is_latent_or_observed(site):
            continue
        if site["is_observed"]:
            if is_local(site):
                likelihood.append(log_prob(site))
            else:
                terms.kl_global[name] = -log_prob(site).sum(-1) if site["fn"].batch_shape else -log_prob(site)
            continue
        kl = _divergence(guide.nodes[name], site, analytic_kl)
        if is_local(site):
            terms.kl[name] = kl
        else:
            terms.kl_global[name] = kl.sum(-1) if kl.ndim else kl
    if likelihood:
        terms.log_likelihood = sum(likelihood[1:], start=likelihood[0])
    for name, site in guide.nodes.items():
        if not is_latent_or_observed(site):
            continue
        if site["is_observed"]:
            terms.auxiliary[name] = log_prob(site)
        terms.metrics |= _metrics(site["fn"])
    return terms


def _divergence(q: Mapping[str, Any], p: Mapping[str, Any], analytic: bool) -> Tensor:
    if analytic:
        try:
            return scale_and_mask(kl_divergence(q["fn"], p["fn"]), _scale(q), q["mask"])
        except NotImplementedError:
            pass
    return log_prob(q) - log_prob(p)


def base(distribution: Any) -> Any:
    """Return the distribution under `to_event`, `mask` and the like."""
    while hasattr(distribution, "base_dist"):
        distribution = distribution.base_dist
    return distribution


def _metrics(distribution: Any) -> dict[str, Tensor]:
    distribution = base(distribution)
    return distribution.metrics() if hasattr(distribution, "metrics") else {}


def log_weights(guide: poutine.Trace, model: poutine.Trace) -> Tensor:
    """Return log p(x, z) - log q(z | x) over all local sites, guide factors left out: [B], or [P, B].

    Raises
    ------
    ProgramError
        Where a latent is global: one weight a datum would count it once a datum.
    """
    total: list[Tensor] = []
    for sign, trace in ((1, model), (-1, guide)):
        for name, site in trace.nodes.items():
            if not is_latent_or_observed(site) or (sign < 0 and site["is_observed"]):
                continue
            if not is_local(site):
                raise ProgramError(
                    f"site {name!r} is global: importance weights a datum are wrong for it; use the ELBO"
                )
            total.append(sign * log_prob(site))
    return sum(total[1:], start=total[0])
