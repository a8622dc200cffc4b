"""Several draws of two functions, which promise nothing of leading axes: in a plate, or one by one."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ppl_vae.backends.common.site import Pair, Site, Trace
from ppl_vae.backends.common.terms import Densities
from ppl_vae.functions import Functions

PROBED = 3  # particles that two functions are tried with


def takes_particles(passes: Any, batch: Any) -> bool:
    """Tell whether two functions do the same within a plate of particles as for each particle alone."""

    def run(tracer: Any, batch: Any) -> tuple[Any, ...]:
        pair = tracer.pair(batch, PROBED)
        drawn = [{name: value[draw] for name, value in pair.guide.drawn.items()} for draw in range(PROBED)]
        alone = [tracer.pair(batch, values=one) for one in drawn]
        return tuple(Densities(one.guide, one.model).log_weights for one in (pair, *alone))

    try:
        together, *alone = passes.aside("particles", run, batch)
    except Exception:  # of any kind: shapes fail wherever the functions use them
        return False
    alone = np.stack(alone)
    return together.shape == alone.shape and np.allclose(
        together, alone, rtol=1e-3, atol=1e-3, equal_nan=True
    )


def one_by_one(F: Functions, run: Callable[[int], Pair], particles: int) -> Pair:
    """Return runs of one particle each as a run of them all; `run` takes the number of a particle."""
    pairs = [run(number) for number in range(particles)]

    def again(role: str, stop: str) -> Trace:
        return _stacked(F, [pair.again(role, stop) for pair in pairs])

    guide, model = (_stacked(F, [getattr(pair, role) for pair in pairs]) for role in ("guide", "model"))
    return Pair(guide, model, again, pairs[-1].state)


def _stacked(F: Functions, traces: Sequence[Trace]) -> Trace:
    return Trace({name: _all_of(F, [trace[name] for trace in traces]) for name in traces[0]})


def _all_of(F: Functions, sites: Sequence[Site]) -> Site:
    made = copy.copy(sites[0])
    made.value, made.marginal = F.stack([site.value for site in sites]), True
    # A site of no batch axes has one for the rows: the particles lie left of it.
    terms = [site.log_density for site in sites]
    vars(made)["log_density"] = F.stack([term if term.ndim else term[None] for term in terms])
    return made
