"""A Laplace distribution on the logit scale, for images over [0, 1]."""

import math
from dataclasses import dataclass
from typing import Any

from ppl_vae.distributions.base import Array, Distribution


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
