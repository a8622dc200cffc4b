"""Draws of a posterior in ArviZ's layout, whatever program, backend and method they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

import numpy as np

from ppl_vae.diagnostics.netcdf import to_arviz, to_netcdf
from ppl_vae.errors import UsageError
from ppl_vae.summaries import Row, Summarised, shape_text

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["METHODS", "PosteriorDraws", "to_arviz", "to_netcdf", "to_tree"]

METHODS = ("guide", "importance")
_LIBRARIES = {"pyro": "pyro-ppl", "numpyro": "numpyro"}
# What the draws of a method are, and how to use them: attributes of every tree.
_STATES = {
    "guide": "draws of the guide q(z | x), not of the posterior p(z | x)",
    "importance": "draws of the guide q(z | x), resampled by importance weights to be draws of p(z | x)",
}
_USES = {
    "guide": "weight a draw by exp(log_weight), or ask for method='importance', to speak of the posterior",
    "importance": "equally weighted: log_weight is a record only; values repeat; "
    "trust a row with pareto_k < 0.7",
}
INDEPENDENT = (
    "draws are independent, not a Markov chain: R-hat and the effective sample sizes of chains tell nothing"
)
NOT_LOO = "given one z per row: not a leave-one-out density, so its loo and waic measure no prediction"


@dataclass(repr=False)
class PosteriorDraws(Summarised):
    """Draws by site, as NumPy arrays. S draws, N rows; `*event` is what a site draws for one row.

    Attributes
    ----------
    method, backend, program : str
        "guide" or "importance", "pyro" or "numpyro", and the program's name.
    rows : str
        Name of the plate over the rows.
    posterior : dict of str to [S, N, *event], or [S, *event]
        By latent site: local or global. A site of codebook vectors brings its codes along as `<site>_codes`.
    log_likelihood : dict of str to [S, N], or [S]
        By observed site, in nats, at the draws of `posterior`.
    observed_data : dict of str to [N, *event]
        By observed site, as the program saw it.
    plates : dict of str to tuple of str
        By site: the plates that its axes right of S belong to, the rows first. `()` for a global site.
    posterior_predictive, prior, prior_predictive : dict of str to [S, N, *event]
        Draws of p(x' | z), p(z) and p(x'), given the rows' covariates. Empty where they were not asked for.
    log_weight : [S, N]
        log p(x, z) - log q(z | x) over a row's local sites, in nats, not normalised.
    log_weight_global : [S] or None
        The same over the global sites, where there are any.
    row_statistics : dict of str to [N]
        `pareto_k`, `ess` and `log_evidence` of a row's weights; empty where one weight per row means
        nothing, which `note` explains.
    proposals : int
        Draws of the guide per row behind the row statistics.
    note : str
    """

    method: str
    backend: str
    program: str
    rows: str
    posterior: dict[str, np.ndarray]
    log_likelihood: dict[str, np.ndarray]
    observed_data: dict[str, np.ndarray]
    plates: dict[str, tuple[str, ...]]
    log_weight: np.ndarray
    log_weight_global: np.ndarray | None = None
    posterior_predictive: dict[str, np.ndarray] = field(default_factory=dict)
    prior: dict[str, np.ndarray] = field(default_factory=dict)
    prior_predictive: dict[str, np.ndarray] = field(default_factory=dict)
    row_statistics: dict[str, np.ndarray] = field(default_factory=dict)
    proposals: int = 0
    note: str = ""

    def _summary(self) -> tuple[str, list[Row]]:
        title = f"PosteriorDraws of {self.program} ({self.backend}), method={self.method!r}"
        return title, [(name, shape_text(values.shape)) for name, values in self.posterior.items()]


class _Axes:
    """Names and labels of axes, collected over all variables.

    Parameters
    ----------
    plates : dict of str to tuple of str
    dims : dict of str to sequence of str
        The user's names for the event axes of a site.
    rows : str
        The plate over the rows.
    """

    def __init__(self, plates: Mapping[str, tuple[str, ...]], dims: Mapping[str, Sequence[str]], rows: str):
        self.plates, self.dims, self.rows = plates, dims, rows
        self.sizes: dict[str, int] = {}
        self.columns: dict[str, str] = {}
        self.own: dict[str, tuple[str, ...]] = {}
        unknown = set(dims) - set(plates)
        if unknown:
            raise UsageError(f"dims name {', '.join(sorted(unknown))}: the sites are {', '.join(plates)}")

    def of(self, site: str, values: np.ndarray, lead: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of an array's axes: those before the site's own, its plates, its event axes."""
        fixed = (*lead, *(_plain(plate) for plate in self.plates.get(site, ())))
        free = values.ndim - len(fixed)
        names = tuple(self.dims.get(site, [_plain(f"{site}_dim_{i}") for i in range(free)]))
        if len(names) != free:
            raise UsageError(f"dims of {site!r}: {len(names)} names given, it has {free} axes within a row")
        if free == 1:
            self.columns[site] = names[0]
        self.own[site] = (*fixed[len(lead) :], *names)
        remedy = f"give the axes of {site!r} names of their own with dims"
        for name, size in zip((*fixed, *names), values.shape, strict=True):
            if self.sizes.setdefault(name, size) != size:
                raise UsageError(f"axis {name!r} has sizes {self.sizes[name]} and {size}: {remedy}")
        for name in names:
            if (*fixed, *names).count(name) > 1:
                raise UsageError(f"{site!r} has two axes called {name!r}: {remedy}")
        return (*fixed, *names)

    def labels(
        self, coords: Mapping[str, Sequence], columns: Mapping[str, Sequence]
    ) -> dict[str, np.ndarray]:
        """Return the labels of every axis: the user's, else the data's names of columns, else numbers."""
        unknown = set(coords) - set(self.sizes)
        if unknown:
            known = ", ".join(self.sizes)
            raise UsageError(f"coords name {', '.join(sorted(unknown))}: the axes are {known}")
        labels = {name: np.arange(size) for name, size in self.sizes.items()}
        labels |= {axis: np.asarray(columns[field]) for axis, field in self._fields(columns).items()}
        for axis, names in coords.items():
            if len(names) != self.sizes[axis]:
                size = self.sizes[axis]
                raise UsageError(f"coords of {axis!r}: {len(names)} labels given, the axis has {size}")
            labels[axis] = np.asarray(names)
        return labels

    def _fields(self, columns: Mapping[str, Sequence]) -> dict[str, str]:
        """Return the field whose names an axis has, by axis: a field's own, one that is called like a field,
        and of a global site the only one as long as the names of just one field. No axis of a local latent
        may be as long: there a length tells nothing.
        """
        lengths = {field: len(names) for field, names in columns.items()}
        found = {axis: site for site, axis in self.columns.items() if lengths.get(site) == self.sizes[axis]}
        found |= {name: name for name, size in self.sizes.items() if lengths.get(name) == size}
        shared = {site: axes for site, axes in self.own.items() if self.rows not in axes}
        local = {
            self.sizes[axis]
            for site, axes in self.own.items()
            if site not in shared and site not in columns
            for axis in axes
            if axis != self.rows
        }
        for axes in shared.values():
            sizes = [self.sizes[axis] for axis in axes]
            for axis, size in zip(axes, sizes, strict=True):
                fields = [field for field, length in lengths.items() if length == size > 1]
                if len(fields) == 1 and sizes.count(size) == 1 and size not in local:
                    found.setdefault(axis, fields[0])
        return found


