"""Rules about axes: rows do not meet, batches may have any size, networks keep leading axes."""

from collections.abc import Iterator, Sequence

import numpy as np

from ppl_vae.contract.case import Case, differ
from ppl_vae.contract.probe import BrokenRule, Call, NotApplicable, ProgramFailure, Seen, Traces
from ppl_vae.shapes import BY_WEIGHTS

PARTICLES = 2
APART = "treat every row by itself, with no mean, sum or reshape over the first axis"


def rows(case: Case) -> str:
    """A row's densities depend on no other row."""
    leak = _leak(case, train=False)
    if leak:
        raise BrokenRule(leak)
    if _differs_in_train_mode(case) and _leak(case, train=True):
        return "no row depends on another; in train mode rows meet, as in a normalization layer"
    return "no row depends on another"


def _differs_in_train_mode(case: Case) -> bool:
    return any(differ(a.log_prob, b.log_prob, a.dims) for _, a, b in _pairs(case.traces, case.trained))


def _leak(case: Case, train: bool) -> str:
    # A row in the middle sees leaks from both sides.
    row = case.size // 2
    with case.mode(train) as probe:
        here = probe.trace(case.batch(), case.seed)
    replaced = {
        name: _others(values, values[case.size :], row, case.size) for name, values in case.rows.items()
    }
    with case.mode(train) as probe:
        drawn = probe.trace(replaced, case.seed + 1).guide
    values = {
        name: _others(site.value, drawn[name].value, row, case.size) if site.local else site.value
        for name, site in here.guide.items()
        if not site.observed
    }
    with case.mode(train) as probe:
        there = probe.trace(replaced, case.seed, values)
    for label, site, other in _pairs(here, there):
        if site.local and differ(site.log_prob[row], other.log_prob[row], site.dims):
            network = _culprit(here.calls, there.calls, row, case.size)
            who = f"network {network!r} mixes rows" if network else f"site {label} mixes rows"
            return f"{who}: the density of site {label} in one row changes with the other rows: {APART}"
    with case.mode(train) as probe:
        gradients = probe.row_gradients(case.batch(), row, case.seed)
    for name, size in gradients.items():
        others = np.delete(size, row)
        # A NaN says nothing: 0 times infinity, where a gradient of 0 meets an infinite slope.
        if (others[np.isfinite(others)] != 0).any():
            return f"rows mix: the bound of one row has a gradient by {name} of the other rows: {APART}"
    return ""


def _others(mine: np.ndarray, theirs: np.ndarray, row: int, size: int) -> np.ndarray:
    """Return one row of mine among rows of theirs."""
    mixed = theirs[:size].copy()
    mixed[row] = mine[row]
    return mixed


def _pairs(a: Traces, b: Traces) -> Iterator[tuple[str, Seen, Seen]]:
    others = b.both()
    return ((label, site, others[label]) for label, site in a.both().items() if label in others)


def _culprit(a: list[Call], b: list[Call], row: int, size: int) -> str | None:
    """Return the first network that answers one row otherwise though it was asked the same."""
    for one, two in zip(a, b, strict=False):
        asked = [_row(x, row, size) for x in one.inputs], [_row(x, row, size) for x in two.inputs]
        given = [_row(x, row, size) for x in one.outputs], [_row(x, row, size) for x in two.outputs]
        if not _any_differs(*asked) and _any_differs(*given):
            return one.network
    return None


def _row(array: np.ndarray, row: int, size: int) -> np.ndarray:
    return array[row] if array.shape[:1] == (size,) else array


