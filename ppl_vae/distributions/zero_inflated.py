"""Counts with more zeros than a negative binomial has."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.distributions.base import Array, Distribution, alike

# From this concentration on Stirling's series is exact to double precision, and loses no digits to the
# difference of two large numbers.
LARGE = 20.0


@dataclass(frozen=True, eq=False)
class ZeroInflatedNegativeBinomial2(Distribution):
    """A zero with the gate's probability, else a negative binomial by its mean and concentration.

    The negative binomial has the variance mu + mu^2 / r (Lopez et al., doi:10.1038/s41592-018-0229-2).

    Parameters
    ----------
    mu, concentration : [...]
        Mean and r of the negative binomial, above 0.
    gate_logits : [...]
        Logit of the probability of an extra zero.
    """

    mu: Array
    concentration: Array
    gate_logits: Array

    arg_constraints = {"mu": "positive", "concentration": "positive", "gate_logits": "real"}
    support = "nonnegative_integer"
    discrete = True

    def log_prob(self, F: Any, value: Array) -> Array:
        counted = F.log_sigmoid(-self.gate_logits) + self._negative_binomial(F, value)
        none = F.log_sigmoid(-self.gate_logits) - self.concentration * F.log1p(self.mu / self.concentration)
        inflated = F.logsumexp(F.stack(alike(F, F.log_sigmoid(self.gate_logits), none), -1))
        return F.where(value == 0, inflated, counted)

    def _negative_binomial(self, F: Any, value: Array) -> Array:
        r, mu = self.concentration, self.mu
        share = F.log(mu) - F.log(r + mu)
        return _log_rising(F, r, value) - F.lgamma(value + 1) - r * F.log1p(mu / r) + value * share

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        gate, rate, count = F.fork(noise, 3)
        r, mu = (F.broadcast_to(part, shape) for part in (self.concentration, self.mu))
        counts = F.poisson(count, F.gamma(rate, r) * mu / r)
        extra = F.uniform(gate, shape, self.mu) < F.sigmoid(self.gate_logits)
        return F.where(extra, 0.0, counts)

    def mean(self, F: Any) -> Array:
        return F.broadcast_to(F.sigmoid(-self.gate_logits) * self.mu, self.shapes(F)[0])


def _log_rising(F: Any, r: Array, k: Array) -> Array:
    """Return log Gamma(r + k) - log Gamma(r)."""
    large = F.where(r < LARGE, LARGE, r)
    small = F.where(r < LARGE, r, 1.0)
    series = (large + k - 0.5) * F.log1p(k / large) + k * F.log(large) - k
    series = series + _stirling(large + k) - _stirling(large)
    return F.where(r < LARGE, F.lgamma(small + k) - F.lgamma(small), series)


def _stirling(x: Array) -> Array:
    """Return what Stirling's series adds to (x - 1/2) log x - x + log(2 pi) / 2."""
    inverse = 1 / (x * x)
    return (1 / 12 - inverse * (1 / 360 - inverse * (1 / 1260 - inverse / 1680))) / x
