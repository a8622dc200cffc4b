"""Encode, decode, sample and reconstruct: a bound program as a function of arrays, in chunks."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyro
import torch
from pyro import poutine
from torch import Tensor, nn

from ppl_vae.backends.pyro.evaluate import BUDGET, on_device
from ppl_vae.backends.pyro.terms import base, is_latent_or_observed, is_local, latent_sites
from ppl_vae.data.batches import chunk_rows, dims_of
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import refuse_missing

Arrays = Mapping[str, np.ndarray]


def centre(distribution: Any) -> Tensor:
    """Return the mean of a distribution, or the most probable class of a categorical one."""
    if isinstance(base(distribution), pyro.distributions.Categorical):
        return base(distribution).probs.argmax(-1)
    try:
        return distribution.mean
    except NotImplementedError:
        kind = type(base(distribution)).__name__
        raise ProgramError(f"a {kind} has no mean to show: sample from the program instead") from None


class Centres(poutine.messenger.Messenger):
    """Every latent site takes the centre of its distribution instead of a draw, where it has one."""

    def _pyro_sample(self, msg: dict[str, Any]) -> None:
        if msg["is_observed"] or poutine.util.site_is_subsample(msg) or msg["value"] is not None:
            return
        try:
            msg["value"] = centre(msg["fn"])
        except ProgramError:  # a latent without a mean is drawn
            return
        msg["done"] = True


@contextmanager
def at_rest(bound: nn.Module, seed: int) -> Iterator[None]:
    """Run in eval mode without gradients, on a stream of noise of its own; afterwards everything is as
    before.
    """
    mode = bound.training
    bound.eval()
    devices = [bound.device] if bound.device.type == "cuda" else []
    try:
        with (
            torch.no_grad(),
            torch.random.fork_rng(devices=devices),
            pyro.validation_enabled(False),
            bound.unscaled(),
        ):
            torch.manual_seed(seed)
            yield
    finally:
        bound.train(mode)


def encode(bound: nn.Module, rows: Arrays, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
    """Return the guide's local latents of every row by site, [N, *event]: its means, or one draw.

    In a hierarchy each layer is given the means (or draws) of those above. A site of codes adds
    `<site>_codes`, their numbers.
    """
    found: list[dict[str, np.ndarray]] = []
    with at_rest(bound, seed):
        for part in chunk_rows(rows, _rows_at_once(rows)):
            trace = guide_trace(bound, on_device(bound, rows, part), draw)
            found.append(_host(latents_of(trace)))
    return _joined(found)


def guide_trace(bound: nn.Module, batch: Mapping[str, Tensor], draw: bool) -> poutine.Trace:
    """Return a trace of the guide: its centres, or one draw."""
    guide = bound.guide if draw else Centres()(bound.guide)
    return poutine.trace(guide).get_trace(**batch)


def latents_of(trace: poutine.Trace) -> dict[str, Tensor]:
    """Return the local latents of a guide's trace by site, and `<site>_codes` of a site of codes."""
    values = {}
    for name, site in latent_sites(trace).items():
        if is_local(site):
            values[name] = site["value"]
            if hasattr(base(site["fn"]), "codes"):
                values[f"{name}_codes"] = base(site["fn"]).codes
    return values


