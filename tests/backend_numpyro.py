"""One run of a bound program on NumPyro, as arrays."""

import jax
import numpy as np
from jax import random
from small_programs import NUM_DATA, Seen

from ppl_vae.backends.common.site import Pair
from ppl_vae.backends.common.terms import Terms
from ppl_vae.backends.numpyro import weights
from ppl_vae.backends.numpyro.functions import F
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.backends.numpyro.tracing import Tracer

# These run once each: a quick compilation counts, not a quick run.
QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}


def observe(bound, rows, latents, seed, particles):
    sizes = bound.compiled.setdefault("sizes", {})

    def run(params, state, batch, latents, seed):
        tracer = Tracer(bound, random.key(seed), params, state)
        if latents is None:
            pair = tracer.pair(batch, particles)
        else:
            guide = tracer.guide(batch, values=latents)
            model = tracer.model(batch, values=guide.drawn)
            pair = Pair(guide, model, None, tracer.state)
        sizes.update({n: s.dims for n, s in pair.model.items()})
        return _seen(pair), pair.state

    # Compiled as one: each operation by itself would be compiled alone.
    name = ("observe", latents is None, particles, bound.training)
    function = bound.compiled.setdefault(name, quick(run))
    found, state = function(bound.params, bound.state, rows, latents, seed)
    bound.state = bound.state | state
    return Seen(**jax.tree.map(np.asarray, found), event=dict(sizes), weights=bound.weights())


def _seen(pair):
    terms = Terms(F, pair, 1)
    return {
        "latents": pair.guide.drawn,
        "log_p": {n: s.log_prob for n, s in pair.model.items()},
        "log_q": {n: s.log_prob for n, s in pair.guide.items()},
        "terms": {
            k: getattr(terms, k) for k in ("log_likelihood", "kl", "kl_global", "auxiliary", "metrics")
        },
    }


def quick(function):
    return jax.jit(function, compiler_options=QUICK)


def loss_and_gradients(bound, objective, rows, scalars, seed):
    loss = Objective(bound, objective, NUM_DATA)

    def run(params, state, seed, rows, scalars):
        def value(params):
            found = loss(params, state, random.key(seed), rows, scalars)
            return found.value, found

        return jax.value_and_grad(value, has_aux=True)(params)

    function = bound.compiled.setdefault(("loss", id(objective), bound.training), quick(run))
    (value, found), grads = function(bound.params, bound.state, seed, rows, scalars)
    kept, bound.params = bound.params, grads
    named = weights.to_torch(bound._modules())
    bound.params, bound.state = kept, bound.state | found.state
    return float(value), {n: float(v) for n, v in found.metrics.items()}, named
