"""Likelihood of bits."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.likelihoods.base import Array, Likelihood


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Bits, by their logits."""

    name = "bernoulli"
    takes = "bits"
    discrete = True
    distributions = ("Bernoulli",)

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.Bernoulli(logits=logits)

    @classmethod
    def remedy(cls, low: float, high: float, levels: int | None) -> str:
        if low >= 0 and high <= 1:
            grid = f"discretized_logistic:{levels}" if levels else "discretized_logistic"
            return f"draw bits with --binarize dynamic, or choose the likelihood {grid} or normal"
        return "choose the likelihood normal, or scale the data to [0, 1] and use --binarize dynamic"
