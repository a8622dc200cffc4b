"""The continuous Bernoulli distribution over [0, 1]."""

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
