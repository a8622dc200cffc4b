"""The project's own distributions and likelihoods beside those of a library."""

from collections.abc import Iterable
from copy import copy
from functools import cache, partial
from types import ModuleType
from typing import Any, ClassVar

from ppl_vae import checks, likelihoods
from ppl_vae.distributions import OWN, base
from ppl_vae.functions import Functions


class Adapted:
    """A declared distribution as one of a library's; a backend's subclass is that too.

    Its parameters are attributes. `_shape` and `_support` make the library's shapes and constraints.
    """

    F: ClassVar[Functions]
    constraints: ClassVar[ModuleType]
    declares: ClassVar[type[base.Distribution]]
    declared: base.Distribution

    def __init__(self, *args: Any, validate_args: bool | None = None, **kwargs: Any):
        self._keep(self.declares(*args, **kwargs))
        super().__init__(*map(self._shape, self.declared.shapes(self.F)), validate_args=validate_args)

    def _keep(self, declared: base.Distribution) -> None:
        """Take over the parameters of a declared distribution."""
        raise NotImplementedError

    @classmethod
    def _members(cls, declared: type[base.Distribution]) -> dict[str, Any]:
        """Return what the library wants of the class of a declared distribution, beside what all want."""
        return {}

    @property
    def support(self) -> Any:
        """The library's own constraint where the declaration names one."""
        named = self.declares.support
        return getattr(self.constraints, named) if named else self._support(self.declared)

    def expand(self, batch_shape: Iterable[int], _instance: Any = None) -> "Adapted":
        """Return the same distribution with a larger batch shape; its parameters are not checked again."""
        new = copy(self)
        new._keep(self.declared.expanded(self.F, tuple(batch_shape)))
        new._batch_shape = self._shape(batch_shape)
        return new

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        """Return the log mass or log density in nats, [*batch]."""
        return self.declared.log_prob(self.F, value)

    @property
    def mean(self) -> Any:
        """What a reconstruction shows."""
        return self.declared.mean(self.F)


class Support:
    """The support that a declared distribution gives by `inside`; a backend's subclass is a constraint."""

    def __init__(self, declared: base.Distribution):
        self.declared, self.is_discrete, self.event_dim = declared, declared.discrete, declared.event_dim


@cache
def adapted(kind: type[Adapted], declared: type[base.Distribution]) -> type[Adapted]:
    """Return the class of a library, a subclass of `kind`, for a declared distribution."""
    members = {
        "__doc__": declared.__doc__,
        "declares": declared,
        "arg_constraints": {n: getattr(kind.constraints, c) for n, c in declared.arg_constraints.items()},
        "has_rsample": declared.reparametrised,
        "deterministic": declared.deterministic,
    }
    own = base.own_members(declared, kind.F, lambda self: self.declared)
    return type(declared.__name__, (kind,), members | kind._members(declared) | own)


def completed(library: ModuleType, kind: type[Adapted]) -> ModuleType:
    """Return a library's distributions and the project's own, as a program's `ppl.dist`."""
    dist = ModuleType("ppl.dist", "Distributions of the library and of the project.")

    def NegativeBinomial2(mean: Any, concentration: Any, validate_args: bool | None = None) -> Any:
        """Negative binomial by mean and concentration r: its variance is mean + mean^2 / r."""
        return library.GammaPoisson(concentration, concentration / mean, validate_args=validate_args)

    def likelihood(named: str | likelihoods.Likelihood, parameters: Any) -> Any:
        """Return a likelihood with the parameters of a network `nn.Likelihood` of the same name."""
        return likelihoods.parse(named).over(dist, parameters)

    own = {declared.__name__: adapted(kind, declared) for declared in OWN}
    own |= {
        "NegativeBinomial2": NegativeBinomial2,
        "likelihood": likelihood,
        "adapted": partial(adapted, kind),
    }
    vars(dist).update({name: value for name, value in vars(library).items() if name[0] != "_"} | own)

    def unknown(name: str) -> Any:
        raise checks.no_name("ppl.dist", name, (one for one in vars(dist) if one[0].isupper()))

    vars(dist)["__getattr__"] = unknown
    return dist
