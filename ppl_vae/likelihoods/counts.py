"""Likelihoods of counts."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.likelihoods.base import Array, Likelihood, Shape, positive


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts, by the log of their mean."""

    name = "poisson"
    takes = "counts"
    discrete = True
    distributions = ("Poisson", "ZeroInflatedPoisson", "Binomial")

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return (F.exp(outputs[0]),)

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        return dist.Poisson(*parameters)

    @classmethod
    def remedy(cls, low: float, high: float, levels: int | None) -> str:
        return "it needs whole numbers from 0, without scaling; for other data choose the likelihood normal"


@dataclass(frozen=True)
class NegativeBinomial(Poisson):
    """Overdispersed counts, by the log of their mean and a learned concentration for each dimension."""

    name = "negative_binomial"
    distributions = ("GammaPoisson", "NegativeBinomial", "NegativeBinomial2")

    def free(self, x_shape: Shape) -> Shape | None:
        return x_shape

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return F.exp(outputs[0]), F.broadcast_to(positive(F, free), outputs[0].shape)

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        return dist.NegativeBinomial2(*parameters)


@dataclass(frozen=True)
class ZeroInflatedNegativeBinomial(NegativeBinomial):
    """Overdispersed counts with extra zeros, whose logits the decoder gives."""

    name = "zero_inflated_negative_binomial"
    distributions = ("ZeroInflatedNegativeBinomial", "ZeroInflatedNegativeBinomial2")
    outputs = 2

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return *super().parameters(F, outputs, free), outputs[1]

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        return dist.ZeroInflatedNegativeBinomial2(*parameters)
