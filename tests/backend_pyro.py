"""One run of a bound program on Pyro, as arrays."""

import numpy as np
import pyro
import torch
from small_programs import NUM_DATA, Seen

from ppl_vae.backends.common.site import Pair
from ppl_vae.backends.common.terms import Terms
from ppl_vae.backends.pyro.functions import F
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.backends.pyro.tracing import Tracer


def _arrays(values):
    return {name: value.detach().numpy() for name, value in values.items()}


def _tensors(rows):
    return {name: torch.from_numpy(np.asarray(value)) for name, value in rows.items()}


def observe(bound, rows, latents, seed, particles):
    torch.manual_seed(seed)
    batch, tracer = _tensors(rows), Tracer(bound)
    if latents is None:
        return _seen(bound, tracer.pair(batch, particles))
    guide = tracer.guide(batch, values=_tensors(latents))
    model = tracer.model(batch, values=guide.drawn)
    return _seen(bound, Pair(guide, model, again=None))


def _seen(bound, pair):
    terms = Terms(F, pair, 1)
    return Seen(
        _arrays(pair.guide.drawn),
        _arrays({n: s.log_prob for n, s in pair.model.items()}),
        _arrays({n: s.log_prob for n, s in pair.guide.items()}),
        {k: _arrays(getattr(terms, k)) for k in ("kl", "kl_global", "auxiliary", "metrics")}
        | {"log_likelihood": terms.log_likelihood.detach().numpy()},
        {n: s.dims for n, s in pair.model.items()},
        bound.weights(),
    )


def loss_and_gradients(bound, objective, rows, scalars, seed):
    bound.zero_grad()
    loss = Objective(bound, objective, NUM_DATA)
    with pyro.get_param_store().scope():
        torch.manual_seed(seed)
        found = loss(_tensors(rows), {name: torch.tensor(value) for name, value in scalars.items()})
        found.value.backward()
    grads = {n: p.grad for n, p in bound.networks.named_parameters() if p.grad is not None}
    return found.value.item(), {n: v.item() for n, v in found.metrics.items()}, _arrays(grads)
