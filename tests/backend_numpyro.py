"""One run of a bound program on NumPyro, as arrays."""

import jax
import numpy as np
from jax import random
from numpyro import handlers
from small_programs import NUM_DATA, Seen

from ppl_vae.backends.numpyro import weights
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.backends.numpyro.terms import elbo_terms, log_prob, traces

# These run once each: a quick compilation counts, not a quick run.
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def observe(bound, rows, latents, seed, particles):
    sizes = bound.compiled.setdefault("sizes", {})

    def run(params, state, batch, latents, seed):
        key = random.key(seed)
        if latents is None:
            guide, model, state = traces(bound, batch, key, particles, params, state)
        else:
            guide, model, state = _traces_at(bound, batch, key, params | state | latents)
        sizes.update(
            {n: int(np.prod(s["fn"].event_shape)) for n, s in model.items() if s["type"] == "sample"}
        )
        return _seen(guide, model), state

    # Compiled as one: each operation by itself would be compiled alone.
    name = ("observe", latents is None, particles, bound.training)
    function = bound.compiled.setdefault(name, quick(run))
    found, state = function(bound.params, bound.state, rows, latents, seed)
    bound.state = bound.state | state
    return Seen(**jax.tree.map(np.asarray, found), event=dict(sizes), weights=bound.weights())


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


def quick(function):
    return jax.jit(function, compiler_options=QUICK)


def loss_and_gradients(bound, objective, rows, weight, seed):
    loss = Objective(bound, objective, NUM_DATA)

    def run(params, state, seed, rows, weight):
        def value(params):
            found = loss(params, state, random.key(seed), rows, weight)
            return found.value, found

        return jax.value_and_grad(value, has_aux=True)(params)

    function = bound.compiled.setdefault(("loss", id(objective), bound.training), quick(run))
    (value, found), grads = function(bound.params, bound.state, seed, rows, weight)
    kept, bound.params = bound.params, grads
    named = weights.to_torch(bound._modules())
    bound.params, bound.state = kept, bound.state | found.state
    return float(value), {n: float(v) for n, v in found.metrics.items()}, named
