"""Likelihoods of grey levels on an even grid over [0, 1]."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.likelihoods.base import Array, Likelihood, Shape, positive, whole


@dataclass(frozen=True)
class Grey(Likelihood):
    """Abstract: a mass on each of `levels` grid points."""

    levels: int = whole(256)

    takes = "grey"
    discrete = True

    @classmethod
    def remedy(cls, low: float, high: float, levels: int | None) -> str:
        return "it needs grey levels in [0, 1]: scale the data, or choose the likelihood normal"


def _logistic(F: Any, loc: Array, scale: Array) -> tuple[Array, Array]:
    # The logistic scale starts near 0.1, a tenth of the range of grey levels.
    return F.sigmoid(loc), positive(F, scale - 2.0)


@dataclass(frozen=True)
class DiscretizedLogistic(Grey):
    """A logistic variable rounded to the grid."""

    name = "discretized_logistic"
    distributions = ("DiscretizedLogistic",)
    outputs = 2

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return _logistic(F, outputs[0], outputs[1])

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.DiscretizedLogistic(loc, scale, levels=self.levels)


@dataclass(frozen=True)
class LogisticMixture(Grey):
    """A mixture of logistic variables for each number, rounded to the grid (arXiv:1701.05517)."""

    components: int = whole(10, least=1)

    name = "logistic_mixture"
    distributions = ("LogisticMixture",)

    @property
    def outputs(self) -> int:
        return 3 * self.components

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        logits, loc, scale = F.split(F.moveaxis(outputs, 0, -1), 3)
        return logits, *_logistic(F, loc, scale)

    def distribution(self, dist: Any, logits: Array, loc: Array, scale: Array) -> Any:
        return dist.LogisticMixture(logits, loc, scale, levels=self.levels)


@dataclass(frozen=True)
class RGBLogisticMixture(LogisticMixture):
    """The same for the three channels of a pixel at once, each given those before (arXiv:1701.05517)."""

    name = "rgb_logistic_mixture"
    distributions = ("RGBLogisticMixture",)

    @property
    def outputs(self) -> int:
        return 4 * self.components

    def free(self, x_shape: Shape) -> Shape | None:
        if len(x_shape) != 3 or x_shape[0] != 3:
            raise UsageError(
                f"likelihood {self.name}: it takes images of 3 channels, not rows of shape {x_shape}: choose "
                f"{LogisticMixture.name}"
            )
        return None

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        logits, loc, scale, coupling = F.split(F.moveaxis(outputs, 0, -1), 4)
        return logits, *_logistic(F, loc, scale), F.tanh(coupling)

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        return dist.RGBLogisticMixture(*parameters, levels=self.levels)


@dataclass(frozen=True)
class GreyLevels(Grey):
    """A free mass for every level."""

    name = "grey_levels"
    distributions = ("GreyLevels",)

    @property
    def outputs(self) -> int:
        return self.levels

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return (F.moveaxis(outputs, 0, -1),)

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.GreyLevels(logits)
