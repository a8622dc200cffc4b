"""Mixture of discretized logistics over the three channels of a pixel at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ppl_vae.distributions.base import Array, alike
from ppl_vae.distributions.grey import DiscretizedLogistic, OnGrid

CHANNELS = 3
# The first coefficient of each channel: green takes one of red, blue one of red and one of green.
FIRST = (0, 0, 1)


@dataclass(frozen=True, eq=False)
class RGBLogisticMixture(OnGrid):
    """A component for each pixel, and within it each channel given those before.

    The location of green moves with red, that of blue with red and green (Salimans et al., arXiv:1701.05517,
    eq. 3, where the data is scaled to [-1, 1]). `mean` takes each channel at the location that it has given
    the others' means, within [0, 1], and weighs the components.

    Parameters
    ----------
    logits : [..., 3, H, W, K]
        Unnormalised log weights of the components of a pixel: the sum over the three.
    loc, scale : [..., 3, H, W, K]
    coupling : [..., 3, H, W, K]
        Of green with red, of blue with red, of blue with green.
    levels : int
        Number of grid points over [0, 1].
    """

    logits: Array
    loc: Array
    scale: Array
    coupling: Array
    levels: int = 256

    static = ("levels",)
    event_dim = 3
    parameter_dim = 4
    arg_constraints = {"logits": "real", "loc": "real", "scale": "positive", "coupling": "real"}

    def inside(self, F: Any, value: Array) -> Array:
        return super().inside(F, value).all(-1).all(-1).all(-1)

    def log_prob(self, F: Any, value: Array) -> Array:
        channels = _channels(F.expand_dims(value, -1))
        loc, coupling = _channels(self.loc), _channels(self.coupling)
        places = [_location(loc, coupling, channels[:number]) for number in range(CHANNELS)]
        placed = F.stack(alike(F, *places), -4)
        log_mass = DiscretizedLogistic(placed, self.scale, self.levels).log_prob(F, F.expand_dims(value, -1))
        return F.logsumexp(F.log_softmax(self.logits.sum(-4)) + log_mass.sum(-4)).sum((-2, -1))

    def draw(self, F: Any, noise: Any, shape: tuple[int, ...]) -> Array:
        which, *sources = F.fork(noise, 1 + CHANNELS)
        pixels = (*shape[:-3], *shape[-2:])
        index = F.categorical(which, self.logits.sum(-4), pixels)
        every = (*shape, self.logits.shape[-1])
        index = F.broadcast_to(F.expand_dims(F.expand_dims(index, -3), -1), (*shape, 1))
        loc, scale, coupling = (
            _channels(F.take_along_axis(F.broadcast_to(part, every), index))
            for part in (self.loc, self.scale, self.coupling)
        )
        drawn: list[Array] = []
        for number, source in enumerate(sources):
            made = DiscretizedLogistic(_location(loc, coupling, drawn), scale[number], self.levels)
            drawn.append(made.draw(F, source, (*pixels, 1)))
        return F.stack(drawn, -4)[..., 0]

    def mean(self, F: Any) -> Array:
        loc, coupling = _channels(self.loc), _channels(self.coupling)
        means: list[Array] = []
        for _ in range(CHANNELS):
            means.append(F.clip(_location(loc, coupling, means), 0, 1))
        weights = F.expand_dims(F.softmax(self.logits.sum(-4)), -4)
        batch, event = self.shapes(F)
        return F.broadcast_to((weights * F.stack(alike(F, *means), -4)).sum(-1), (*batch, *event))


def _channels(x: Array) -> list[Array]:
    """Return red, green and blue of [..., 3, H, W, K]."""
    return [x[..., number, :, :, :] for number in range(CHANNELS)]


def _location(loc: Sequence[Array], coupling: Sequence[Array], before: Sequence[Array]) -> Array:
    """Return the location of the next channel, [..., H, W, K], given those before."""
    number = len(before)
    moved = loc[number]
    for place, value in enumerate(before):
        # From the middle of [0, 1], the zero of the paper's [-1, 1].
        moved = moved + coupling[FIRST[number] + place] * (value - 0.5)
    return moved
