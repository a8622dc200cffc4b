"""Likelihoods of numbers in [0, 1]."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.likelihoods.base import Array, Likelihood, positive


@dataclass(frozen=True)
class Unit(Likelihood):
    """Abstract: a density over [0, 1]."""

    takes = "unit"

    @classmethod
    def remedy(cls, low: float, high: float, levels: int | None) -> str:
        return "it needs numbers in [0, 1]: scale the data, or choose the likelihood normal"


@dataclass(frozen=True)
class ContinuousBernoulli(Unit):
    """The density whose form is the Bernoulli's (arXiv:1907.06845)."""

    name = "continuous_bernoulli"
    distributions = ("ContinuousBernoulli",)

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.ContinuousBernoulli(logits=logits)


@dataclass(frozen=True)
class LogitLaplace(Unit):
    """A Laplace variable on the logit scale (arXiv:2102.12092, appendix A.3)."""

    name = "logit_laplace"
    distributions = ("LogitLaplace",)
    outputs = 2

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], positive(F, outputs[1])

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.LogitLaplace(loc, scale)
