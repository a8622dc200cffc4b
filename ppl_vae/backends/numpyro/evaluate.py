"""The plain bound and the importance weighted bound of every row, in chunks."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array, lax, random
from jax.scipy.special import logsumexp
from numpyro.distributions import Unit

from ppl_vae.backends.numpyro.terms import (
    Trace,
    base,
    elbo_terms,
    is_local,
    latent_sites,
    log_weights,
    traces,
)
from ppl_vae.data.batches import chunk_rows, count_rows, dims_of
from ppl_vae.diagnostics.evidence import DETERMINISTIC, Scores, joined, over_batches
from ppl_vae.errors import DataError, ProgramError

# Numbers of one observation that are worked on at once, over rows and samples: tens of megabytes a layer.
BUDGET = 2**22
# Samples to draw at once for a loader's batch, whose size is the user's choice.
LOADED = 16
Arrays = Mapping[str, np.ndarray]
Rows = Arrays | Iterable[Any]


def on_device(bound: Any, rows: Arrays, part: slice) -> dict[str, Array]:
    """Return the declared fields of some rows on the program's device."""
    found = {name: np.asarray(rows[name][part]) for name in bound.fields if name in rows}
    return jax.device_put(found, bound.device)


@contextmanager
def resting(bound: Any) -> Iterator[None]:
    """Set evaluation mode, and afterwards the mode from before."""
    mode = bound.training
    bound.eval()
    try:
        yield
    finally:
        bound.train(mode)


