"""A free mass for every grey level."""

from dataclasses import dataclass
from typing import Any

from ppl_vae.distributions import grid
from ppl_vae.distributions.base import Array, Distribution


@dataclass(frozen=True, eq=False)
class GreyLevels(Distribution):
    """Categorical distribution over the grid points 0, 1/(L-1), ..., 1 (not over class numbers).

    Parameters
    ----------
    logits : [..., L]
        Unnormalised log masses of the levels.
    """

    logits: Array

    parameter_dim = 1
    arg_constraints = {"logits": "real"}
    discrete = True

    @property
    def levels(self) -> int:
        """The number of grey levels L."""
        return self.logits.shape[-1]

    def inside(self, F: Any, value: Array) -> Array:
        return grid.within(F, value)

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
