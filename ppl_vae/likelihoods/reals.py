"""Likelihoods of real numbers."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.likelihoods.base import Array, Likelihood, Shape, above_zero, positive


@dataclass(frozen=True)
class Normal(Likelihood):
    """One learned sigma shared by all dimensions."""

    name = "normal"

    def free(self, x_shape: Shape) -> Shape | None:
        return ()

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], F.broadcast_to(positive(F, free), outputs[0].shape)

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.Normal(loc, scale)


@dataclass(frozen=True)
class NormalPerDim(Normal):
    """A learned sigma for each dimension."""

    name = "normal_per_dim"

    def free(self, x_shape: Shape) -> Shape | None:
        return x_shape


@dataclass(frozen=True)
class NormalFixed(Normal):
    """A fixed sigma: the squared error up to a constant."""

    sigma: float = above_zero(1.0)

    name = "normal_fixed"

    def free(self, x_shape: Shape) -> Shape | None:
        return None

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], F.full(outputs[0].shape, self.sigma, outputs[0])


@dataclass(frozen=True)
class NormalPredicted(Normal):
    """A sigma for each dimension, predicted by the decoder."""

    name = "normal_predicted"
    outputs = 2

    def free(self, x_shape: Shape) -> Shape | None:
        return None

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        return outputs[0], positive(F, outputs[1])


@dataclass(frozen=True)
class StudentT(NormalPerDim):
    """Heavy tails: a fixed number of degrees of freedom and a learned scale for each dimension."""

    degrees: float = above_zero(5.0)

    name = "student_t"

    def distribution(self, dist: Any, loc: Array, scale: Array) -> Any:
        return dist.StudentT(self.degrees, loc, scale)
