"""The library's verbs, over either backend."""

from typing import Any

from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import UsageError
from ppl_vae.api.fitting import fit, resume
from ppl_vae.gallery import load
from ppl_vae.program import Program
from ppl_vae.api.recorded import check_backend
from ppl_vae.api.run import Run, evaluate, open_run

__all__ = ["Run", "bind", "check", "evaluate", "fit", "load", "open_run", "posterior", "resume"]


def bind(program: Program, backend: str = "pyro", *, num_data: int | None = None, seed: int = 0, device: str = "cpu") -> Any:
    """Bind a declared program to a backend.

    Parameters
    ----------
    program : Program
        With all shapes set (see `Program.adapted_to`).
    backend : str
        pyro or numpyro.
    num_data : int, optional
        Rows of the whole data set: stock ELBOs then weight a batch by num_data / batch.
    seed : int
        Of the initial weights.
    device : str
        As the backend's library names it.

    Returns
    -------
    Bound
        Its `model` and `guide` are ordinary functions of the backend's library; on Pyro it is a torch.nn.Module.
    """
    if not isinstance(program, Program):
        raise UsageError(f"{program!r} is no declared Program: plain functions need no binding")
    check_backend(program, backend)
    return backend_named(backend).bind(program, num_data=num_data, seed=seed, device=device)
