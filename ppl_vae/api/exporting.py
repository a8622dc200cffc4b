"""`export`: encode, decode or score of a run as a file that needs torch or ONNX Runtime, and no ppl_vae."""

from pathlib import Path
from typing import Any

import numpy as np

from ppl_vae.api.record import versions
from ppl_vae.api.rows import check_rows
from ppl_vae.api.run import Run, refuse_no_run
from ppl_vae.api.signatures import hinting
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import UsageError
from ppl_vae.store import disk

COMPARED = 5


@hinting
def export(
    run: Run,
    path: str | Path,
    what: str = "encode",
    *,
    data: Any = None,
    overwrite: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Write a verb of a run as one graph with its weights, once it has given the run's own numbers for rows.

    `torch.export.load(path).module()` takes the inputs by name, any number of rows, and returns a dict; it
    needs torch alone. In a .pt2 each call draws anew where the verb draws.

    Parameters
    ----------
    run : Run
        Of a declared program, on Pyro.
    path : path
        Ends in .pt2 (torch) or .onnx (needs the extra `onnx`).
    what : str
        encode: rows to the guide's means by site, as `Run.encode`; decode: latents and covariates to the
        likelihood's centre by field, as `Run.decode`; score: rows to `elbo`, `rate` and `distortion`, nats
        per row, as `Run.score`.
    data : Data or arrays, optional
        Rows to compare on, where the run's own are not at hand.
    overwrite : bool
        Replace a file that lies there.
    seed : int
        Of the draws that graph and run are compared on.

    Returns
    -------
    dict
        `inputs` and `outputs` with types and shapes, `difference` (the largest seen), and `out`, the path.

    Raises
    ------
    UsageError
        For a verb, a path or a run that cannot be written.
    ProgramError
        For a program that is no single graph, or gives other numbers as one; nothing is written.
    """
    refuse_no_run(run)
    path = Path(path)
    check_export(run, path, what)
    disk.refuse_place(path, overwrite)
    about = {
        "program": run.name,
        "binarize": run.record.data.binarize,
        "steps": run.steps,
        "versions": {n: v for n, v in versions().items() if n in ("ppl-vae", "torch")},
    }
    made = backend_named(run.backend).export(run.bound, _rows(run, data), what, path.suffix, about, seed)
    disk.write(path, made.content, overwrite)
    return made.about | {"difference": made.difference, "bytes": len(made.content), "out": str(path)}


def check_export(run: Run, path: Path, what: str) -> None:
    """Refuse a run, a kind of file or a verb that cannot be exported, before any data is loaded.

    Raises
    ------
    UsageError
    """
    if run.backend != "pyro":
        raise UsageError(
            f"an export is a graph of torch and the run is on {run.backend}: "
            "train the program with backend pyro"
        )
    if not run.program.declared:
        raise UsageError(
            f"{run.name} is plain Pyro, whose parameters lie outside of any module: "
            "only a declared Program can be one graph"
        )
    backend_named(run.backend).check_export(what, path.suffix)


def _rows(run: Run, data: Any) -> dict[str, np.ndarray]:
    """Return some rows as they are scored: of the validation split, else of another one."""
    data = run.data if data is None else run.record.data.beside(data, run.bound.fields)
    if data is None:
        raise UsageError("the run's data is not at hand: give rows to compare on as data=...")
    split = next(name for name in ("valid", "test", "train") if data.num_rows(name))
    rows = {name: value[:COMPARED] for name, value in data.rows(split).items()}
    return check_rows(run.bound, rows)
