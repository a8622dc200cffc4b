"""A trained program and its verbs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.api.record import RunRecord
from ppl_vae.api.rows import (
    as_rows,
    between,
    by_name,
    check_rows,
    check_shapes,
    count,
    needs,
    refuse_nan,
    repeated,
    zeros_of,
)
from ppl_vae.api.saving import save
from ppl_vae.api.signatures import hinting_methods
from ppl_vae.backends import backend as backend_named
from ppl_vae.data import Data
from ppl_vae.data.dataset import Rows
from ppl_vae.data.loader import rows_by_place, whole_batches
from ppl_vae.data.roles import Roles
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.diagnostics.posterior import PosteriorDraws
from ppl_vae.errors import UsageError
from ppl_vae.history import chosen
from ppl_vae.model_files import ModelSource
from ppl_vae.program import required
from ppl_vae.store import RunFolder
from ppl_vae.summaries import Row, Summarised, with_error
from ppl_vae.training import Position

# What is done with a run by a function, by the name that may be looked for in the run.
_ELSEWHERE = {
    "evaluate": "ppl_vae.evaluate(run)",
    "posterior": "ppl_vae.posterior(run, x)",
    "export": "ppl_vae.export(run, path)",
    "resume": "ppl_vae.resume(path)",
    "fit": "ppl_vae.fit(program, data)",
}


@hinting_methods
@dataclass(repr=False)
class Run(Summarised):
    """A program with trained weights.

    Attributes
    ----------
    bound : Bound
        `bound.model` and `bound.guide` are ordinary functions of the backend's library.
    given : Data, callable or None
        What `data` is, or what loads it; None after training on a loader.
    record : RunRecord
        The record of how it was made.
    history : list of dict
        Rows of metrics.jsonl.
    folder : RunFolder or None
        Where it is written.
    stopped_by : str or None
        The signal that ended training early.
    earlier_seconds : float
        Training time of the sessions before a resumed one.
    rank : int
        Which of the processes that train it this is: a script runs once per device, prints and writes on 0.
    position : Position or None
        Where its training stands; None of one that was opened.
    sources : dict of str to ModelSource
        Of program, objective and learning rate, where they are no longer as the folder has them.
    """

    bound: Any
    given: Data | Callable[[], Data] | None
    record: RunRecord
    history: list[dict[str, Any]] = field(default_factory=list)
    folder: RunFolder | None = None
    stopped_by: str | None = None
    earlier_seconds: float = 0.0
    rank: int = 0
    position: Position | None = None
    sources: Mapping[str, ModelSource] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        known = [one for one in dir(self) if not one.startswith("_")]
        hint = checks.meant(name, known, _ELSEWHERE)
        raise AttributeError(f"a Run has no {name!r}: {hint} has {', '.join(known)}")

    def _summary(self) -> tuple[str, list[Row]]:
        row, data = chosen(self.history, self.record.training.keep), self.record.data.name
        title = f"Run of {self.name} on {data} ({self.backend}), {self.steps:,} steps"
        if self.stopped_by:
            title += f", stopped by {self.stopped_by}"
        rows = []
        if row:
            bound = with_error(row["elbo_nats"], row.get("elbo_stderr"))
            rows.append(("ELBO", f"{bound} nats per row, on validation rows at step {row['step']:,}"))
        return title, rows + ([("folder", str(self.folder.path))] if self.folder else [])

    @property
    def name(self) -> str:
        """The program's name."""
        return self.record.program["name"]

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, as config.yaml holds it: to read."""
        return self.record.to_config()

    @property
    def data(self) -> Data | None:
        """What it was trained on, as it was trained on it. A run from a folder loads it when it is first
        needed.
        """
        if callable(self.given):
            self.given = self.given()
        return self.given

    @property
    def backend(self) -> str:
        """The backend that the program is bound to."""
        return self.bound.backend

    @property
    def program(self) -> Any:
        """The declared program."""
        return self.bound.program

    @property
    def steps(self) -> int:
        """Optimizer steps taken."""
        return max((row["step"] for row in self.history), default=0)

    def save(self, path: str | Path) -> Path:
        """Write the run into a new folder: one in memory so that it can be opened again, without the
        checkpoint that going on needs; one from a folder as a copy.

        Raises
        ------
        UsageError
            Where something lies at `path`, and for an objective that has no source.
        """
        if not self.rank:
            save(self, path)
        return Path(path)

    @property
    def _verbs(self) -> Any:
        return backend_named(self.backend)

    @property
    def names(self) -> dict[str, list[str]]:
        """Names of columns (x) and of classes by field, of the fields that the program takes."""
        data = self.record.data
        held = ({"x": data.columns} if data.columns else {}) | data.classes
        return {field: list(names) for field, names in held.items() if field in self.bound.fields}

    @property
    def takes_batches(self) -> bool:
        """It is two functions trained on a loader, whose batches they take whole, whatever these hold."""
        return not self.bound.declared and not self.bound.fields

    def _rows(self, x: Any, scored: bool = True) -> dict[str, np.ndarray]:
        """Return rows in the scale of training, refused where the likelihood cannot have made them."""
        data = self.record.data
        if self.takes_batches:
            rows = rows_by_place(x, self.bound.precision())
        else:
            given = data.named(x, self.bound.fields)
            scaled = data.scaled(check_rows(self.bound, given, data))
            rows = Rows(scaled, given.names, given.columns)
        like = "give rows like those of the training, or in another training "
        kept = between(data.binarize, scored)
        self._verbs.refuse_outside_rows(self.bound, rows, between=kept, first=like)
        return rows

    def _covariates(self, given: Mapping[str, Any] | None, n: int) -> dict[str, np.ndarray]:
        """Return n rows of covariates: as many as given, or the only one n times."""
        data, known = self.record.data, self.bound.fields
        roles = Roles(**data.roles)
        given = roles.by_field(by_name(given))
        for name in given:
            if name not in known:
                hidden = ("mask",) if needs(self.bound.program.model, "x") else ("x", "mask")
                listed = ", ".join(roles.column(one) for one in known if one not in hidden)
                takes = f"it takes {listed}" if listed else "it has no covariates"
                raise UsageError(f"covariates: {self.name} takes no {roles.called(name)}, {takes}")
        if "x" in given and not needs(self.bound.program.model, "x"):
            raise UsageError("covariates: x is what is drawn; encode and reconstruct take rows")
        needed = required(self.program, "model") if self.program.declared else ()
        if lost := [roles.called(name) for name in needed if name not in given and name != "x"]:
            raise UsageError(
                f"{self.name} draws rows given {lost[0]}, which is missing: give it in covariates=..."
            )
        rows = data.scaled(data.named({name: as_rows(value) for name, value in given.items()}, known))
        return repeated(check_shapes(self.bound, rows, data.shapes), n)

    def encode(self, x: Any, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the guide's latents of rows by site, [N, *event]: means, or one draw; of a code site also
        the codes' numbers.
        """
        return self._verbs.encode(self.bound, self._rows(x, scored=False), draw=draw, seed=seed)

    def decode(
        self, latents: Any, *, covariates: Mapping[str, Any] | None = None, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Return the likelihood's centre for latents by site (an array: the only or the lowest site), by
        observed field.
        """
        if not isinstance(latents, Mapping):
            latents = {self._only_latent(covariates): latents}
        n = min(map(count, latents.values()), default=0)
        latents = {name: np.asarray(value) for name, value in latents.items() if not name.endswith("_codes")}
        given = self._covariates(covariates, n)
        like = zeros_of(self.record.data, self.bound.fields)
        return self._verbs.decode(self.bound, latents, covariates=given, seed=seed, like=like)

    def _only_latent(self, covariates: Mapping[str, Any] | None) -> str:
        one = {name: as_rows(value)[:1] for name, value in by_name(covariates).items()}
        drawn = self.sample(1, covariates=one)
        names = [name for name in drawn if name not in self.bound.fields and not name.endswith("_mean")]
        if len(names) != 1:
            raise UsageError(f"the program has the latents {', '.join(names)}: give a dict of arrays by name")
        return names[0]

    def sample(
        self, n: int, *, covariates: Mapping[str, Any] | None = None, seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Draw n rows from the prior: every local site by name, and `<field>_mean`, the centre of its
        likelihood, beside the covariates used (n rows of each, or one for all). Global latents are drawn from
        the guide, once for all rows.
        """
        checks.whole_number("n", n)
        used = self._covariates(covariates, n)
        like = zeros_of(self.record.data, self.bound.fields)
        return self._verbs.sample(self.bound, n, covariates=used, seed=seed, like=like) | used

    def reconstruct(self, x: Any, *, draw: bool = False, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the likelihood's centre given each row's own latents, by observed field."""
        return self._verbs.reconstruct(self.bound, self._rows(x, scored=False), draw=draw, seed=seed)

    def score(
        self, x: Any, importance_samples: int | None = None, *, seed: int = 0, compile: str = "auto"
    ) -> Scores:
        """Return the terms of the unweighted bound of every row, in nats. After training two plain functions
        on a loader, `x` is a loader, a list of batches, or one batch as a loader yields it.
        """
        if importance_samples is not None:
            checks.whole_number("importance_samples", importance_samples, most=checks.COUNTS)
        batches = whole_batches(x) if self.takes_batches else None
        rows = self._rows(x) if batches is None else batches
        scores = self._verbs.score(self.bound, rows, importance_samples, seed=seed, compile=compile)
        refuse_nan(scores)
        return scores

    def draws(
        self,
        x: Any,
        num_samples: int = 100,
        *,
        method: str = "guide",
        seed: int = 0,
        predictive: bool = True,
    ) -> PosteriorDraws:
        """Return draws of the latents given rows, and all that goes with them, as arrays; see
        `ppl_vae.posterior`.
        """
        return self._verbs.draws(
            self.bound, self._rows(x), num_samples, method=method, seed=seed, predictive=predictive
        )

    def density(self, x: Any) -> Any:
        """Return log p(x, z) of rows as a function of their latents, on arrays of the backend, for samplers
        and estimators; see `ppl_vae.backends.common.density.Density`.
        """
        return self._verbs.Density(self.bound, self._rows(x))

    def log_prob(self, x: Any, importance_samples: int = 100, *, seed: int = 0) -> np.ndarray:
        """Return a lower bound on log p(x) of every row in nats, [N]: importance weighted, or the ELBO where
        weights do not apply.
        """
        scores = self.score(x, importance_samples, seed=seed)
        return scores.elbo if scores.iw is None else scores.iw


def refuse_no_run(given: Any) -> None:
    """Raise UsageError for what is no Run."""
    if not isinstance(given, Run):
        where = repr(str(given)) if isinstance(given, (str, Path)) else "path"
        raise UsageError(f"run is {type(given).__name__}: open its folder with open_run({where})")
