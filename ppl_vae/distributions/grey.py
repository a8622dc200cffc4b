"""Masses on the grey levels 0, 1/(levels-1), ..., 1: logistic ones, their mixture, and free ones."""

from dataclasses import dataclass
from typing import Any

from ppl_vae import checks
from ppl_vae.distributions.base import Array, Distribution

ROUNDING = 0.02  # of a level, what single precision makes of one of 65536


class OnGrid(Distribution):
    """Abstract: a mass on an even grid over [0, 1]; off the grid, outside the support, a value counts as the
    nearest level.
    """

    discrete = True

    def __post_init__(self) -> None:
        if "levels" in self.static:
            checks.levels(int(self.levels), f"{type(self).__name__}: ")

    def inside(self, F: Any, value: Array) -> Array:
        place = value * (self.levels - 1)
        return (value >= 0) & (value <= 1) & ((place - F.round(place)) ** 2 <= ROUNDING**2)


@dataclass(frozen=True, eq=False)
class DiscretizedLogistic(OnGrid):
    """Probability mass of a logistic variable in the cell around each point 0, 1/(levels-1), ..., 1.

    The two end cells reach to infinity: the masses sum to one (Salimans et al., arXiv:1701.05517, eq. 2).
    `mean` is that of the logistic variable, within [0, 1].

    Parameters
    ----------
    loc, scale : [...]
        Of the logistic variable, on the scale of the data ([0, 1]).
    levels : int
        Number of grid points, 256 for bytes.
    """

    loc: Array
    scale: Array
    levels: int = 256

    static = ("levels",)
    arg_constraints = {"loc": "real", "scale": "positive"}

    def log_prob(self, F: Any, value: Array) -> Array:
        half = 0.5 / (self.levels - 1)
        upper, lower = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        first, last = value < half, value > 1 - half
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)); an end cell has one edge.
        inner = F.where(first | last, 0.0, F.log(-F.expm1(-(2 * half / self.scale))))
        left = F.where(first, 0.0, F.log_sigmoid(-lower))
        return F.where(last, 0.0, F.log_sigmoid(upper)) + left + inner

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        u = F.uniform(noise, shape, self.loc)
        return _rounded(F, self.loc + self.scale * F.log(u / (1 - u)), self.levels)

    def mean(self, F: Any) -> Array:
        return F.broadcast_to(F.clip(self.loc, 0, 1), self.shapes(F)[0])


@dataclass(frozen=True, eq=False)
class LogisticMixture(OnGrid):
    """Mixture of K discretized logistics for each number (Salimans et al., arXiv:1701.05517, eq. 1-2).

    `mean` weighs the components' means, each within [0, 1].

    Parameters
    ----------
    logits : [..., K]
        Unnormalised log weights of the components.
    loc, scale : [..., K]
    levels : int
        Number of grid points over [0, 1].
    """

    logits: Array
    loc: Array
    scale: Array
    levels: int = 256

    static = ("levels",)
    parameter_dim = 1
    arg_constraints = {"logits": "real", "loc": "real", "scale": "positive"}

    @property
    def _components(self) -> DiscretizedLogistic:
        return DiscretizedLogistic(self.loc, self.scale, self.levels)

    def log_prob(self, F: Any, value: Array) -> Array:
        log_mass = self._components.log_prob(F, F.expand_dims(value, -1))
        return F.logsumexp(F.log_softmax(self.logits) + log_mass)

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        which, within = F.fork(noise, 2)
        index = F.expand_dims(F.categorical(which, self.logits, shape), -1)
        every = (*shape, F.broadcast_shapes(self.loc.shape, self.scale.shape, self.logits.shape)[-1])
        loc, scale = (
            F.take_along_axis(F.broadcast_to(part, every), index)[..., 0] for part in (self.loc, self.scale)
        )
        return DiscretizedLogistic(loc, scale, self.levels).draw(F, within, shape)

    def mean(self, F: Any) -> Array:
        weighted = F.softmax(self.logits) * self._components.mean(F)
        return F.broadcast_to(weighted.sum(-1), self.shapes(F)[0])


@dataclass(frozen=True, eq=False)
class GreyLevels(OnGrid):
    """Categorical distribution over the grid points 0, 1/(L-1), ..., 1 (not over class numbers).

    Parameters
    ----------
    logits : [..., L]
        Unnormalised log masses of the levels.
    """

    logits: Array

    parameter_dim = 1
    arg_constraints = {"logits": "real"}

    @property
    def levels(self) -> int:
        """The number of grey levels L."""
        return self.logits.shape[-1]

    def log_prob(self, F: Any, value: Array) -> Array:
        index = F.to_whole(F.round(F.clip(value, 0, 1) * (self.levels - 1)))
        shape = F.broadcast_shapes(value.shape, self.logits.shape[:-1])
        log_mass = F.broadcast_to(F.log_softmax(self.logits), (*shape, self.levels))
        return F.take_along_axis(log_mass, F.expand_dims(F.broadcast_to(index, shape), -1))[..., 0]

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        return F.astype(F.categorical(noise, self.logits, shape), self.logits) / (self.levels - 1)

    def mean(self, F: Any) -> Array:
        place = F.astype(F.arange(self.levels, self.logits), self.logits) / (self.levels - 1)
        return (F.softmax(self.logits) * place).sum(-1)


def _rounded(F: Any, value: Array, levels: int) -> Array:
    """Return the nearest grid points."""
    return F.round(F.clip(value, 0, 1) * (levels - 1)) / (levels - 1)
