"""The library's verbs, over either backend."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ppl_vae.api.evaluation import evaluate
from ppl_vae.api.exporting import export
from ppl_vae.api.fitting import fit, resume
from ppl_vae.api.job import refuse_lost_mask
from ppl_vae.api.opening import open_run
from ppl_vae.api.run import Run, refuse_no_run
from ppl_vae.api.settings import check_backend, program_of, settle_binarize
from ppl_vae.api.signatures import hinting
from ppl_vae.backends import backend as backend_named
from ppl_vae.data.loading import in_memory
from ppl_vae.errors import UsageError
from ppl_vae.gallery import load
from ppl_vae.program import Program

if TYPE_CHECKING:
    from xarray import DataTree

    from ppl_vae.contract import CheckReport

__all__ = ["Run", "bind", "check", "evaluate", "export", "fit", "load", "open_run", "posterior", "resume"]


@hinting
def bind(
    program: Program,
    backend: str = "pyro",
    *,
    num_data: int | None = None,
    seed: int = 0,
    device: str = "cpu",
) -> Any:
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
        Its `model` and `guide` are ordinary functions of the backend's library; on Pyro it is a
        torch.nn.Module.
    """
    if not isinstance(program, Program):
        raise UsageError(f"{program!r} is no declared Program: plain functions need no binding")
    check_backend(program, backend)
    program.refuse_open()
    return backend_named(backend).bind(program, num_data=num_data, seed=seed, device=device)


@hinting
def check(program: Any, data: Any, backend: str | None = None, *, seed: int = 0) -> "CheckReport":
    """Check a program against the contract of the gallery: sites, shapes, guide, gradients, rows that leak,
    parity.

    Parameters
    ----------
    program : Program, (model, guide), or name or path of a model file
    data : Data, array, dict of arrays, DataFrame, or name or path
    backend : str, optional
        By default the program's first; its twin is compared where both are installed.
    seed : int
        Of weights, draws and the choice of rows.

    Returns
    -------
    CheckReport
        `report.ok`, a line a rule in `str(report)`, and `report.raise_if_failed()`.
    """
    from ppl_vae.contract import check as apply_rules

    program, dataset = program_of(program, backend), in_memory(data)
    backend = backend or program.backends[0]
    check_backend(program, backend)
    refuse_lost_mask(program, dataset)
    dataset = settle_binarize(program, dataset, backend)
    return apply_rules(program, dataset, _probes(program, backend), backend, seed)


def _probes(program: Any, backend: str) -> dict[str, Any]:
    probes = {backend: backend_named(backend).probe}
    for twin in set(program.backends) - {backend}:
        try:
            probes[twin] = backend_named(twin).probe
        except UsageError:  # the twin's libraries are not installed
            continue
    return probes


@hinting
def posterior(
    run: Run,
    x: Any,
    method: str = "guide",
    num_samples: int = 100,
    *,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, Any] | None = None,
    seed: int = 0,
    predictive: bool = True,
) -> "DataTree":
    """Draw latents given rows, with their weights, predictions, likelihoods and the prior beside them.

    Parameters
    ----------
    run : Run
    x : array, dict of arrays or table
        Rows, in the scale that the program was trained on; whole numbers are levels of the run's data. Names
        of rows, of a DataFrame or of `data.rows(split)`, label the result.
    method : str
        guide: draws of q(z | x), which are not the posterior unless weighted; importance: resampled by their
        weights.
    num_samples : int
        Draws per row.
    coords, dims : dict, optional
        Labels of axes, and names of the event axes of sites.
    seed : int
    predictive : bool
        Also draw observations given the latents, and the prior.

    Returns
    -------
    xarray.DataTree
        Groups as in ArviZ; `ppl_vae.diagnostics.posterior.to_arviz` and `to_netcdf` take it on.
    """
    from ppl_vae.diagnostics.posterior import to_tree

    refuse_no_run(run)
    draws = run.draws(x, num_samples, method=method, seed=seed, predictive=predictive)
    names = run.record.data.labels(x)
    if names is not None and run.program.declared:
        coords = {draws.rows: names} | dict(coords or {})
    tree = to_tree(draws, coords=coords, dims=dims, columns=run.names)
    tree.attrs["binarize"] = run.record.data.binarize
    return tree
