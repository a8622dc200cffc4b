"""Likelihoods that are densities: over the reals, and over [0, 1]."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.likelihoods.base import Array, Likelihood, Shape, Start, above_zero, positive


@dataclass(frozen=True)
class Normal(Likelihood):
    """One learned sigma shared by all dimensions."""

    name = "normal"

    def free(self, x_shape: Shape) -> Shape | None:
        return ()

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], F.broadcast_to(positive(F, free), outputs[0].shape)

    def start(self, fitted: Any, x: Array) -> Start | None:
        typical = (fitted.spread(x) ** 2).mean() ** 0.5
        return Start(fitted.mean(x)[None], fitted.raw(typical))

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.Normal(loc, scale)


@dataclass(frozen=True)
class NormalPerDim(Normal):
    """A learned sigma for each dimension."""

    name = "normal_per_dim"

    def free(self, x_shape: Shape) -> Shape | None:
        return x_shape

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.mean(x)[None], fitted.raw(fitted.spread(x)))


@dataclass(frozen=True)
class NormalFixed(Normal):
    """A fixed sigma: the squared error up to a constant."""

    sigma: float = above_zero(1.0)

    name = "normal_fixed"

    def free(self, x_shape: Shape) -> Shape | None:
        return None

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], F.full(outputs[0].shape, self.sigma, outputs[0])

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.mean(x)[None])


@dataclass(frozen=True)
class NormalPredicted(Normal):
    """A sigma for each dimension, predicted by the decoder."""

    name = "normal_predicted"
    outputs = 2

    def free(self, x_shape: Shape) -> Shape | None:
        return None

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], positive(F, outputs[1])

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.stack([fitted.mean(x), fitted.raw(fitted.spread(x))]))


@dataclass(frozen=True)
class StudentT(NormalPerDim):
    """Heavy tails: a fixed number of degrees of freedom and a learned scale for each dimension."""

    degrees: float = above_zero(5.0)

    name = "student_t"

    def start(self, fitted: Any, x: Array) -> Start | None:
        # The variance is scale^2 degrees / (degrees - 2), where there is one.
        narrower = max(0.25, 1 - 2 / self.degrees) ** 0.5
        return Start(fitted.mean(x)[None], fitted.raw(narrower * fitted.spread(x)))

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.StudentT(self.degrees, loc, scale)


@dataclass(frozen=True)
class Unit(Likelihood):
    """Abstract: a density over [0, 1]."""

    takes = "unit"
    needs = "numbers in [0, 1]"


@dataclass(frozen=True)
class ContinuousBernoulli(Unit):
    """The density whose form is the Bernoulli's (arXiv:1907.06845)."""

    name = "continuous_bernoulli"
    distributions = ("ContinuousBernoulli",)

    def start(self, fitted: Any, x: Array) -> Start | None:
        return Start(fitted.continuous_logit(x)[None])

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

    def start(self, fitted: Any, x: Array) -> Start | None:
        centre = fitted.logit(fitted.probability(x))
        return Start(fitted.stack([centre, 0 * centre]))

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.LogitLaplace(loc, scale)
