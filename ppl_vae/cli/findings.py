"""What a run's report says of its bound: the number, what it is compared to, and the bound of every row."""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ppl_vae.api import Run
from ppl_vae.cli.running import say
from ppl_vae.cli.training import validation
from ppl_vae.data.batches import count_rows, dims_of
from ppl_vae.data.dataset import ALL
from ppl_vae.data.masks import observed
from ppl_vae.diagnostics.baseline import independent
from ppl_vae.diagnostics.evidence import Scores, stderr
from ppl_vae.errors import DataError
from ppl_vae.report.contents import Comparison, Finding

BUDGET = 2**25
MOST = 1000
DIVERGED = 1000.0  # nats per number of x
FEWEST = 10

Rows = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Judged:
    """A split, the numbers that are known of it, and the bound of every row, where it is kept."""

    split: str
    numbers: Mapping[str, Any]
    bound: np.ndarray | None = None


def evaluations(run: Run, fresh: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every evaluation in a run's folder, and those about to be written, by name."""
    kept = () if run.folder is None else run.folder.names()
    names = {name for name in (*fresh, *kept) if name.startswith("evaluation-") and name.endswith(".json")}
    contents = {name: fresh[name] if name in fresh else run.folder.read(name) for name in sorted(names)}
    return {name.removesuffix(".json"): _result(content) for name, content in contents.items()}


def _result(content: bytes) -> dict[str, Any]:
    try:
        result = json.loads(content)
    except (ValueError, RecursionError):
        result = None
    return result if isinstance(result, dict) else {"damaged": "no result"}


def judged(run: Run, fresh: Mapping[str, Any]) -> Judged | None:
    """Return what the report speaks of: the evaluation of these weights on the run's own data (test before
    other splits, more draws before fewer), else the validation in training; None where there is neither.
    """
    own = {
        name: result
        for name, result in evaluations(run, fresh).items()
        if result.get("data_sha256") == run.record.data.sha256 and result.get("steps") == run.steps
        if _is_whole(run, result)
    }
    if own:
        name, result = max(own.items(), key=lambda item: _rank(item[1]))
        return Judged(result["split"], result, _bound(run, fresh, name, result["n"]))
    row = validation(run)
    return Judged("valid", dict(row) | {"n": run.record.data.rows.get("valid", 0)}) if row else None


def _is_whole(run: Run, result: Mapping[str, Any]) -> bool:
    """Whether a result holds what a sentence needs: it may be from elsewhere."""
    held, k = run.record.data.rows, result.get("k")
    rows = (held | {ALL: sum(held.values())}).get(str(result.get("split")))
    numbers = [result.get("elbo_nats"), *([result.get("iw_nats")] if k else [])]
    whole = isinstance(result.get("n"), int) and rows is not None and 0 < result["n"] <= rows
    return whole and isinstance(k, int | None) and all(isinstance(one, float | int) for one in numbers)


def _rank(result: Mapping[str, Any]) -> tuple[Any, ...]:
    return result["split"] == "test", result["split"] == "valid", result["k"] or 0, result["n"]


def _bound(run: Run, fresh: Mapping[str, Any], name: str, n: int) -> np.ndarray | None:
    """Return the bound of every row of an evaluation, [n], where it is kept."""
    name, content = f"{name}.npz", io.BytesIO()
    if name in fresh:
        fresh[name](content)
        content.seek(0)
    elif run.folder is not None and name in run.folder.names():
        content = io.BytesIO(run.folder.read(name))
    try:
        arrays = np.load(content)
        bound = arrays["iw" if "iw" in arrays else "elbo"]
    except (EOFError, KeyError, OSError, ValueError, BadZipFile):
        return None
    return bound if bound.shape == (n,) and bound.dtype.kind == "f" else None


def most_rows(rows: Rows, most: int = MOST, budget: int = BUDGET) -> dict[str, np.ndarray]:
    """Return the first rows: as many as the page shows, fewer of wide ones."""
    return {name: values[: max(1, min(most, budget // dims_of(rows)))] for name, values in rows.items()}


def finding(run: Run, found: Judged | None, split: str, rows: Rows, scores: Scores | None) -> Finding | None:
    """Return the bound as a sentence tells it.

    Parameters
    ----------
    found : Judged or None
    split : str
        Where `rows` are from.
    rows, scores
        The first rows of the split, and their terms, if they could be scored.
    """
    known = found.numbers if found else {}
    if not known and scores is None:
        return None
    if not known:
        known = {"elbo_nats": float(scores.elbo.mean()), "elbo_stderr": stderr(scores.elbo)}
        known |= {"n": len(scores.elbo)}
    tight = "iw" if known.get("iw_nats") is not None else "elbo"
    in_bits = scores is not None and (scores.discrete or run.data.levels is not None)
    return Finding(
        run.name,
        split,
        known["n"],
        known[f"{tight}_nats"],
        known.get(f"{tight}_stderr"),
        known.get("k") if tight == "iw" else None,
        known.get("bits_per_dim") if in_bits else None,
        _compared(run, rows, scores, found.bound if found else None),
    )


def _compared(run: Run, rows: Rows, scores: Scores | None, bound: np.ndarray | None) -> Comparison | str:
    if scores is None:
        return "the rows are not at hand"
    train = most_rows(run.data.rows("train"), BUDGET)
    if count_rows(train) < FEWEST:
        return f"the training rows are fewer than {FEWEST}"
    masks = _masks(scores, train, rows)
    if isinstance(masks, str):
        return masks
    try:
        base = independent(
            train["x"],
            rows["x"],
            scores.discrete,
            _levels(run, train, scores),
            train_mask=masks[0],
            mask=masks[1],
        )
    except DataError as error:
        return str(error)
    bound = scores.elbo if bound is None else bound
    n = min(len(bound), len(base.log_prob))
    other = base.log_prob[:n]
    gain = bound[:n] - other
    columns = int(np.prod(rows["x"].shape[1:], dtype=np.int64))
    if -gain.mean() > DIVERGED * columns:
        say(
            f"the bound is {-gain.mean():.3g} nats per row below that of a model of independent columns: "
            "training diverged (as where the lr is too high) or has hardly begun"
        )
    return Comparison(
        float(other.mean()), float(gain.mean()), stderr(gain), n, count_rows(train), columns, base.family
    )


def _masks(scores: Scores, train: Rows, rows: Rows) -> tuple[np.ndarray | None, np.ndarray | None] | str:
    """Return which numbers of x the likelihood counts, or why that is unknown."""
    if "x" not in rows:
        return "the data have no field x"
    old, mask = (observed(held, "x" in scores.masked) for held in (train, rows))
    wide = int(np.prod(rows["x"].shape[1:], dtype=np.int64))
    if mask is not None and np.isclose(scores.dims, mask.sum() / len(mask)):
        return old, mask
    if scores.dims == wide:
        return None, None
    return f"the likelihood is of {scores.dims:g} numbers per row, x has {wide}"


def _levels(run: Run, train: Rows, scores: Scores) -> int | None:
    if run.data.binarize in ("dynamic", "static"):
        return 2
    whole = scores.discrete and run.data.levels is None and run.data.kind != "counts"
    return 2 if whole and np.isin(train["x"], (0, 1)).all() else run.data.levels