def to_tree(
    draws: PosteriorDraws,
    *,
    coords: Mapping[str, Sequence] | None = None,
    dims: Mapping[str, Sequence[str]] | None = None,
    columns: Mapping[str, Sequence] | None = None,
) -> "xr.DataTree":
    """Return draws as an `xarray.DataTree` in ArviZ's layout.

    Parameters
    ----------
    draws : PosteriorDraws
    coords : dict of str to sequence
        Labels by name of an axis, such as `{"data": names of the rows, "z_dim_0": [...]}`.
    dims : dict of str to sequence of str
        Names of the axes within a row by site, in place of `<site>_dim_0` ...
    columns : dict of str to sequence
        Names of columns and classes by field where the data knows them (`Data.coords`); used where they fit,
        for axes of global sites too.

    Returns
    -------
    xarray.DataTree
        Groups posterior, posterior_predictive, log_likelihood, prior, prior_predictive, observed_data and
        sample_stats, with axes (chain, draw, plate, event). Its attributes say what the draws are.

    Raises
    ------
    UsageError
        For names that are no site or axis, or labels that do not fit.
    """
    import xarray as xr

    axes = _Axes(draws.plates, dims or {}, _plain(draws.rows))
    groups = _groups(draws, axes)
    labels = axes.labels(coords or {}, columns or {})
    tree = {"/": xr.Dataset(attrs=_attributes(draws))}
    for group, variables in groups.items():
        used = {name for names, _ in variables.values() for name in names}
        here = {name: values for name, values in labels.items() if name in used}
        tree[group] = xr.Dataset(variables, here, _attributes(draws, group))
    return xr.DataTree.from_dict(tree, name=draws.program)


