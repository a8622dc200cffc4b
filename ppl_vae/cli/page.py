"""report.html of a run: made from what its verbs return."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ppl_vae.api import Run
from ppl_vae.cli.running import say
from ppl_vae.cli.training import validation
from ppl_vae.errors import PplVaeError

NAME = "report.html"
SHOWN = 64


def write(run: Run, files: Mapping[str, Any] | None = None) -> str | None:
    """Write report.html into the run's folder, together with other files as one group; returns its path."""
    if run.folder is None:
        return None
    files = dict(files or {})
    run.folder.write(files | {NAME: html(run, files).encode("utf-8", "backslashreplace")})
    return str(run.folder.path / NAME)


def html(run: Run, fresh: Mapping[str, Any] | None = None) -> str:
    """Return the page: curves, samples, reconstructions, numbers, configuration."""
    from ppl_vae import report  # with matplotlib, which no training waits for

    config = run.config
    data, versions, _ = (config.pop(name) for name in ("data", "versions", "program"))
    about = {
        "title": f"{run.name} on {data['name']}",
        "program": run.name,
        "backend": run.backend,
        "steps": run.steps,
    }
    about |= {
        "data": data,
        "versions": versions,
        "config": config,
        "numbers": numbers(run, fresh or {}),
    }
    originals, made, drawn = pictures(run)
    return report.html(about, run.history, drawn, originals, made, data["kind"])


def numbers(run: Run, fresh: Mapping[str, Any]) -> dict[str, Any]:
    """Return all results of a run: validation in training, and every evaluation in its folder."""
    best = validation(run)
    results: dict[str, Any] = (
        {"validation in training": {name: best[name] for name in ("elbo_nats", "elbo_stderr", "step")}}
        if best
        else {}
    )
    names = {
        name
        for name in (*fresh, *run.folder.names())
        if name.startswith("evaluation-") and name.endswith(".json")
    }
    for name in sorted(names):
        results[name.removesuffix(".json")] = json.loads(
            fresh[name] if name in fresh else run.folder.read(name)
        )
    return results


def pictures(run: Run) -> tuple[Any, Any, Any]:
    """Return rows, their reconstructions and samples, each by field; None where a program gives none."""
    rows = _tried(lambda: first_rows(run, SHOWN))
    made = _tried(lambda: run.reconstruct(rows)) if rows else None
    names = set(made or {}) or {"x"}
    originals = {name: rows[name] for name in names if name in rows} if rows else None
    count = len(next(iter(rows.values()))) if rows else SHOWN
    others = (
        {name: rows[name] for name in run.bound.fields if rows and name in rows and name not in names}
        if rows
        else {}
    )
    drawn = _tried(lambda: run.sample(count if others else SHOWN, covariates=others))
    return originals, made, _compared(run, drawn, names) if drawn else None


def _compared(run: Run, drawn: Mapping[str, np.ndarray], names: set[str]) -> dict[str, np.ndarray] | None:
    """Return what stands beside the data: draws, whose zeros and spread are the model's; of pictures and
    sounds the centres, which show what is drawn without its noise.
    """
    of_centres = run.record.data.kind in ("image", "sound")
    taken = {name: f"{name}_mean" if of_centres else name for name in names}
    return {name: drawn[key] for name, key in taken.items() if key in drawn} or None


def first_rows(run: Run, most: int) -> dict[str, np.ndarray] | None:
    """Return the first validation rows (else test, else training rows), as they are scored."""
    if run.data is None:
        return None
    split = next(split for split in ("valid", "test", "train") if run.data.num_rows(split))
    return {name: values[:most] for name, values in run.data.rows(split).items()}


def _tried(verb: Any) -> Any:
    try:
        return verb()
    except PplVaeError as error:
        say(f"not in the report: {error}")
        return None
