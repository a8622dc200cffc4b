"""Logistic distribution on an even grid over [0, 1]."""

import torch
import torch.nn.functional as F
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import broadcast_all


class _Grid(constraints.Constraint):
    """Grid points of [0, 1]: a discrete support of real numbers."""

    is_discrete = True

    def check(self, value: Tensor) -> Tensor:
        return (value >= 0) & (value <= 1)


class DiscretizedLogistic(TorchDistribution):
    """Probability mass of a logistic variable in the cell around each of `levels` grid points 0,
    1/(levels-1), ..., 1.

    The two end cells reach to infinity, so that the masses sum to one (Salimans et al., arXiv:1701.05517, eq.
    2).

    Parameters
    ----------
    loc, scale : Tensor
        Of the logistic variable, on the scale of the data ([0, 1]).
    levels : int
        Number of grid points, 256 for bytes.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = _Grid()

    def __init__(self, loc: Tensor, scale: Tensor, levels: int = 256, validate_args=None):
        self.loc, self.scale = broadcast_all(loc, scale)
        self.levels = levels
        super().__init__(self.loc.shape, validate_args=validate_args)

    def expand(self, batch_shape, _instance=None):
        return DiscretizedLogistic(
            self.loc.expand(batch_shape), self.scale.expand(batch_shape), self.levels, False
        )

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log mass of grid points, in nats."""
        half = 0.5 / (self.levels - 1)
        upper, lower = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        first, last = value < half, value > 1 - half
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)); an end cell drops the factor of
        # its infinite edge.
        width = 2 * half / self.scale
        inner = torch.where(first | last, 0.0, torch.log(-torch.expm1(-width)))
        return (
            torch.where(last, 0.0, F.logsigmoid(upper))
            + torch.where(first, 0.0, F.logsigmoid(-lower))
            + inner
        )

    def sample(self, sample_shape=torch.Size()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with torch.no_grad():
            tiny = torch.finfo(self.loc.dtype).tiny
            u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(
                tiny, 1 - torch.finfo(self.loc.dtype).eps
            )
            x = self.loc + self.scale * torch.logit(u)
            return (x.clamp(0, 1) * (self.levels - 1)).round() / (self.levels - 1)

    @property
    def mean(self) -> Tensor:
        """The mean of the underlying logistic variable within [0, 1], what a reconstruction shows."""
        return self.loc.clamp(0, 1)
