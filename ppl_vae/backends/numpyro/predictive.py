"""Encode, decode, sample and reconstruct: a bound program as a function of arrays, in chunks."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, random
from numpyro import handlers
from numpyro.distributions import CategoricalLogits, CategoricalProbs

from ppl_vae.backends.numpyro.evaluate import BUDGET, Arrays, compiled, on_device, resting
from ppl_vae.backends.numpyro.terms import Trace, base, is_latent_or_observed, is_local, latent_sites
from ppl_vae.data.batches import chunk_rows, dims_of
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import refuse_missing


def centre(distribution: Any) -> Array:
    """Return the mean of a distribution, or the most probable class of a categorical one."""
    if isinstance(base(distribution), (CategoricalLogits, CategoricalProbs)):
        return base(distribution).probs.argmax(-1)
    try:
        return distribution.mean
    except NotImplementedError:
        kind = type(base(distribution)).__name__
        raise ProgramError(f"a {kind} has no mean to show: sample from the program instead") from None


def _centre_of_site(site: Mapping[str, Any]) -> Array | None:
    if site["type"] != "sample" or site["is_observed"]:
        return None
    try:
        return centre(site["fn"])
    except ProgramError:  # a latent without a mean is drawn
        return None


def encode(bound: Any, rows: Arrays, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the guide's local latents of every row by site, [N, *event]: its means, or one draw.

    In a hierarchy each layer is given the means (or draws) of those above. A site of codes adds
    `<site>_codes`, their numbers.
    """

    def run(params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
        return _latents(_guide_trace(bound, params, state, key, batch, draw))

    return _over_chunks(bound, ("encode", draw), run, rows, seed)


def _guide_trace(
    bound: Any, params: Any, state: Any, key: Array, batch: Mapping[str, Array], draw: bool
) -> Trace:
    guide = handlers.substitute(handlers.seed(bound.guide, key), data=dict(params) | dict(state))
    if not draw:
        guide = handlers.substitute(guide, substitute_fn=_centre_of_site)
    with bound.unscaled():
        return handlers.trace(guide).get_trace(**batch)


def _latents(trace: Trace) -> dict[str, Array]:
    values = {}
    for name, site in latent_sites(trace).items():
        if is_local(site):
            values[name] = site["value"]
            if hasattr(base(site["fn"]), "codes"):
                values[f"{name}_codes"] = base(site["fn"]).codes
    return values


def reconstruct(bound: Any, rows: Arrays, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the centre of the likelihood given each row's own latents, by observed site, [N, *event]."""

    def run(params: Any, state: Any, key: Array, batch: Mapping[str, Array]) -> dict[str, Array]:
        guide_key, model_key = random.split(key)
        guide = _guide_trace(bound, params, state, guide_key, batch, draw)
        model = handlers.replay(handlers.seed(bound.model, model_key), trace=guide)
        with bound.unscaled():
            trace = handlers.trace(handlers.substitute(model, data=dict(params) | dict(state))).get_trace(
                **batch
            )
        seen = {
            name: site for name, site in trace.items() if is_latent_or_observed(site) and site["is_observed"]
        }
        return {name: centre(site["fn"]) for name, site in seen.items() if name in bound.fields}

    return _over_chunks(bound, ("reconstruct", draw), run, rows, seed)


def _over_chunks(bound: Any, name: Any, run: Any, rows: Arrays, seed: int) -> dict[str, np.ndarray]:
    function, found = compiled(bound, name, run), []
    with resting(bound):
        for index, part in enumerate(chunk_rows(rows, max(1, BUDGET // dims_of(rows) // 4))):
            batch = on_device(bound, rows, part)
            bound.ensure_parameters(batch)
            found.append(function(bound.params, bound.state, random.fold_in(random.key(seed), index), batch))
    return _joined(found)


def sample(bound: Any, n: int, *, covariates: Arrays | None = None, seed: int = 0) -> dict[str, np.ndarray]:
    """Draw `n` rows from the prior; global latents from the guide, once for all rows.

    Returns
    -------
    dict
        By site: draws of every local site, and for each observed field also the centre of its likelihood as
        `<field>_mean`; [n, *event].
    """
    return _generate(bound, n, {}, covariates or {}, seed, draw=True)


def decode(
    bound: Any, latents: Arrays, *, covariates: Arrays | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the centre of the likelihood for given latents, by observed field, [N, *event].

    A local latent that is not given is drawn from its prior, a global one is the guide's centre.

    Raises
    ------
    DataError
        Where a latent's name or shape is not the model's.
    """
    n = min((len(value) for value in latents.values()), default=0)
    if not n:
        raise DataError("there are no latents: give at least one row")
    drawn = _generate(bound, n, latents, covariates or {}, seed, draw=False)
    return {name.removesuffix("_mean"): value for name, value in drawn.items() if name.endswith("_mean")}


def _generate(
    bound: Any, n: int, latents: Arrays, covariates: Arrays, seed: int, *, draw: bool
) -> dict[str, np.ndarray]:
    if not hasattr(bound.program, "networks"):
        raise ProgramError(
            f"{bound.program.name} is plain NumPyro: its model needs data, "
            "only a declared Program draws from the prior"
        )
    shared_key, key = random.split(random.key(seed))
    with resting(bound):
        first = on_device(bound, covariates, slice(0, 1))
        one_row = compiled(bound, ("one row", draw), _one_row(bound, draw))
        local, shared = one_row(bound.params, bound.state, shared_key, first)
        _check_latents(local, latents, bound.fields)
        size = max((value.size for value in (local | shared).values()), default=1)
        most, found = max(1, BUDGET // max(size, 1)), []
        for index, start in enumerate(range(0, n, most)):
            part = slice(start, min(start + most, n))
            given = {
                name: jnp.asarray(np.asarray(value)[part], jnp.float32) for name, value in latents.items()
            }
            batch, rows = on_device(bound, covariates, part), part.stop - part.start
            function = compiled(bound, ("generate", rows), _generator(bound, rows))
            values = bound.params, bound.state, random.fold_in(key, index), batch, given | shared
            found.append(function(*values))
    return _joined(found)


def _generator(bound: Any, n: int) -> Any:
    def run(params: Any, state: Any, key: Array, batch: Any, given: Any) -> dict[str, Array]:
        trace, values = _prior_trace(bound, params, state, key, n, batch, given), {}
        for name, site in trace.items():
            if is_latent_or_observed(site) and is_local(site):
                classes = isinstance(base(site["fn"]), (CategoricalLogits, CategoricalProbs))
                values[name] = site["value"] if classes else site["value"].astype(jnp.float32)
                if name in bound.fields:
                    values[f"{name}_mean"] = centre(site["fn"])
        return values

    return run


def _one_row(bound: Any, draw: bool) -> Any:
    """Return a function whose result is a row of the prior by local site, and the global latents as the guide
    has learned them: once, since every row of one call lives in the same world.
    """

    def run(params: Any, state: Any, key: Array, batch: Any) -> tuple[dict[str, Array], dict[str, Array]]:
        prior_key, guide_key = random.split(key)
        trace = _prior_trace(bound, params, state, prior_key, 1, batch, {})
        sites = {name: site for name, site in trace.items() if is_latent_or_observed(site)}
        local = {name: site["value"] for name, site in sites.items() if is_local(site)}
        shared = [name for name in latent_sites(trace) if name not in local]
        if not shared:
            return local, {}
        # A guide needs a row, but its global sites do not depend on which: the prior's own will do.
        row = {name: local[name] for name in bound.fields if name in local} | dict(batch)
        refuse_missing(bound.program, row, shared)
        guide = _guide_trace(bound, params, state, guide_key, row, draw)
        return local, {name: guide[name]["value"] for name in shared}

    return run


def _prior_trace(bound: Any, params: Any, state: Any, key: Array, n: int, batch: Any, given: Any) -> Trace:
    model = handlers.condition(handlers.seed(bound.model, key), data=given)
    with bound.unscaled():
        return handlers.trace(handlers.substitute(model, data=dict(params) | dict(state))).get_trace(
            n=n, **batch
        )


def _check_latents(local: Mapping[str, Array], latents: Arrays, fields: tuple[str, ...]) -> None:
    shapes = {name: value.shape[1:] for name, value in local.items() if name not in fields}
    for name, value in latents.items():
        if name not in shapes:
            raise DataError(f"the model has no local latent {name!r}: it has {', '.join(shapes) or 'none'}")
        if tuple(np.shape(value)[1:]) != shapes[name]:
            shape = np.shape(value)[1:]
            raise DataError(f"latent {name!r} has shape {shape} a row, the model's is {shapes[name]}")


def _joined(parts: list[dict[str, Array]]) -> dict[str, np.ndarray]:
    host = jax.device_get(parts)
    return {name: np.concatenate([part[name] for part in host]) for name in host[0]}
