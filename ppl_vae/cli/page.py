"""report.html of a run: made from what its verbs return."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ppl_vae.api import Run
from ppl_vae.cli import findings
from ppl_vae.cli.findings import most_rows
from ppl_vae.cli.running import say
from ppl_vae.cli.training import validation
from ppl_vae.diagnostics.reconstruction import with_gaps
from ppl_vae.errors import PplVaeError

NAME = "report.html"
SHOWN = 64
WORST = 8
CELLS = 2**22  # of the arrays that are drawn
_LABELS = ("y", "label", "labels", "batch")


class Tries:
    """Calls verbs; what one cannot do is told once, here and on the page."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def __call__(self, verb: Callable[[], Any]) -> Any:
        try:
            return verb()
        except PplVaeError as error:
            if str(error) not in self.reasons:
                self.reasons.append(str(error))
                say(f"not in the report: {error}")
            return None


def write(run: Run, files: Mapping[str, Any] | None = None) -> str | None:
    """Write report.html into the run's folder, together with other files as one group; returns its path."""
    if run.folder is None:
        return None
    from ppl_vae import report  # with matplotlib, which no training waits for

    files = dict(files or {})
    page = report.html(contents(run, files)).encode("utf-8", "backslashreplace")
    run.folder.write(files | {NAME: page})
    return str(run.folder.path / NAME)


def contents(run: Run, fresh: Mapping[str, Any] | None = None) -> Any:
    """Return what the page shows, a `report.Contents`.

    Parameters
    ----------
    run : Run
    fresh : mapping, optional
        Files about to be written, which count as the run's.
    """
    from ppl_vae.report import Contents

    tried, fresh = Tries(), fresh or {}
    found = findings.judged(run, fresh)
    split = tried(lambda: _split(run, found))
    whole = run.data.rows(split) if split else {}
    rows = most_rows(whole)
    scores = tried(lambda: run.score(rows)) if rows else None
    bound = found.bound if found and found.bound is not None else scores and scores.elbo
    return Contents(
        title=f"{run.name} on {run.record.data.name}",
        kind=run.record.data.kind,
        finding=findings.finding(run, found, split or "valid", rows, scores),
        columns=run.record.data.columns or (),
        latents=(tried(lambda: run.encode(rows)) if rows else None) or {},
        labels=_labels(run, rows),
        judged=0 if bound is None else len(bound),
        history=run.history,
        details=_details(run, fresh),
        **_pictures(run, whole, split, bound, "x" in scores.masked if scores else False, tried),
        missing=tried.reasons,
    )


def _split(run: Run, found: findings.Judged | None) -> str | None:
    """Return the split that the page shows: that of its bound, else the first that has rows."""
    if run.data is None:
        return None
    return found.split if found else next(s for s in ("valid", "test", "train") if run.data.num_rows(s))


def _pictures(
    run: Run,
    whole: Mapping[str, np.ndarray],
    split: str | None,
    bound: np.ndarray | None,
    masked: bool,
    tried: Tries,
) -> dict[str, Any]:
    """Return samples, rows, reconstructions and the rows of the lowest bound, of the main field."""
    most = SHOWN if run.record.data.kind in ("image", "sound") else findings.MOST
    first = most_rows(whole, most, CELLS) if whole else {}
    count = len(next(iter(first.values()), range(SHOWN)))
    lowest = np.argsort(bound)[: min(WORST, len(bound) // 2)] if bound is not None else []
    shown = {name: values[[*range(count), *lowest]] for name, values in whole.items()}
    made = (tried(lambda: run.reconstruct(shown)) if shown else None) or {}
    others = {name: first[name] for name in run.bound.fields if name in first and name not in (made or "x")}
    drawn = tried(lambda: run.sample(count, covariates=others)) or {}
    field = "x" if "x" in (made or shown or drawn) else next(iter(made or shown or drawn), "x")
    originals, made = with_gaps(shown, shown, masked).get(field), made.get(field)
    return {
        "samples": drawn.get(_compared(run, field)),
        "originals": None if originals is None else originals[:count],
        "reconstructions": None if made is None else made[:count],
        "worst": _worst(run, split, lowest, bound, _after(originals, count), _after(made, count)),
    }


def _after(values: np.ndarray | None, count: int) -> np.ndarray | None:
    return None if values is None else values[count:]


def _compared(run: Run, field: str) -> str:
    """Return what stands beside the data: draws, whose zeros and spread are the model's; of pictures and
    sounds the centres, which show what is drawn without its noise.
    """
    return f"{field}_mean" if run.record.data.kind in ("image", "sound") else field


def _worst(
    run: Run,
    split: str | None,
    lowest: Any,
    bound: np.ndarray | None,
    originals: np.ndarray | None,
    made: np.ndarray | None,
) -> list[Any]:
    from ppl_vae.report import Row

    if split is None or run.data is None:
        return []
    names = run.data.names(split)
    labels = _labels(run, run.data.raw(split))
    return [
        Row(
            int(number),
            float(bound[number]),
            "" if names is None else str(names[number]),
            "" if labels is None else f"{labels.field} {labels.name(int(labels.values[number]))}",
            None if originals is None else originals[place],
            None if made is None else made[place],
        )
        for place, number in enumerate(lowest)
    ]


def _labels(run: Run, rows: Mapping[str, np.ndarray]) -> Any:
    """Return the classes of rows: the field y, else the first one of whole numbers."""
    from ppl_vae.report import Labels

    fields = [name for name in (*_LABELS, *rows) if name in rows and name not in ("x", "mask")]
    for name in fields:
        values = rows[name]
        if values.ndim == 1 and values.dtype.kind in "biu":
            data, role = run.record.data, {"y": "label"}.get(name, name)
            called = data.roles.get(role) or name  # as the column is
            return Labels(called, values.astype(np.int64), data.classes.get(name, ()))
    return None


def _details(run: Run, fresh: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the tables of the page: all results, the configuration, and where it comes from."""
    best = validation(run)
    config = run.config
    data, versions, program = (config.pop(name) for name in ("data", "versions", "program"))
    results: dict[str, Any] = (
        {"validation in training": {name: best[name] for name in ("elbo_nats", "elbo_stderr", "step")}}
        if best
        else {}
    )
    about = {"program": program, "backend": run.backend, "steps": run.steps}
    return {
        "All results": results | findings.evaluations(run, fresh),
        "Configuration": config,
        "Data": data,
        "Provenance": about | {"versions": versions},
    }
