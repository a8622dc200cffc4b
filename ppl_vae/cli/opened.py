"""The run and the rows that a verb works on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.api import Run, open_run
from ppl_vae.cli.output import ROW_NAMES
from ppl_vae.cli.running import say
from ppl_vae.data import Data
from ppl_vae.data.files import read
from ppl_vae.errors import UsageError


def run(options: Any) -> Run:
    """Open the run that the command line names."""
    if options.get("run") is None:
        raise UsageError("name the folder of a run, such as runs/first")
    checks.seed(options.seed)
    return open_run(options.run, model_file=options.model_file, device=options.device)


def data(run: Run, options: Any) -> Data:
    """Return the data to work on: that of --data or the run's own, binarized as the run was trained."""
    described = run.record.data
    if options.data is not None:
        dataset = described.beside(options.data, offline=options.offline)
        if dataset.sha256 == described.sha256:
            run.given = dataset
        else:
            say(f"{options.data} is other data than the run was trained on")
        return dataset
    if run.given is None:
        raise UsageError("the run's data was made in memory: name the rows with --data FILE")
    return described.again(offline=True) if options.offline else run.data


def rows(run: Run, options: Any) -> dict[str, np.ndarray]:
    """Return the rows of --split, at most --rows of them."""
    return named_rows(run, options)[0]


def named_rows(run: Run, options: Any) -> tuple[dict[str, np.ndarray], np.ndarray | None]:
    """Return the rows of --split, at most --rows of them, and their names where a table has such."""
    if options.rows is not None:
        checks.whole_number("rows", options.rows)
    dataset = data(run, options)
    dataset.refuse_empty(options.split)
    taken = {name: values[: options.rows] for name, values in dataset.rows(options.split).items()}
    names = dataset.labels.get(options.split)
    return taken, None if names is None else names[: options.rows]


def latents(run: Run, options: Any) -> dict[str, np.ndarray] | np.ndarray:
    """Return the latents of --latents by site, or the only array, without what `sample` wrote beside them."""
    if options.latents is None:
        raise UsageError("name a file of latents: --latents z.npz")
    arrays = read(Path(options.latents)).fields
    if set(arrays) == {"x"} and "x" in run.bound.fields:  # an array without a name
        return arrays["x"]
    return {
        name: values
        for name, values in arrays.items()
        if name not in (*run.bound.fields, ROW_NAMES) and not name.endswith("_mean")
    }


def beside(run: Run, rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the fields of rows that the program takes beside its observations."""
    if len(run.bound.fields) <= 1:
        return {}
    observed = run.reconstruct({name: values[:1] for name, values in rows.items()})
    return {name: rows[name] for name in run.bound.fields if name in rows and name not in observed}


def covariates(run: Run, options: Any, n: int) -> dict[str, np.ndarray]:
    """Return n rows of the fields that the program takes beside its observations: of --covariates, of the
    file of latents, else of the training rows in turn.
    """
    if options.covariates is not None:
        return read(Path(options.covariates), classes=run.record.data.classes).fields
    if len(run.bound.fields) <= 1:
        return {}
    if options.get("latents") is not None:
        fields = read(Path(options.latents)).fields
        given = {name: values for name, values in fields.items() if name in run.bound.fields}
        given = {name: values for name, values in given.items() if f"{name}_mean" not in fields}
        if given:
            return given
    if run.data is None:
        return {}
    fields = beside(run, run.data.rows("train"))
    checks.within_memory("n", n, n * sum(values[:1].nbytes for values in fields.values()))
    return {name: values[np.arange(n) % len(values)] for name, values in fields.items()}
