"""`export`: encoder, decoder or bound of a run as a file that runs without this library."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ppl_vae.api.rows import checked_rows
from ppl_vae.api.run import Run
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import RunError, UsageError
from ppl_vae.program import Program
from ppl_vae.store import disk

KINDS = ("encode", "decode", "score")
FORMS = (".pt2", ".onnx")
ROWS = 5  # to compare the file with the program on


def export(
    run: Run, path: str | Path, what: str = "encode", *, data: Any = None, overwrite: bool = False
) -> dict[str, Any]:
    """Write a part of a trained program as a file that torch or ONNX Runtime runs without this library.

    It is compared with the program itself on real rows before it is written.

    Parameters
    ----------
    run : Run
        Of a declared program, on Pyro.
    path : path
        FILE.pt2, which `torch.export.load(path).module()` reads; or FILE.onnx, which needs the extra `onnx`.
    what : str
        encode: rows to the centres of their latents by site. decode: latents by site (and the fields that
        the program takes beside) to the centre of the likelihood. score: rows to elbo, rate and distortion in
        nats, from one draw of the guide (.pt2 only). Each takes and returns a dict of arrays by name, for any
        number of rows.
    data : arrays, optional
        Rows to compare on; by default the run's own.
    overwrite : bool
        Replace a file that is there.

    Returns
    -------
    dict
        out, what and the bytes of the file.

    Raises
    ------
    UsageError
        For another suffix, an unknown `what`, a NumPyro run, or a file that exists.
    ProgramError
        For a plain program, or one that cannot be captured.
    """
    path = Path(path)
    _check(run, path, what, overwrite)
    if data is None and run.data is None:
        raise UsageError(
            "the run's data is not at hand: give some rows as data=... (on the command line --data)"
        )
    if data is None:
        split = next(name for name in ("test", "valid", "train") if run.data.num_rows(name))
        data = run.data.rows(split)
    rows = {name: values[:ROWS] for name, values in checked_rows(run.bound, data).items()}
    about = {"program": run.name, "steps": run.steps, "made_by": "ppl-vae"}
    content = backend_named(run.backend).exported(run.bound, what, rows, about, path.suffix)
    try:
        disk.replace(path, content)
    except OSError as error:
        raise RunError(
            f"cannot write {path} ({error.strerror or error}): free space, or name another file"
        ) from error
    return {"out": str(path), "what": what, "bytes": len(content)}


def _check(run: Run, path: Path, what: str, overwrite: bool) -> None:
    if path.suffix not in FORMS:
        raise UsageError(f"{path}: give a name that ends in {' or '.join(FORMS)}")
    if what not in KINDS:
        raise UsageError(f"what={what!r}: choose one of {', '.join(KINDS)}")
    if run.backend != "pyro" or not isinstance(run.program, Program):
        kind = "NumPyro run" if run.backend != "pyro" else "plain program"
        raise UsageError(f"a {kind} cannot be exported: train a declared Program with backend pyro")
    if path.suffix == ".onnx" and what == "score":
        raise UsageError("ONNX has no noise that can be seeded and checked: export score as .pt2")
    if path.suffix == ".onnx" and not (find_spec("onnxscript") and find_spec("onnxruntime")):
        raise UsageError("for .onnx install the extra: pip install 'ppl-vae[onnx]'")
    if path.exists() and not overwrite:
        raise UsageError(f"{path} exists and is not overwritten: name another file, or overwrite it")
    if not path.parent.is_dir():
        raise UsageError(f"there is no folder {path.parent}: make it first")