def _any_differs(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return any(differ(x, y) for x, y in zip(a, b, strict=False))


def batch_sizes(case: Case) -> str:
    """One row and odd numbers of rows work, and give each row the same densities."""
    for size in (1, 3):
        try:
            few = case.few(size)
        except ProgramFailure as failure:
            raise BrokenRule(
                f"with a batch of {_counted(size)} {failure}: keep the axis of the rows (no squeeze())"
            ) from failure
        for label, site, other in _pairs(case.traces, few):
            mine = site.log_prob[:size] if site.local else site.log_prob
            if differ(mine, other.log_prob, site.dims):
                network = _culprit(_cut(case.traces.calls, case.size, size), few.calls, 0, size)
                who = f"network {network!r}" if network else f"site {label}"
                raise BrokenRule(
                    f"{who} gives a row another density with {_counted(size)} than with {case.size}: {APART}"
                )
    return f"the same densities with 1, 3 and {case.size} rows{_alone_in_training(case)}"


def _alone_in_training(case: Case) -> str:
    """Tell what becomes of a single row in train mode, which training refuses where an epoch has one."""
    try:
        with case.mode(train=True) as probe:
            probe.trace(case.batch(1), case.seed)
    except ProgramFailure as failure:
        return f"; in train mode with one row {failure}: choose a batch size that leaves no such batch"
    return ""


def _cut(calls: list[Call], size: int, fewer: int) -> list[Call]:
    def cut(arrays: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
        return tuple(array[:fewer] if array.shape[:1] == (size,) else array for array in arrays)

    return [Call(call.network, cut(call.inputs), cut(call.outputs)) for call in calls]


def _counted(size: int) -> str:
    return "1 row" if size == 1 else f"{size} rows"


def particles(case: Case) -> str:
    """Networks keep leading axes: several samples of the guide at once give what they give one by one."""
    if case.plain:
        raise NotApplicable("stock ELBOs draw the particles of a plain program one by one")
    try:
        many = case.probe.trace(case.batch(), case.seed, particles=PARTICLES)
    except ProgramFailure as failure:
        raise BrokenRule(f"with {PARTICLES} samples per row {failure}: {_keep(case)}") from failure
    except BrokenRule as broken:
        raise BrokenRule(f"{_who(case, broken.calls, str(broken))}: {_keep(case)}") from broken
    for label, site in many.both().items():
        wanted = (PARTICLES, case.size) if site.local else (PARTICLES, 1)
        if site.log_prob is None or site.log_prob.shape not in (wanted, wanted[1:], ()):
            got = "no density" if site.log_prob is None else f"densities of shape {site.log_prob.shape}"
            wrong = f"site {label} has {got} with {PARTICLES} samples per row, not {wanted}"
            who = _who(case, many.calls, wrong)
            raise BrokenRule(f"{who}: {_keep(case, who == wrong)}")
    for number in range(PARTICLES):
        _same_as_alone(case, many, number)
    return f"{PARTICLES} samples per row at once give the densities of one by one"


def _who(case: Case, calls: Sequence[Call], otherwise: str) -> str:
    network = next((call.network for call in calls if _swallows(call, case.size)), None)
    return f"network {network!r} swallows the axis of the samples" if network else otherwise


def _keep(case: Case, no_network: bool = False) -> str:
    if no_network and any(not (site.local or site.observed) for site in case.traces.model.values()):
        return BY_WEIGHTS
    return (
        f"networks must take [{PARTICLES}, {case.size}, ...] as well as [{case.size}, ...]: "
        "flatten and reshape from the last axes only"
    )


def _swallows(call: Call, size: int) -> bool:
    lead = (PARTICLES, size)
    asked = any(array.shape[:2] == lead for array in call.inputs)
    return asked and not all(array.shape[:2] == lead for array in call.outputs)


def _same_as_alone(case: Case, many: Traces, number: int) -> None:
    values: dict[str, np.ndarray] = {}
    for name, site in case.traces.guide.items():
        if not site.observed:
            values[name] = _particle(many.guide[name].value, number, site.value.shape)
    alone = case.probe.trace(case.batch(), case.seed, values=values)
    for label, site, other in _pairs(alone, many):
        if differ(site.log_prob, _particle(other.log_prob, number, site.log_prob.shape), site.dims):
            mixed = f"site {label} has other densities with {PARTICLES} samples per row than with one"
            raise BrokenRule(f"{_who(case, many.calls, mixed)}: {_keep(case)}")


def _particle(array: np.ndarray, number: int, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return one particle of an array as it would be without particles; None where the shapes do not fit."""
    count = int(np.prod(shape, dtype=np.int64))
    if array.size == count:
        return array.reshape(shape)
    return array[number].reshape(shape) if array.size == PARTICLES * count else None
