"""`evaluate`: the unweighted bound of a run on a split, or on other data, and what is reported beside it."""

from collections.abc import Mapping
from os import PathLike
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.api.run import Run, refuse_no_run
from ppl_vae.api.settings import check_compile
from ppl_vae.api.signatures import hinting
from ppl_vae.data import Data
from ppl_vae.data.masks import observed
from ppl_vae.diagnostics.evidence import Scores, summary
from ppl_vae.diagnostics.measures import measures
from ppl_vae.diagnostics.reconstruction import codebook_use, squared_error
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.summaries import Row, Summarised


class Evaluation(Summarised, dict):
    """What `evaluate` found: a dict that shows itself as a table."""

    def _summary(self) -> tuple[str, list[Row]]:
        of = f"{self['program']} on {self['data']} ({self['backend']}, {self['steps']:,} steps)"
        return f"{of}: {self['n']:,} {self['split']} rows", measures(self)


@hinting
def evaluate(
    run: Run,
    split: str = "test",
    importance_samples: int | None = None,
    *,
    data: Any = None,
    rows: int | None = None,
    seed: int = 0,
    compile: str = "auto",
) -> Evaluation:
    """Report the unweighted bound on a split: ELBO, rate, distortion, importance weighted bound, bits per
    dimension, standard errors.

    Parameters
    ----------
    run : Run
    split : str
        train, valid or test; all: the rows of all three, in this order.
    importance_samples : int, optional
        k of the importance weighted bound; none: only the ELBO.
    data : Data, arrays or DataLoader, optional
        Other data than the run's own. Arrays that name no splits (but for those that the run was trained on,
        which keep theirs) and a loader are evaluated whole. After training on a loader, rows are taken as
        they are.
    rows : int, optional
        Only the first rows of the split; the loader of a plain program is not cut.
    seed : int
        Of the guide's draws; the bits of binarized data belong to the protocol and never change.
    compile : str
        Compile the importance weights on Pyro: on, off, or auto, where there are many. On NumPyro they are
        always compiled.

    Returns
    -------
    Evaluation
        A dict, in nats per row. `per_row` holds the arrays `elbo` and `iw`, [N], so that two runs compare
        with paired errors.
    """
    refuse_no_run(run)
    if rows is not None:
        checks.whole_number("rows", rows)
    check_compile(compile, run.backend)
    taken, levels, facts = _taken(run, split, data)
    if isinstance(taken, Mapping):
        taken = {name: values[:rows] for name, values in taken.items()}
    # A row may not depend on the seed of the draws through its bits: these belong to the protocol.
    scores = run.score(taken, importance_samples, seed=seed, compile=compile)
    result = summary(scores, levels) | facts | _reconstructed(run, taken, scores)
    result |= {"program": run.name, "backend": run.backend, "steps": run.steps}
    per_row = {"elbo": scores.elbo, "rate": scores.rate}
    per_row |= {} if scores.iw is None else {"iw": scores.iw}
    return Evaluation(result | {"per_row": per_row})


def _taken(run: Run, split: str, data: Any) -> tuple[Any, int | None, dict[str, Any]]:
    """Return rows by field (or a loader for a plain program), the levels of their `x`, and what they are."""
    described = run.record.data
    named = isinstance(data, (Data, str, PathLike))
    if described.is_loader and not (named if run.takes_batches else isinstance(data, Data)):
        if data is None:
            raise UsageError("the run was trained on a loader: give what to evaluate on as data=...")
        given = data if run.takes_batches else described.named(data, run.bound.fields)
        return given, None, {"split": "all", "data": described.name, "binarize": described.binarize}
    if not isinstance(split, str):
        raise UsageError(f"split is the name of a split, no {type(split).__name__}: give rows as data=...")
    if data is None and run.data is None:
        raise UsageError("the run's data is not at hand: give it as data=...")
    chosen = run.data if data is None else described.beside(data, run.bound.fields)
    chosen.refuse_empty(split)
    facts = {"split": split, "data": chosen.name, "binarize": chosen.binarize}
    return chosen.rows(split), chosen.levels, facts


def _reconstructed(run: Run, rows: Mapping[str, np.ndarray], scores: Scores) -> dict[str, Any]:
    """Return the error of the reconstructions of `x`, and the use of codebooks; of several with the names of
    their sites.
    """
    if not run.program.declared or "x" not in rows:
        return {}
    try:
        mean = run.reconstruct(rows).get("x")
    except ProgramError:  # a likelihood without a mean
        mean = None
    result = (
        {}
        if mean is None or mean.shape != rows["x"].shape
        else squared_error(rows["x"], mean, observed(rows, "x" in scores.masked))
    )
    codes = scores.codes
    latents = run.encode(rows) if codes else {}
    for name, size in codes.items():
        use = codebook_use(latents[f"{name}_codes"], size, run.record.training.batch_size)
        result |= use if len(codes) == 1 else {f"{key}/{name}": value for key, value in use.items()}
    return result
