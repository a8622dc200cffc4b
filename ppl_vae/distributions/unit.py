"""Densities over [0, 1]."""

import math
from dataclasses import dataclass
from typing import Any

from ppl_vae.distributions.base import Array, Distribution

# Below these the closed forms lose digits to cancellation; the series keep more than single precision.
SMALL, SMALL_DRAW = 0.3, 1e-2


@dataclass(frozen=True, eq=False, kw_only=True)
class ContinuousBernoulli(Distribution):
    """Density C exp(t x) over [0, 1] (Loaiza-Ganem & Cunningham, arXiv:1907.06845).

    With lambda = sigmoid(t) it is proportional to lambda^x (1 - lambda)^(1 - x). The log normaliser is
    log((e^t - 1) / t), a Bernoulli's log(1 + e^t).

    Parameters
    ----------
    logits : [...]
        t.
    """

    logits: Array

    arg_constraints = {"logits": "real"}
    support = "unit_interval"
    reparametrised = True

    def log_prob(self, F: Any, value: Array) -> Array:
        return self.logits * value - self._log_integral(F)

    def _log_integral(self, F: Any) -> Array:
        """Return log of (e^t - 1) / t = e^max(t, 0) (1 - e^-|t|) / |t|."""
        t = self.logits
        near, size = self._split(F, SMALL)
        far = F.relu(t) + F.log(-F.expm1(-size) / size)
        square = F.square(F.clip(t, -SMALL, SMALL))
        series = square * (1 / 24 - square * (1 / 2880 - square * (1 / 181440 - square / 9676800)))
        return F.where(near, t / 2 + series, far)

    def _split(self, F: Any, bound: float) -> tuple[Array, Array]:
        """Tell where |t| is below the bound, and return |t| with the bound in its place there.

        The branch that is not chosen gets harmless numbers, so that no gradient of it is infinite.
        """
        size = F.abs(self.logits)
        return size < bound, F.where(size < bound, bound, size)

    def mean(self, F: Any) -> Array:
        t = self.logits
        near, size = self._split(F, SMALL)
        # By symmetry the mean at -t is one less the mean at t.
        above = -1 / F.expm1(-size) - 1 / size
        square = F.square(F.clip(t, -SMALL, SMALL))
        series = t * (1 / 12 - square * (1 / 720 - square * (1 / 30240 - square / 1209600)))
        return F.where(near, 0.5 + series, F.where(t > 0, above, 1 - above))

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        """Draw by the inverse distribution function log(1 + u (e^t - 1)) / t."""
        t, u = self.logits, F.uniform(noise, shape, self.logits)
        near, size = self._split(F, SMALL_DRAW)
        below = -F.log1p(u * F.expm1(-size)) / size
        spread = u * (1 - u)
        series = u + t * spread / 2 + F.square(t) * spread * (1 - 2 * u) / 6
        return F.clip(F.where(near, series, F.where(t > 0, 1 - below, below)), 0, 1)


@dataclass(frozen=True, eq=False)
class LogitLaplace(Distribution):
    """Density of x where logit((1 - 2 eps) x + eps) is Laplace (Ramesh et al., arXiv:2102.12092, app. A.3).

    The density of x itself, with the Jacobian of the mapping, where the paper's is that of the mapped value:
    it integrates to one over its support, from -eps / (1 - 2 eps) to (1 - eps) / (1 - 2 eps), a little more
    than [0, 1]. `mean` is the median, within [0, 1]: what the paper shows as a reconstruction.

    Parameters
    ----------
    loc, scale : [...]
        Of the Laplace variable.
    eps : float
        Keeps [0, 1] away from the ends of the logit scale.
    """

    loc: Array
    scale: Array
    eps: float = 0.1

    static = ("eps",)
    arg_constraints = {"loc": "real", "scale": "positive"}
    reparametrised = True

    def _mapped(self, value: Array) -> Array:
        return (1 - 2 * self.eps) * value + self.eps

    def inside(self, F: Any, value: Array) -> Array:
        mapped = self._mapped(value)
        return (mapped > 0) & (mapped < 1)

    def log_prob(self, F: Any, value: Array) -> Array:
        mapped = self._mapped(value)
        log_mapped, log_rest = F.log(mapped), F.log1p(-mapped)
        distance = F.abs(log_mapped - log_rest - self.loc) / self.scale
        jacobian = math.log(1 - 2 * self.eps) - log_mapped - log_rest
        return jacobian - distance - F.log(2 * self.scale)

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        u = F.uniform(noise, shape, self.loc)
        quantile = F.where(u < 0.5, F.log(2 * u), -F.log(2 * (1 - u)))
        return self._back(F.sigmoid(self.loc + self.scale * quantile))

    def mean(self, F: Any) -> Array:
        return F.broadcast_to(F.clip(self._back(F.sigmoid(self.loc)), 0, 1), self.shapes(F)[0])

    def _back(self, mapped: Array) -> Array:
        return (mapped - self.eps) / (1 - 2 * self.eps)
