"""One run of a bound program on NumPyro, as arrays."""

import jax
import numpy as np
from jax import random
from numpyro import handlers
from small_programs import NUM_DATA, Seen

from ppl_vae.backends.numpyro import weights
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.backends.numpyro.terms import elbo_terms, log_prob, traces


def observe(bound, rows, latents, seed, particles):
    sizes = {}

    # Compiled as one: each operation by itself would be compiled alone.
    @jax.jit
    def run(params, state, batch, latents):
        key = random.key(seed)
        if latents is None:
            guide, model, state = traces(bound, batch, key, particles, params, state)
        else:
            guide, model, state = _traces_at(bound, batch, key, params | state | latents)
        sizes.update(
            {n: int(np.prod(s["fn"].event_shape)) for n, s in model.items() if s["type"] == "sample"}
        )
        return _seen(guide, model), state

    found, state = run(bound.params, bound.state, rows, latents)
    bound.state = bound.state | state
    return Seen(**jax.tree.map(np.asarray, found), event=sizes, weights=bound.weights())


def _traces_at(bound, batch, key, values):
    with bound.unscaled():
        seeded = handlers.substitute(handlers.seed(bound.guide, key), data=values)
        guide = handlers.trace(seeded).get_trace(**batch)
        state = {n: s["value"] for n, s in guide.items() if s["type"] == "mutable"}
        replayed = handlers.replay(handlers.seed(bound.model, key), trace=guide)
        model = handlers.trace(handlers.substitute(replayed, data=values | state)).get_trace(**batch)
    return guide, model, state


def _seen(guide, model):
    terms, sites = elbo_terms(guide, model), {}
    for role, trace in (("p", model), ("q", guide)):
        sites[role] = {n: s for n, s in trace.items() if s["type"] == "sample"}
    return {
        "latents": {n: s["value"] for n, s in sites["q"].items() if not s["is_observed"]},
        "log_p": {n: log_prob(s) for n, s in sites["p"].items()},
        "log_q": {n: log_prob(s) for n, s in sites["q"].items()},
        "terms": {
            k: getattr(terms, k) for k in ("log_likelihood", "kl", "kl_global", "auxiliary", "metrics")
        },
    }


def loss_and_gradients(bound, objective, rows, weight, seed):
    loss = Objective(bound, objective, NUM_DATA)
    batch = jax.tree.map(jax.numpy.asarray, rows)

    def value(params):
        found = loss(params, bound.state, random.key(seed), batch, weight)
        return found.value, found

    (value, found), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(bound.params)
    kept, bound.params = bound.params, grads
    named = weights.to_torch(bound._modules())
    bound.params, bound.state = kept, bound.state | found.state
    return float(value), {n: float(v) for n, v in found.metrics.items()}, named
