"""What every backend's package has: each works on any bound program."""

from types import ModuleType

from ppl_vae import checks
from ppl_vae.backends.common.density import Density
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.posterior import draws
from ppl_vae.backends.common.predictive import decode, encode, reconstruct, sample
from ppl_vae.backends.common.supports import refuse_outside_rows

__all__ = ["Density", "decode", "draws", "encode", "reconstruct", "refuse_outside_rows", "sample", "score"]


def stock_elbo(infer: ModuleType, name: str) -> type:
    """Return a kind of ELBO of a library by its name, with or without that of the library's module; a
    UsageError where it has none.
    """
    library = infer.__name__
    kind = getattr(infer, name.removeprefix(f"{library}."), None)
    if not (isinstance(kind, type) and issubclass(kind, infer.ELBO)):
        known = [one for one in dir(infer) if one.endswith("_ELBO") and not one.startswith("Jit")]
        checks.one_of(f"ELBO of {library}", name, known)
    return kind
