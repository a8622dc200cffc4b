"""The rule about parameters: every one of them is trained."""

import numpy as np

from ppl_vae.contract.case import Case
from ppl_vae.contract.probe import BrokenRule

# Layers that start at zero hide those below them until they have moved.
STEPS = 4
STEP = 1e-3


def parameters(case: Case) -> str:
    """The loss reaches every trainable parameter within a few steps."""
    loose = case.probe.unregistered()
    if loose:
        named = ", ".join(map(repr, loose))
        raise BrokenRule(
            f"nothing trains {named}, which model or guide use: {case.probe.stock['registered']}"
        )
    largest: dict[str, float | None] = {}
    with case.mode(train=True) as probe:
        for step in range(STEPS):
            for name, size in probe.parameter_gradients(case.rows, case.seed + step, STEP).items():
                largest[name] = np.nanmax([largest.get(name) or 0.0, size or 0.0]).item()
    dead = [name for name, size in largest.items() if not size]
    if dead:
        whole = _whole_networks(dead, list(largest))
        named = ", ".join(
            [f"network {name!r}" for name in whole] + [n for n in dead if _root(n) not in whole]
        )
        raise BrokenRule(
            f"no gradient reaches {named}: use it in model or guide, remove it, or freeze it on purpose "
            f"({case.probe.stock['frozen']})"
        )
    return f"gradients reach all {len(largest)} trainable parameters" if largest else "nothing to train"


def _root(name: str) -> str:
    return name.split(".")[0]


def _whole_networks(dead: list[str], every: list[str]) -> list[str]:
    """Return the networks of which no parameter is reached."""
    alive = {_root(name) for name in every if name not in dead}
    return [name for name in dict.fromkeys(map(_root, dead)) if name not in alive]