def compiled(bound: Any, name: Any, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a jitted function of a bound program, made once for each name and precision."""
    return bound.compiled.setdefault((name, bound.autocast), jax.jit(function))


def _first(bound: Any, rows: Rows) -> dict[str, Array]:
    """Return one row, or the first of a loader's batches."""
    if isinstance(rows, Mapping):
        return on_device(bound, rows, slice(0, 1))
    for item in rows:
        return jax.device_put(bound.as_batch(item), bound.device)
    raise DataError("there are no rows: give at least one batch")


def _batches(bound: Any, rows: Rows, most: int) -> Iterator[tuple[dict[str, Array], int | None]]:
    """Yield chunks of `most` rows, or a loader's batches as they are, and how many rows count (None: all)."""
    if not isinstance(rows, Mapping):
        yield from ((jax.device_put(bound.as_batch(item), bound.device), None) for item in rows)
        return
    count = count_rows(rows)
    for part in chunk_rows(rows, most):
        batch, size = on_device(bound, rows, part), part.stop - part.start
        if size < most < count:
            # The last chunk is filled up, so that it needs no compilation of its own.
            batch = {n: jnp.concatenate([a, jnp.repeat(a[:1], most - size, 0)]) for n, a in batch.items()}
        yield batch, size


def score(
    bound: Any,
    rows: Rows,
    importance_samples: int | None = None,
    seed: int = 0,
    budget: int = BUDGET,
    compile: str = "auto",
) -> Scores:
    """Return the terms of the plain bound, and the importance weighted bound where samples are asked for.

    Parameters
    ----------
    bound : Bound or PlainBound
    rows : dict of str to array, or iterable of batches
        Batches are passed on as the program's arguments.
    importance_samples : int or None
        k of the importance weighted bound.
    seed : int
        Of the guide's draws.
    budget : int
        Numbers of an observation to work on at once.
    compile : str
        For Pyro: here everything is compiled.
    """
    plain_key, weights_key = random.split(random.key(seed))
    # A loader is asked once: shuffled, it would give the two bounds different rows.
    rows = rows if isinstance(rows, Mapping) else list(rows)
    most = max(1, budget // (dims_of(rows) if isinstance(rows, Mapping) else 1))
    with resting(bound), numpyro.validation_enabled(False):
        scores = _plain(bound, rows, plain_key, max(1, most // 4))
        if importance_samples:
            _importance(bound, rows, weights_key, scores, importance_samples, most)
    return scores


def _plain(bound: Any, rows: Rows, key: Array, most: int) -> Scores:
    def run(params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Any:
        guide, model, _ = traces(bound, batch, key, 1, params, state)
        terms = elbo_terms(guide, model)
        return {"": terms.log_likelihood} | {
            f"kl {name}": kl for name, kl in terms.kl.items()
        }, terms.kl_global

    first = _first(bound, rows)
    bound.ensure_parameters(first)
    found, shared = _over_chunks(bound, compiled(bound, "plain", run), rows, key, most)
    _check_terms(found)
    batches = [first] if isinstance(rows, Mapping) else [batch for batch, _ in _batches(bound, rows, most)]
    facts = [_facts(bound, batch) for batch in batches]
    info = over_batches(facts, [len(next(iter(batch.values()))) for batch in batches])
    note = DETERMINISTIC if info.pop("exact") else None
    kl = {name.removeprefix("kl "): value for name, value in found.items() if name}
    shared = {name: float(value) for name, value in shared.items()}
    return Scores(found[""], kl, shared, bound.num_data or len(found[""]), iw_note=note, **info)


def _over_chunks(
    bound: Any, function: Any, rows: Rows, key: Array, most: int
) -> tuple[dict[str, np.ndarray], Any]:
    """Run a function of (params, state, key, batch) over equal chunks and join what it returns by row."""
    found, shared = [], None
    for index, (batch, size) in enumerate(_batches(bound, rows, most)):
        values, other = function(bound.params, bound.state, random.fold_in(key, index), batch)
        shared = other if shared is None else shared
        found.append({name: np.asarray(value, np.float64)[..., :size] for name, value in values.items()})
    return joined(found, [next(iter(part.values())).shape[-1] for part in found]), shared


def _importance(bound: Any, rows: Rows, key: Array, scores: Scores, samples: int, most: int) -> None:
    if scores.iw_note:
        return
    if scores.kl_global:
        name = next(iter(scores.kl_global))
        scores.iw_note = f"site {name!r} is global: importance weights a datum are wrong for it"
        return
    loaded = not isinstance(rows, Mapping)
    at_once = min(samples, LOADED) if loaded else min(samples, max(1, most // 64), 256)
    passes = -(-samples // at_once)

    def run(params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> Any:
        def one(index: Array) -> Array:
            guide, model, _ = traces(bound, batch, random.fold_in(key, index), at_once, params, state)
            # The last pass draws a few samples too many, which are left out.
            spare = index * at_once + jnp.arange(at_once) >= samples
            return logsumexp(
                jnp.where(spare[:, None], -jnp.inf, log_weights(guide, model).reshape(at_once, -1)), 0
            )

        return {"iw": lax.map(one, jnp.arange(passes))}, None

    function = compiled(bound, ("importance", samples, at_once), run)
    weights, _ = _over_chunks(bound, function, rows, key, max(1, most // at_once))
    scores.iw, scores.k = np.logaddexp.reduce(weights["iw"], 0) - math.log(samples), samples


def _check_terms(found: Mapping[str, np.ndarray]) -> None:
    for value in found.values():
        if value.ndim != 1:
            raise ProgramError(
                f"a term of the bound has shape {value.shape}, not one number a row: "
                "is a site outside the plate over the rows?"
            )


def _facts(bound: Any, batch: Mapping[str, Array]) -> dict[str, Any]:
    """Return the numbers in an observation, whether its likelihood is a mass, and if the guide is certain."""
    facts: dict[str, Any] = {}

    def run(batch: Mapping[str, Array]) -> None:
        guide, model, _ = traces(bound, batch, random.key(0))
        facts.update(_observation(model), exact=_is_deterministic(guide))

    jax.eval_shape(run, dict(batch))
    return facts


def _observation(model: Trace) -> dict[str, Any]:
    dims, discrete = 0, True
    for site in model.values():
        seen = site["type"] == "sample" and site["is_observed"] and is_local(site)
        if seen and not isinstance(base(site["fn"]), Unit):
            dims += math.prod(site["fn"].event_shape)
            discrete = discrete and bool(base(site["fn"]).support.is_discrete)
    return {"dims": max(dims, 1), "discrete": discrete}


def _is_deterministic(guide: Trace) -> bool:
    latent = [site["fn"] for site in latent_sites(guide).values()]
    return bool(latent) and all(getattr(base(fn), "deterministic", False) for fn in latent)
