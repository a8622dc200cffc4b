"""The project's own distributions and likelihoods beside those of a library."""

from collections.abc import Callable, Iterable
from copy import copy
from types import ModuleType
from typing import Any, ClassVar

from ppl_vae import likelihoods
from ppl_vae.distributions import OWN, base
from ppl_vae.functions import Functions


class Adapted:
    """A declared distribution as one of a library's; a backend's subclass is that too.

    Its parameters are attributes.
    """

    F: ClassVar[Functions]
    constraints: ClassVar[ModuleType]
    declares: ClassVar[type[base.Distribution]]
    declared: base.Distribution

    def _keep(self, declared: base.Distribution) -> None:
        """Take over the parameters of a declared distribution."""
        raise NotImplementedError

    @property
    def support(self) -> Any:
        """The library's own constraint where the declaration names one."""
        named = self.declares.support
        return getattr(self.constraints, named) if named else self._support(self.declared)

    def expand(self, batch_shape: Iterable[int], _instance: Any = None) -> "Adapted":
        """Return the same distribution with a larger batch shape; its parameters are not checked again."""
        new = copy(self)
        new._keep(self.declared.expanded(self.F, tuple(batch_shape)))
        new._batch_shape = type(self._batch_shape)(batch_shape)
        return new

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Return the log mass or log density in nats, [*batch]."""
        return self.declared.log_prob(self.F, value)

    @property
    def mean(self) -> Any:
        """What a reconstruction shows."""
        return self.declared.mean(self.F)


class Support:
    """The support that a declared distribution tells by `inside`; a backend's subclass is a constraint."""

    def __init__(self, declared: base.Distribution):
        self.declared, self.is_discrete, self.event_dim = declared, declared.discrete, declared.event_dim


def made(kind: type[Adapted], declared: type[base.Distribution], **more: Any) -> type[Adapted]:
    """Return a library's class for a declared distribution.

    Parameters
    ----------
    kind : type
        Its base.
    declared : type
    **more
        What the library wants of a class beside that.
    """
    members = {
        "__doc__": declared.__doc__,
        "declares": declared,
        "arg_constraints": {n: getattr(kind.constraints, c) for n, c in declared.arg_constraints.items()},
        "has_rsample": declared.reparametrised,
        "deterministic": declared.deterministic,
    }
    own = base.own_members(declared, kind.F, lambda self: self.declared)
    return type(declared.__name__, (kind,), members | more | own)


def beside(library: ModuleType, adapted: Callable[[type[base.Distribution]], type]) -> dict[str, Any]:
    """Return what `ppl.dist` has beside a library's own distributions, by name."""

    def NegativeBinomial2(mean: Any, concentration: Any, validate_args: bool | None = None) -> Any:
        """Negative binomial by mean and concentration r: its variance is mean + mean^2 / r."""
        return library.GammaPoisson(concentration, concentration / mean, validate_args=validate_args)

    def likelihood(named: str | likelihoods.Likelihood, parameters: Any) -> Any:
        """Return a likelihood with the parameters of a network `nn.Likelihood` of the same name."""
        return likelihoods.parse(named).over(library, parameters)

    own = {declared.__name__: adapted(declared) for declared in OWN}
    return own | {"NegativeBinomial2": NegativeBinomial2, "likelihood": likelihood}
