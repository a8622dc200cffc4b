"""The rule about twins: one program has the same densities on both backends."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ppl_vae.contract.case import Case, differ
from ppl_vae.contract.probe import BrokenRule, NotApplicable, Probe, ProgramFailure
from ppl_vae.errors import PplVaeError
from ppl_vae.faults import said


class Densities(NamedTuple):
    """Log densities of one site on two backends, nats, and the numbers of one event."""

    first: np.ndarray | None
    second: np.ndarray | None
    dims: int

    @property
    def equal(self) -> bool:
        """They differ by no more than 1e-5 x max(|value|, dims)."""
        return not differ(self.first, self.second, self.dims)


def densities(
    first: Probe, second: Probe, rows: Mapping[str, np.ndarray], seed: int = 0
) -> dict[str, Densities]:
    """Return the log densities of every site of guide and model, by role and site, on both backends.

    The second gets the weights of the first, and the latents that the first one's guide drew.

    Parameters
    ----------
    first, second : Probe
        Of one program, as `ppl_vae.backends.<name>.check.probe` makes them.
    rows : dict of str to array
    seed : int
        Of the draws.

    Raises
    ------
    RunError
        Where the weights do not carry over.
    ProgramFailure
        Where model or guide raises an error.
    """
    for probe in (first, second):
        probe.train(False)
    second.load_weights(first.weights())
    ours = first.trace(rows, seed)
    theirs = second.trace(rows, seed, values=ours.latent()).both()
    ours = ours.both()
    return {
        label: Densities(
            ours[label].log_prob if label in ours else None,
            theirs[label].log_prob if label in theirs else None,
            (ours.get(label) or theirs[label]).dims,
        )
        for label in {**ours, **theirs}
    }


def parity(case: Case) -> str:
    """With the same weights and latents, guide and model have the same densities on the twin backend."""
    others = [name for name in case.program.backends if name != case.backend]
    if not others:
        raise NotApplicable(f"the program runs on {case.backend} only")
    twin = others[0]
    if twin not in case.makers:
        raise NotApplicable(f"{twin} is not installed: pip install 'ppl-vae[{twin}]'")
    try:
        other = case.make(case.seed, twin)
        compared = densities(case.probe, other, case.batch(), case.seed)
    except (ProgramFailure, BrokenRule, PplVaeError) as error:
        reason = said(error) if isinstance(error, PplVaeError) else error
        raise BrokenRule(
            f"on {twin}: {reason}: write networks and models with the names that both backends have, "
            f'or declare backends = ("{case.backend}",)'
        ) from error
    other.close()
    for label, pair in compared.items():
        if not pair.equal:
            gap = "is missing on one side" if pair.first is None or pair.second is None else _gap(pair)
            raise BrokenRule(f"site {label} {gap} on {case.backend} and {twin}: use networks that both have")
    return f"equal to {twin} in {len(compared)} sites"


def _gap(pair: Densities) -> str:
    if pair.first.shape != pair.second.shape:
        return f"has densities of shapes {pair.first.shape} and {pair.second.shape}"
    return f"differs by up to {np.nanmax(np.abs(pair.first - pair.second)):.3g} nats"
