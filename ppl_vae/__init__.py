"""Variational autoencoders as probabilistic programs: declared once, run on Pyro or NumPyro.

The public names are loaded when they are first used: `import ppl_vae` imports no backend.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ppl_vae import data
    from ppl_vae.api import Run, bind, check, evaluate, export, fit, open_run, posterior, resume
    from ppl_vae.gallery import load
    from ppl_vae.networks import Network
    from ppl_vae.objectives import ELBO, IWAE, STL, DReG, Objective
    from ppl_vae.program import Program

    __version__: str

_HOMES = {
    "Program": "program",
    "Network": "networks",
    "load": "gallery",
    **dict.fromkeys(("Objective", "ELBO", "IWAE", "DReG", "STL"), "objectives"),
    **dict.fromkeys(("bind", "fit", "resume", "evaluate", "posterior", "export", "check"), "api"),
    **dict.fromkeys(("open_run", "Run"), "api"),
}

__all__ = [  # noqa: RUF022 (in the order in which one meets them)
    "Program",
    "Network",
    "load",
    "data",
    "Objective",
    "ELBO",
    "IWAE",
    "DReG",
    "STL",
    "bind",
    "fit",
    "resume",
    "evaluate",
    "posterior",
    "check",
    "export",
    "open_run",
    "Run",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name == "data":
        return import_module("ppl_vae.data")
    if name == "__version__":
        value = _version()
    elif name in _HOMES:
        value = getattr(import_module(f"ppl_vae.{_HOMES[name]}"), name)
    else:
        raise AttributeError(f"module 'ppl_vae' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ppl-vae")
    except PackageNotFoundError:  # a checkout on the path, not installed
        return "0+unknown"
