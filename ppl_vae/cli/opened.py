"""The run and the rows that a verb works on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae import checks
from ppl_vae.api import Run, open_run
from ppl_vae.cli.output import ROW_NAMES, label
from ppl_vae.cli.running import say
from ppl_vae.data import Data
from ppl_vae.data.delimited import number
from ppl_vae.data.files import columns, read
from ppl_vae.data.roles import Roles
from ppl_vae.errors import UsageError

_NONE_OF_THEM = ("x", "index", "ignore")  # roles of columns that are no covariates


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
            say(f"{options.data} is other data than the run was trained on (its sha256 differs)")
        return dataset
    if run.given is None:
        raise UsageError("the run's data was made in memory: name the rows with --data FILE")
    return described.again(offline=True) if options.offline else run.data


def rows(run: Run, options: Any) -> tuple[dict[str, np.ndarray], np.ndarray | None, str]:
    """Return the rows of --split, at most --rows of them, their names where a table has such, and what their
    results are called by, see `output.label`.
    """
    if options.rows is not None:
        checks.whole_number("rows", options.rows)
    dataset = data(run, options)
    dataset.refuse_empty(options.split)
    taken = {name: values[: options.rows] for name, values in dataset.rows(options.split).items()}
    names = dataset.names(options.split)
    return taken, None if names is None else names[: options.rows], label(run, dataset)


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
    if not _has_covariates(run):
        return {}
    observed = run.reconstruct({name: values[:1] for name, values in rows.items()})
    return {name: rows[name] for name in run.bound.fields if name in rows and name not in observed}


def _has_covariates(run: Run) -> bool:
    return len(run.record.data.shapes.keys() & set(run.bound.fields)) > 1


def covariates(run: Run, options: Any, n: int) -> dict[str, np.ndarray]:
    """Return n rows of the fields that the program takes beside its observations: of --covariates, of the
    file of latents, else of the training rows in turn.
    """
    if options.covariates is not None:
        return _given(run, options.covariates)
    if not _has_covariates(run):
        return {}
    if options.get("latents") is not None:
        fields = read(Path(options.latents)).fields
        given = {name: values for name, values in fields.items() if name in run.bound.fields}
        given = {name: values for name, values in given.items() if f"{name}_mean" not in fields}
        if given:
            return given
    if options.data is None and run.given is None:
        return {}
    dataset = data(run, options)
    fields = beside(run, dataset.rows("train" if dataset.num_rows("train") else "test"))
    checks.within_memory("n", n, n * sum(values[:1].nbytes for values in fields.values()))
    return {name: values[np.arange(n) % len(values)] for name, values in fields.items()}


def _given(run: Run, text: str) -> dict[str, Any]:
    """Return covariates of a file, or of NAME=VALUE,... for all rows; columns that are no covariates, as the
    run knows them, are left out.
    """
    path, described = Path(text), run.record.data
    if "=" in text and not path.exists():
        pairs = [part.partition("=") for part in text.split(",")]
        if any(not (name.strip() and value.strip()) for name, _, value in pairs):
            kinds = "give a file, or NAME=VALUE,NAME=VALUE ... (values with commas in a file)"
            raise UsageError(f"--covariates {text}: {kinds}")
        for place, (name, _, _) in enumerate(pairs):
            if name.strip() in [other.strip() for other, _, _ in pairs[:place]]:
                raise UsageError(f"--covariates {text}: {name.strip()!r} is given twice")
        cells = {name.strip(): number(value.strip()) for name, _, value in pairs}
        texts = {name.strip(): value.strip() for name, _, value in pairs}
        return {name: texts[name] if cell is None else cell for name, cell in cells.items()}
    roles = Roles(**described.roles)
    none = [name for role in _NONE_OF_THEM for name in roles.given.get(role, ())]
    known = {ROW_NAMES, *(described.columns or ()), *none}
    held = roles.by_field({n: values for n, values in columns(path).items() if n not in known})
    others = described.shapes.keys() - set(run.bound.fields)  # a label, where the program takes none
    return {name: values for name, values in held.items() if name not in others}
