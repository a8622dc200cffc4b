"""Likelihood of class labels."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.likelihoods.base import Array, Likelihood, whole


@dataclass(frozen=True)
class Categorical(Likelihood):
    """Class labels 0 ... K-1."""

    classes: int = whole(2)

    name = "categorical"
    takes = "labels"
    discrete = True
    distributions = ("Categorical",)

    @property
    def outputs(self) -> int:
        return self.classes

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return (F.moveaxis(outputs, 0, -1),)

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.Categorical(logits=logits)

    @classmethod
    def remedy(cls, low: float, high: float, levels: int | None) -> str:
        return "it needs whole numbers from 0 to the number of classes - 1: name that number"