def reconstruct(
    bound: nn.Module, rows: Arrays, *, draw: bool = False, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return the centre of the likelihood given each row's own latents, by observed site, [N, *event]."""
    found: list[dict[str, np.ndarray]] = []
    with at_rest(bound, seed):
        for part in chunk_rows(rows, _rows_at_once(rows)):
            batch = on_device(bound, rows, part)
            guide = guide_trace(bound, batch, draw)
            model = poutine.trace(poutine.replay(bound.model, trace=guide)).get_trace(**batch)
            seen = {
                name: site
                for name, site in model.nodes.items()
                if is_latent_or_observed(site) and site["is_observed"]
            }
            found.append(
                {
                    name: centre(site["fn"]).cpu().numpy()
                    for name, site in seen.items()
                    if name in bound.fields
                }
            )
    return _joined(found)


def sample(
    bound: nn.Module, n: int, *, covariates: Arrays | None = None, seed: int = 0
) -> dict[str, np.ndarray]:
    """Draw `n` rows from the prior; global latents from the guide, once for all rows.

    Returns
    -------
    dict
        By site: draws of every local site, and for each observed field also the centre of its likelihood as
        `<field>_mean`; [n, *event].
    """
    return _generate(bound, n, {}, covariates or {}, seed, draw=True)


def decode(
    bound: nn.Module, latents: Arrays, *, covariates: Arrays | None = None, seed: int = 0
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
    bound: nn.Module, n: int, latents: Arrays, covariates: Arrays, seed: int, *, draw: bool
) -> dict[str, np.ndarray]:
    if not hasattr(bound.program, "networks"):
        raise ProgramError(
            f"{bound.program.name} is plain Pyro: its model needs data, "
            "only a declared Program draws from the prior"
        )
    found: list[dict[str, np.ndarray]] = []
    with at_rest(bound, seed):
        probe = poutine.trace(bound.model).get_trace(n=1, **_first(bound, covariates))
        _check_latents(probe, latents, bound.fields)
        torch.manual_seed(seed)
        shared = shared_latents(bound, probe, _first(bound, covariates), draw)
        size = max(
            (site["value"].numel() for site in probe.nodes.values() if is_latent_or_observed(site)), default=1
        )
        for part in (
            slice(i, min(i + max(1, BUDGET // size), n)) for i in range(0, n, max(1, BUDGET // size))
        ):
            given = {
                name: torch.from_numpy(np.asarray(value)[part]).to(bound.anchor)
                for name, value in latents.items()
            }
            batch = on_device(bound, covariates, part)
            model = poutine.condition(bound.model, data=given | shared)
            found.append(
                _drawn(poutine.trace(model).get_trace(n=part.stop - part.start, **batch), bound.fields)
            )
    return _joined(found)


def shared_latents(bound: nn.Module, probe: poutine.Trace, batch: Arrays, draw: bool) -> dict[str, Tensor]:
    """Return the global latents as the guide has learned them: once, since every row of one call lives in the
    same world.
    """
    sites = {name: site for name, site in probe.nodes.items() if is_latent_or_observed(site)}
    shared = [name for name, site in latent_sites(probe).items() if not is_local(site)]
    if not shared:
        return {}
    # A guide needs a row, but its global sites do not depend on which: the prior's own will do.
    row = {name: sites[name]["value"] for name in bound.fields if name in sites} | batch
    refuse_missing(bound.program, row, shared)
    trace = guide_trace(bound, row, draw)
    return {name: trace.nodes[name]["value"] for name in shared}


def _first(bound: nn.Module, covariates: Arrays) -> dict[str, Tensor]:
    return on_device(bound, covariates, slice(0, 1))


def _check_latents(probe: poutine.Trace, latents: Arrays, fields: tuple[str, ...]) -> None:
    local = {
        name: site["value"].shape[1:]
        for name, site in probe.nodes.items()
        if is_latent_or_observed(site) and is_local(site)
    }
    local = {name: tuple(shape) for name, shape in local.items() if name not in fields}
    for name, value in latents.items():
        if name not in local:
            raise DataError(f"the model has no local latent {name!r}: it has {', '.join(local) or 'none'}")
        if tuple(np.shape(value)[1:]) != local[name]:
            raise DataError(
                f"latent {name!r} has shape {np.shape(value)[1:]} a row, the model's is {local[name]}"
            )


def _drawn(trace: poutine.Trace, fields: tuple[str, ...]) -> dict[str, np.ndarray]:
    values = {}
    for name, site in trace.nodes.items():
        if is_latent_or_observed(site) and is_local(site):
            values[name] = site["value"]
            if name in fields:
                values[f"{name}_mean"] = centre(site["fn"])
    return _host(values)


def _host(values: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: value.cpu().numpy() for name, value in values.items()}


def _rows_at_once(rows: Arrays) -> int:
    return max(1, BUDGET // dims_of(rows) // 4)


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
