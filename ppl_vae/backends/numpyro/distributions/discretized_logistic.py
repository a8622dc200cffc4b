"""Logistic distribution on an even grid over [0, 1]."""

import jax
import jax.numpy as jnp
from jax import Array, random
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import promote_shapes


class _Grid(type(constraints.unit_interval)):
    """Grid points of [0, 1]: a discrete support of real numbers."""

    is_discrete = True


class DiscretizedLogistic(Distribution):
    """Probability mass of a logistic variable in the cell around each point 0, 1/(levels-1), ..., 1.

    The two end cells reach to infinity: the masses sum to one (Salimans et al., arXiv:1701.05517, eq. 2).

    Parameters
    ----------
    loc, scale : Array
        Of the logistic variable, on the scale of the data ([0, 1]).
    levels : int
        Number of grid points, 256 for bytes.
    """

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support = _Grid()
    pytree_aux_fields = ("levels",)
    has_rsample = False

    def __init__(self, loc: Array, scale: Array, levels: int = 256, *, validate_args=None):
        self.loc, self.scale = promote_shapes(loc, scale)
        self.levels = levels
        batch_shape = jnp.broadcast_shapes(jnp.shape(loc), jnp.shape(scale))
        super().__init__(batch_shape, validate_args=validate_args)

    def log_prob(self, value: Array, intermediates=None) -> Array:
        """Return the log mass of grid points, in nats."""
        half = 0.5 / (self.levels - 1)
        upper, lower = (value + half - self.loc) / self.scale, (value - half - self.loc) / self.scale
        first, last = value < half, value > 1 - half
        # sigmoid(b) - sigmoid(a) = sigmoid(b) sigmoid(-a) (1 - exp(a - b)); an end cell has one edge.
        inner = jnp.where(first | last, 0.0, jnp.log(-jnp.expm1(-2 * half / self.scale)))
        left = jnp.where(first, 0.0, jax.nn.log_sigmoid(-lower))
        return jnp.where(last, 0.0, jax.nn.log_sigmoid(upper)) + left + inner

    def sample(self, key, sample_shape=()) -> Array:
        x = self.loc + self.scale * random.logistic(key, self.shape(sample_shape), jnp.result_type(self.loc))
        return jnp.round(x.clip(0, 1) * (self.levels - 1)) / (self.levels - 1)

    @property
    def mean(self) -> Array:
        """The mean of the underlying logistic variable within [0, 1], what a reconstruction shows."""
        return jnp.broadcast_to(self.loc.clip(0, 1), self.batch_shape)
