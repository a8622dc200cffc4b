"""One run of a bound program on Pyro, as arrays."""

import numpy as np
import pyro
import torch
from pyro import poutine
from small_programs import NUM_DATA, Seen

from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.backends.pyro.terms import elbo_terms, is_latent_or_observed, log_prob, traces


def _arrays(values):
    return {name: value.detach().numpy() for name, value in values.items()}


def _tensors(rows):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in rows.items()}


def observe(bound, rows, latents, seed, particles):
    torch.manual_seed(seed)
    batch = _tensors(rows)
    if latents is None:
        guide, model = traces(bound, batch, particles)
    else:
        with bound.unscaled():
            # Like replay, but with the guide's own distributions at the given values.
            fixed = poutine.util.prune_subsample_sites(poutine.trace(bound.guide).get_trace(**batch))
            for name, value in _tensors(latents).items():
                fixed.nodes[name]["value"] = value
            guide = poutine.trace(poutine.replay(bound.guide, trace=fixed)).get_trace(**batch)
            model = poutine.trace(poutine.replay(bound.model, trace=guide)).get_trace(**batch)
    return _seen(bound, guide, model)


def _seen(bound, guide, model):
    terms, sites = elbo_terms(guide, model), {}
    for role, trace in (("p", model), ("q", guide)):
        sites[role] = {n: s for n, s in trace.nodes.items() if is_latent_or_observed(s)}
    latents = {n: s["value"] for n, s in sites["q"].items() if not s["is_observed"]}
    return Seen(
        _arrays(latents),
        _arrays({n: log_prob(s) for n, s in sites["p"].items()}),
        _arrays({n: log_prob(s) for n, s in sites["q"].items()}),
        {k: _arrays(getattr(terms, k)) for k in ("kl", "kl_global", "auxiliary", "metrics")}
        | {"log_likelihood": terms.log_likelihood.detach().numpy()},
        {n: s["fn"].event_shape.numel() for n, s in sites["p"].items()},
        bound.weights(),
    )


def loss_and_gradients(bound, objective, rows, weight, seed):
    bound.zero_grad()
    loss = Objective(bound, objective, NUM_DATA)
    with pyro.get_param_store().scope():
        torch.manual_seed(seed)
        value, metrics = loss(_tensors(rows), torch.tensor(weight))
        value.backward()
    grads = {n: p.grad for n, p in bound.networks.named_parameters() if p.grad is not None}
    return value.item(), {n: v.item() for n, v in metrics.items()}, _arrays(grads)
