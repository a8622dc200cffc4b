"""Files that verbs write: whole or absent, and never over one that a person named."""

import io
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ppl_vae.api import Run
from ppl_vae.cli import page
from ppl_vae.cli.running import as_json, say
from ppl_vae.data import Data
from ppl_vae.errors import UsageError
from ppl_vae.report import image_grid
from ppl_vae.store import disk

SHOWN = 64
ROW_NAMES = "row_names"
LONGEST = 60  # characters of a name
COLUMNS = 8


@dataclass(frozen=True)
class Target:
    """Where a verb's arrays and their picture go."""

    path: Path
    picture: Path | None
    overwrite: bool
    named: bool = True  # by the person

    def of(self, label: str) -> "Target":
        """Return where results go: those of other data, which has a label, under names of their own where
        none was given.
        """
        if self.named or not label:
            return self
        picture = None if self.picture is None else _labelled(self.picture, label)
        return replace(self, path=_labelled(self.path, label), picture=picture)


def target(options: Any, name: str, picture: str | None = None) -> Target:
    """Return where to write: --out, else a file of the run's folder; refuses to overwrite unasked."""
    if options.out is None:
        place = {"split": options.get("split"), "method": options.get("method")}
        folder = Path(options.run)
        made = [folder / part.format(**place) for part in (name, picture) if part]
        for one in made:
            disk.refuse_place(one, overwrite=True)
        return Target(made[0], made[1] if picture else None, True, named=False)
    path = Path(options.out)
    if path.suffix != Path(name).suffix:
        raise UsageError(f"--out {path}: give a name that ends in {Path(name).suffix}")
    beside = path.with_suffix(".png") if picture else None
    for one in filter(None, (path, beside)):
        disk.refuse_place(one, options.overwrite)
    return Target(path, beside, options.overwrite)


def _labelled(path: Path, label: str) -> Path:
    kind, _, rest = path.name.partition("-")
    return path.with_name(f"{kind}-{label}-{rest}")


def label(run: Run, data: Data) -> str:
    """Return what results of other data than the run's own are called by; "" for the run's own."""
    own = data.sha256 == run.record.data.sha256
    return "" if own else f"{Path(data.name).stem[:LONGEST]}-{data.sha256[:8]}"


def arrays(
    run: Run,
    where: Target,
    fields: Mapping[str, np.ndarray],
    pictures: Mapping[str, np.ndarray] | None = None,
    originals: Mapping[str, np.ndarray] | None = None,
    names: np.ndarray | None = None,
) -> dict[str, Any]:
    """Write a verb's arrays, a PNG grid of images, a table of rows or columns that have names; return what to
    print.
    """
    table = where.path.with_name(f"{where.path.stem}-rows.csv")
    tabled = names is not None or bool(run.record.data.columns)
    if tabled:
        disk.refuse_place(table, where.overwrite)
    result = about(run) | {
        "n": count(fields),
        "arrays": {name: list(values.shape) for name, values in fields.items()},
    }
    named = {} if names is None else {ROW_NAMES: names}
    result |= {"out": str(disk.write(where.path, npz(fields | named), where.overwrite)), "picture": None}
    if tabled:
        result["table"] = str(disk.write(table, _table(run, fields, names), where.overwrite))
    shown = _images(run, pictures, originals) if where.picture is not None and pictures else None
    if shown is not None:
        png = io.BytesIO()
        image_grid(shown, COLUMNS).save(png, format="PNG")
        result["picture"] = str(disk.write(where.picture, png.getvalue(), where.overwrite))
    return result


def about(run: Run) -> dict[str, Any]:
    """Return what every result tells of its run."""
    return {"program": run.name, "backend": run.backend, "binarize": run.record.data.binarize}


def count(rows: Mapping[str, np.ndarray] | np.ndarray) -> int:
    """Return the number of rows."""
    return len(next(iter(rows.values()), ())) if isinstance(rows, Mapping) else len(rows)


def _images(
    run: Run, pictures: Mapping[str, np.ndarray], originals: Mapping[str, np.ndarray] | None
) -> np.ndarray | None:
    """Return the images to show: in lines, each line of originals above that of its reconstructions."""
    name = "x" if "x" in pictures else next(iter(pictures))
    made = pictures[name][:SHOWN]
    if run.record.data.kind != "image" or made.ndim != 4 or made.shape[1] not in (1, 3):
        return None
    if originals is None:
        return made
    whole = len(made) // COLUMNS * COLUMNS or len(made)
    lines = np.stack(
        [part[:whole].reshape(-1, min(COLUMNS, whole), *made.shape[1:]) for part in (originals[name], made)],
        1,
    )
    return lines.reshape(-1, *made.shape[1:])


def _table(run: Run, fields: Mapping[str, np.ndarray], names: np.ndarray | None) -> bytes:
    """Return numbers and vectors per row as CSV, after the names or the numbers of the rows; classes by their
    names, numbers of x by their columns'.
    """
    import pandas as pd

    columns, classes = {}, run.record.data.classes
    for field, values in fields.items():
        if values.ndim == 1:
            named = field in classes and values.dtype.kind in "iu"
            columns[field] = np.asarray(classes[field])[values] if named else values
        elif values.ndim == 2:
            own = run.record.data.columns if field in ("x", "x_mean", "mask") else None
            ending = "_mask" if field == "mask" else field.removeprefix("x")
            known = [f"{name}{ending}" for name in own or ()]
            if len(known) != values.shape[1]:
                known = [f"{field}_{i}" for i in range(values.shape[1])]
            columns |= dict(zip(known, values.T, strict=True))
    return pd.DataFrame(columns, index=names).to_csv(index_label="row").encode()


def npz(fields: Mapping[str, np.ndarray]) -> Callable[[BinaryIO], None]:
    """Return a writer of named arrays."""
    return lambda file: np.savez_compressed(file, **fields)


def is_kept(run: Run) -> bool:
    """Tell whether an evaluation can be kept in the run's folder, and say so of one that is read-only; one
    that another process writes to is refused before anything is computed.
    """
    if not os.access(run.folder.path, os.W_OK):
        say(f"nothing can be written to {run.folder.path}: the evaluation is told and not kept")
        return False
    with run.folder.lock():
        return True


def write_evaluation(
    run: Run,
    result: dict[str, Any],
    per_row: Mapping[str, np.ndarray],
    rows: int | None = None,
    label: str = "",
) -> dict[str, Any]:
    """Keep an evaluation and its bounds of every row in the run's folder, and write its report anew; `rows`
    is how many were asked for, `label` what other data is called by.
    """
    name = f"{result['split']}-k{result['k']}" if result["k"] else result["split"]
    name += f"-rows{rows}" if rows else ""
    name = f"evaluation-{label}-{name}" if label else f"evaluation-{name}"
    written = {f"{name}.json": json.dumps(as_json(result), indent=1).encode(), f"{name}.npz": npz(per_row)}
    report = page.write(run, written)
    return result | {"out": str(run.folder.path / f"{name}.json"), "report": report}
