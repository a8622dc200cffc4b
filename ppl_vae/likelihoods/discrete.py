"""Likelihoods that are probability masses: of bits, counts, class labels, and grey levels over [0, 1]."""

from dataclasses import dataclass
from typing import Any

from ppl_vae import checks
from ppl_vae.errors import UsageError
from ppl_vae.likelihoods.base import Array, Likelihood, Shape, Start, Values, positive, whole


@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Bits, by their logits."""

    name = "bernoulli"
    takes = "bits"
    discrete = True
    distributions = ("Bernoulli",)

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.logit(fitted.probability(x))[None])

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.Bernoulli(logits=logits)

    @classmethod
    def remedy(cls, data: Values) -> str:
        if data.counts and data.high > 1:
            return "choose the likelihood poisson, or normal for other numbers"
        if data.low >= 0 and data.high <= 1:
            grid = f"discretized_logistic:{data.levels}" if data.levels else "continuous_bernoulli"
            return f"draw bits with binarize='dynamic', or choose the likelihood {grid} or normal"
        return "choose the likelihood normal, or scale the data to [0, 1] and use binarize='dynamic'"


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts, by the log of their mean."""

    name = "poisson"
    takes = "counts"
    discrete = True
    distributions = ("Poisson", "ZeroInflatedPoisson", "Binomial")

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return (F.exp(outputs[0]),)

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.log_mean(x)[None])

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        return dist.Poisson(*parameters)

    @classmethod
    def remedy(cls, data: Values) -> str:
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

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.log_mean(x)[None], fitted.raw(fitted.concentration(x)))

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

    def start(self, fitted: Any, x: Array) -> Start | None:
        # A tenth of extra zeros, which the counts make up for.
        counts = fitted.log_mean(x) - fitted.log(0.9)
        logits = fitted.logit(0.1) + 0 * counts
        return Start(fitted.stack([counts, logits]), fitted.raw(fitted.concentration(x)))

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        return dist.ZeroInflatedNegativeBinomial2(*parameters)


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

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.frequencies(x, self.classes))

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.Categorical(logits=logits)

    @classmethod
    def remedy(cls, data: Values) -> str:
        such = f", such as {cls.name}:{max(2, int(data.high) + 1)}" if data.counts else ""
        return f"it needs whole numbers from 0 to the number of classes - 1: name that number{such}"


@dataclass(frozen=True)
class Grey(Likelihood):
    """Abstract: a mass on each of `levels` grid points."""

    levels: int = whole(256)

    takes = "grey"
    needs = "grey levels in [0, 1]"
    discrete = True

    def __post_init__(self) -> None:
        super().__post_init__()
        checks.levels(int(self.levels), f"likelihood {self.name}: ")

    @classmethod
    def remedy(cls, data: Values) -> str:
        if data.low < 0 or data.high > 1:
            return super().remedy(data)
        if data.levels:
            return f"the data has {data.levels} levels: choose the likelihood {cls.name}:{data.levels}"
        return "round the data to its levels, or choose the likelihood continuous_bernoulli or normal"


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

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.stack(fitted.logistic(x)))

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

    def start(self, fitted: Any, x: Array) -> Start | None:
        loc, scale = fitted.logistic_parts(x, self.components)
        # What the decoder gives besides (for colours: how a channel follows those before) starts about 0.
        rest = self.outputs // self.components - 3
        return Start(fitted.concatenate([0 * loc, loc, scale, *[0 * loc] * rest]))

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

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.frequencies(fitted.rounded(x, self.levels), self.levels))

    def distribution(self, dist: Any, logits: Array) -> Any:
        return dist.GreyLevels(logits)
