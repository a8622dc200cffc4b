"""The plain bound and the importance weighted bound of every row, in chunks."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ppl_vae.backends.pyro.denormals import flushed
from ppl_vae.backends.pyro.importance import WORTH, importance_bounds
from ppl_vae.backends.pyro.terms import (
    base,
    elbo_terms,
    is_latent_or_observed,
    is_local,
    latent_sites,
    traces,
)
from ppl_vae.data.batches import chunk_rows, dims_of
from ppl_vae.diagnostics.evidence import DETERMINISTIC, Scores, joined, over_batches
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.options import stream

# Numbers of one observation that are worked on at once, over rows and samples: a few tens of megabytes a
# layer.
BUDGET = 2**22
# Samples to draw at once for a loader's batch, whose size is the user's choice.
LOADED = 16
Rows = Mapping[str, np.ndarray] | Iterable[Any]


def on_device(bound: nn.Module, rows: Mapping[str, np.ndarray], part: slice) -> dict[str, Tensor]:
    """Return the declared fields of some rows on the program's device."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(rows[name][part])).to(bound.device)
        for name in bound.fields
        if name in rows
    }


def _batches(bound: nn.Module, rows: Rows, most: int) -> Iterator[dict[str, Tensor]]:
    """Return batches on the program's device: chunks of at most `most` rows, or a loader's as they are."""
    if isinstance(rows, Mapping):
        return (on_device(bound, rows, part) for part in chunk_rows(rows, most))
    return (bound.as_batch(item, bound.device) for item in rows)


def score(
    bound: nn.Module,
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
        Compile the importance weights: on, off, or auto, where there are many.
    """
    mode = bound.training
    bound.eval()
    try:
        with flushed(), torch.no_grad(), torch.random.fork_rng(), pyro.validation_enabled(False):
            torch.manual_seed(stream(seed, "score"))
            # A loader is asked once: shuffled, it would give the two bounds different rows.
            rows = rows if isinstance(rows, Mapping) else list(rows)
            most = max(1, budget // (dims_of(rows) if isinstance(rows, Mapping) else 1))
            scores = _plain(bound, rows, max(1, most // 4))
            if importance_samples:
                _importance(bound, rows, scores, importance_samples, most, compile)
    finally:
        bound.train(mode)
    return scores


def _plain(bound: nn.Module, rows: Rows, most: int) -> Scores:
    likelihood, kls, facts = [], [], []
    terms = None
    for batch in _batches(bound, rows, most):
        guide, model = traces(bound, batch)
        terms = elbo_terms(guide, model)
        likelihood.append(_host(terms.log_likelihood))
        kls.append({name: _host(kl) for name, kl in terms.kl.items()})
        facts.append(_observation(model) | {"exact": _is_deterministic(guide)})
    if terms is None:
        raise DataError("there are no rows: give at least one batch")
    shared = {name: float(kl) for name, kl in terms.kl_global.items()}
    found, rows_of_parts = np.concatenate(likelihood), [len(part) for part in likelihood]
    kl, info = joined(kls, rows_of_parts), over_batches(facts, rows_of_parts)
    note = DETERMINISTIC if info.pop("exact") else None
    return Scores(found, kl, shared, bound.num_data or len(found), iw_note=note, **info)


def _importance(bound: nn.Module, rows: Rows, scores: Scores, samples: int, most: int, compile: str) -> None:
    if scores.iw_note:
        return
    if scores.kl_global:
        scores.iw_note = (
            f"site {next(iter(scores.kl_global))!r} is global: importance weights a datum are wrong for it"
        )
        return
    loaded = not isinstance(rows, Mapping)
    at_once = min(samples, LOADED) if loaded else min(samples, max(1, most // 64), 256)
    batches = _batches(bound, rows, max(1, most // at_once))
    many = not loaded and len(scores.elbo) * samples * dims_of(rows) >= WORTH
    found = importance_bounds(
        bound, batches, samples, at_once, compile == "on" or (compile == "auto" and many)
    )
    scores.iw, scores.k = np.concatenate([_host(value) for value in found]), samples


def _host(value: Tensor) -> np.ndarray:
    if value.ndim != 1:
        raise ProgramError(
            f"a term of the bound has shape {tuple(value.shape)}, not one number a row: "
            "is a site outside the plate over the rows?"
        )
    return value.double().cpu().numpy()


def _observation(model: Any) -> dict[str, Any]:
    """Return how many numbers an observation has, and whether its likelihood is a mass function."""
    dims, discrete = 0, True
    for site in model.nodes.values():
        if (
            is_latent_or_observed(site)
            and site["is_observed"]
            and is_local(site)
            and not isinstance(site["fn"], pyro.distributions.Unit)
        ):
            dims += site["fn"].event_shape.numel()
            discrete = discrete and _is_discrete(site["fn"])
    return {"dims": max(dims, 1), "discrete": discrete}


def _is_discrete(distribution: Any) -> bool:
    return bool(base(distribution).support.is_discrete)


def _is_deterministic(guide: Any) -> bool:
    latent = [site["fn"] for site in latent_sites(guide).values()]
    return bool(latent) and all(getattr(base(fn), "deterministic", False) for fn in latent)