def _groups(draws: PosteriorDraws, axes: _Axes) -> dict[str, dict[str, tuple[tuple[str, ...], np.ndarray]]]:
    chain, row = ("chain", "draw"), _plain(draws.rows)
    groups: dict[str, dict[str, tuple[tuple[str, ...], np.ndarray]]] = {}
    for group in ("posterior", "posterior_predictive", "prior", "prior_predictive"):
        for site, values in getattr(draws, group).items():
            values = values[None]
            groups.setdefault(group, {})[_plain(site)] = axes.of(site, values, chain), values
    for site, values in draws.log_likelihood.items():
        lead = (*chain, row)[: values.ndim + 1]
        groups.setdefault("log_likelihood", {})[_plain(site)] = lead, values[None]
    for site, values in draws.observed_data.items():
        groups.setdefault("observed_data", {})[_plain(site)] = axes.of(site, values, ()), values
    stats = {"log_weight": ((*chain, row), draws.log_weight[None])}
    if draws.log_weight_global is not None:
        stats["log_weight_global"] = chain, draws.log_weight_global[None]
    rows = {name: ((row,), values) for name, values in draws.row_statistics.items()}
    groups["sample_stats"] = stats | rows
    axes.sizes |= {"chain": 1, "draw": draws.log_weight.shape[0], row: draws.log_weight.shape[1]}
    return groups


def _plain(site: str) -> str:
    """Return a site's name without the slash, which parts groups in a file."""
    return site.replace("/", ".")


def _attributes(draws: PosteriorDraws, group: str = "") -> dict[str, Any]:
    library = _LIBRARIES.get(draws.backend, draws.backend)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    attributes: dict[str, Any] = {"created_at": now, "inference_library": draws.backend}
    if group == "log_likelihood":
        attributes["log_likelihood"] = NOT_LOO
    if group not in ("", "posterior", "sample_stats"):
        return attributes
    attributes |= {
        "inference_library_version": _version(library),
        "creation_library": "ppl_vae",
        "creation_library_version": _version("ppl-vae"),
        "xarray_version": _version("xarray"),
        "program": draws.program,
        "method": draws.method,
        "draws": _STATES[draws.method],
        "use": draws.note or _USES[draws.method],
        "r_hat": INDEPENDENT,
        "log_likelihood": NOT_LOO,
    }
    if draws.proposals:
        attributes["proposals_per_row"] = draws.proposals
    return attributes


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:  # a checkout on the path, not installed
        return "unknown"
