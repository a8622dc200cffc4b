"""The backends. Each is a package with the same public names; `backend(name)` imports one."""

from importlib import import_module
from types import ModuleType

from ppl_vae import checks
from ppl_vae.errors import UsageError

NAMES = ("pyro", "numpyro")


def backend(name: str) -> ModuleType:
    """Return a backend's package.

    Raises
    ------
    UsageError
        For an unknown name, or one whose libraries are not installed.
    """
    checks.one_of("backend", name, NAMES)
    try:
        return import_module(f"ppl_vae.backends.{name}")
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("ppl_vae"):
            raise
        extra = "ppl-vae[numpyro]" if name == "numpyro" else "ppl-vae"
        raise UsageError(f"the backend {name} needs {error.name}: pip install '{extra}'") from None
