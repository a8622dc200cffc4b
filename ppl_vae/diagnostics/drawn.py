"""What the backends share when they draw posteriors: sites, arrays filled in chunks, resampling."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from ppl_vae import checks
from ppl_vae.diagnostics.importance import resample, statistics
from ppl_vae.diagnostics.posterior import METHODS, PosteriorDraws
from ppl_vae.errors import ProgramError

# Proposals of the guide for each draw that resampling keeps: the rule of Rubin (1988) is 10 to 20.
OVERSAMPLING = 10
# Streams of random numbers.
GUIDE, PREDICTIVE, PRIOR, RESAMPLE = range(4)


@dataclass(frozen=True, kw_only=True, eq=False)
class Sites:
    """A program's sites, read off a pair of traces.

    Attributes
    ----------
    latent, observed, factors : tuple of str
        Sites of the model.
    local : frozenset of str
        Sites in a plate over the rows, factors included.
    deterministic : tuple of str
        Latent sites for which the guide knows one value only.
    kept : dict of str to tuple of int
        By site: its batch axes that are more than a placeholder, counted from the right, the rows first.
    plates : dict of str to tuple of str
        By site: the names of the plates among them.
    largest, latents : int
        Numbers in one row of the largest site, and of all latent sites together.
    """

    latent: tuple[str, ...]
    observed: tuple[str, ...]
    factors: tuple[str, ...]
    local: frozenset[str]
    deterministic: tuple[str, ...]
    kept: dict[str, tuple[int, ...]] = field(default_factory=dict)
    plates: dict[str, tuple[str, ...]] = field(default_factory=dict)
    largest: int = 1
    latents: int = 1

    @property
    def shared(self) -> tuple[str, ...]:
        """All sites of the model outside the rows, which every row has in common."""
        return tuple(n for n in (*self.latent, *self.observed, *self.factors) if n not in self.local)

    @property
    def rows(self) -> str:
        """The name of the plate over the rows."""
        return next(
            (self.plates[name][0] for name in (*self.latent, *self.observed) if name in self.local), "data"
        )

    @property
    def note(self) -> str:
        """Why one weight per row means nothing, or nothing."""
        for name in self.shared:
            return f"site {name!r} is global: log_weight is given the global draw, no weight by itself"
        for name in self.deterministic:
            return (
                f"site {name!r} has one value only in the guide: log_weight is a log joint density, no weight"
            )
        return ""


def check_options(method: str, seed: int, **sizes: int) -> None:
    """Refuse an unknown method, a negative seed, and sizes that are no whole numbers of at least 1."""
    checks.one_of("method", method, METHODS)
    checks.seed(seed)
    for name, value in sizes.items():
        checks.whole_number(name, value)


class Store:
    """Arrays on the host by group and name, filled chunk by chunk.

    Parameters
    ----------
    count : int
        All draws.
    among : slice
        All rows.
    """

    def __init__(self, count: int, among: slice):
        self.count, self.among = count, among
        self.groups: dict[str, dict[str, np.ndarray]] = {}

    def put(
        self, group: str, name: str, array: np.ndarray, samples: slice | None, part: slice | None
    ) -> None:
        """Write [draws, rows, ...]; without `samples` or `part` the axis is missing."""
        found = self.groups.setdefault(group, {})
        where = [] if samples is None else [samples]
        sizes = [] if samples is None else [self.count]
        if part is not None:
            where.append(slice(part.start - self.among.start, part.stop - self.among.start))
            sizes.append(self.among.stop - self.among.start)
        if name not in found:
            found[name] = np.empty((*sizes, *array.shape[len(sizes) :]), array.dtype)
        found[name][tuple(where)] = array


@dataclass
class Found:
    """Draws of the guide: latents and codes [S, N, ...], densities [S, N], observations [N, ...]."""

    latent: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]
    observed: dict[str, np.ndarray]
    log_weight: np.ndarray
    log_weight_global: np.ndarray | None = None
    statistics: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, store: Store) -> "Found":
        """Return what was put into the groups latent, density, observed and weight."""
        groups = store.groups
        latent, density, observed = (groups.get(name, {}) for name in ("latent", "density", "observed"))
        return cls(latent, density, observed, groups["weight"]["local"], groups["weight"].get("global"))


def resampled(
    propose: Callable[[slice], Found], sites: Sites, blocks: Iterable[slice], count: int, seed: int
) -> Found:
    """Pick `count` of the proposals of every row by their weights.

    Parameters
    ----------
    propose : callable
        Gives the proposals of a block of rows.
    """
    for name in sites.shared:
        raise ProgramError(f"site {name!r} is global: no weight belongs to one row alone; use method='guide'")
    for name in sites.deterministic:
        raise ProgramError(f"site {name!r} has one value only in the guide: use method='guide'")
    parts = []
    for block in blocks:
        found = propose(block)
        index = resample(found.log_weight, count, np.random.default_rng([seed, RESAMPLE, block.start]))
        picked = index, np.arange(index.shape[1])
        latent = {name: values[picked] for name, values in found.latent.items()}
        density = {name: values[picked] for name, values in found.log_likelihood.items()}
        returned = Found(latent, density, found.observed, found.log_weight[picked])
        returned.statistics = statistics(found.log_weight)
        parts.append(returned)
    return _joined(parts)


def _joined(blocks: list[Found]) -> Found:
    def along(axis: int, part: str) -> dict[str, np.ndarray]:
        parts = [getattr(block, part) for block in blocks]
        return {name: np.concatenate([values[name] for values in parts], axis) for name in parts[0]}

    weight = np.concatenate([block.log_weight for block in blocks], 1)
    found = Found(along(1, "latent"), along(1, "log_likelihood"), along(0, "observed"), weight)
    found.statistics = along(0, "statistics")
    return found


def result(
    sites: Sites, found: Found, method: str, backend: str, program: object, oversampling: int
) -> PosteriorDraws:
    """Return draws with what is known of their sites; predictions and prior are left empty."""
    proposals = len(found.log_weight) * (oversampling if method == "importance" else 1)
    plates = dict(sites.plates)
    plates |= {f"{name}_codes": plates[name] for name in sites.latent if f"{name}_codes" in found.latent}
    return PosteriorDraws(
        method=method,
        backend=backend,
        program=getattr(program, "name", None) or type(program).__name__,
        rows=sites.rows,
        posterior=found.latent,
        log_likelihood=found.log_likelihood,
        observed_data=found.observed,
        plates=plates,
        log_weight=found.log_weight,
        log_weight_global=found.log_weight_global,
        row_statistics=found.statistics,
        proposals=0 if sites.note else proposals,
        note=sites.note,
    )


def predictions(
    simulate: Callable[[Mapping[str, np.ndarray], int], dict], sites: Sites, into: PosteriorDraws
) -> None:
    """Add draws of p(x' | z), and of p(z) and p(x').

    Parameters
    ----------
    simulate : callable
        Runs the model forward from latents by site, on a stream of random numbers.
    """
    into.posterior_predictive = simulate(into.posterior, PREDICTIVE)
    simulated = simulate({}, PRIOR)
    into.prior_predictive = {name: simulated.pop(name) for name in sites.observed}
    into.prior = simulated
