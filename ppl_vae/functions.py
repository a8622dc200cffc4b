"""The array functions that networks, distributions and objectives get as `F`, the same on every backend.

Names and meanings are those of the Array API standard (2024.12) and of torch.nn.functional. Arrays have the
methods that torch and JAX share: `shape`, `ndim`, `dtype`, `reshape(*sizes)`, `sum`, `mean`, arithmetic,
`@`, `mT` and indexing. Axes are counted from the right, so that leading axes stay free; `like` gives a new
array its dtype and its device.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

from ppl_vae import checks

Array = Any
Axes = int | Sequence[int] | None
ActivationName = Literal["relu", "tanh", "gelu", "silu", "elu", "identity"]
Resizing = Literal["nearest", "bilinear"]


def along(function: Callable[[Array, int], Array]) -> Callable[..., Array]:
    """Return a library's function of an array and an axis as a method: of the last axis, if none is given."""

    def method(self: Any, x: Array, axis: int = -1) -> Array:
        return function(x, axis)

    return method


class Functions:
    """What a backend gives. `gelu` is the exact one; `lgamma` the log of the absolute gamma function.

    A source of noise is a key of JAX, to be used once, and None on torch, which draws from its generator.
    """

    PI = math.pi

    def __getattr__(self, name: str) -> Any:
        raise checks.no_name("ppl.F", name, dir(self))

    # What one of the modules that a backend names has under the same name: elementwise, of one array.
    abs: Callable[[Array], Array]
    sign: Callable[[Array], Array]
    exp: Callable[[Array], Array]
    expm1: Callable[[Array], Array]
    log: Callable[[Array], Array]
    log1p: Callable[[Array], Array]
    sqrt: Callable[[Array], Array]
    rsqrt: Callable[[Array], Array]
    square: Callable[[Array], Array]
    sin: Callable[[Array], Array]
    cos: Callable[[Array], Array]
    tanh: Callable[[Array], Array]
    floor: Callable[[Array], Array]
    round: Callable[[Array], Array]
    isfinite: Callable[[Array], Array]
    sigmoid: Callable[[Array], Array]
    log_sigmoid: Callable[[Array], Array]
    softplus: Callable[[Array], Array]
    relu: Callable[[Array], Array]
    gelu: Callable[[Array], Array]
    silu: Callable[[Array], Array]
    elu: Callable[[Array], Array]
    lgamma: Callable[[Array], Array]
    # Of several.
    maximum: Callable[[Array, Array], Array]
    minimum: Callable[[Array, Array], Array]
    where: Callable[[Array, Any, Any], Array]
    matmul: Callable[[Array, Array], Array]
    einsum: Callable[..., Array]
    broadcast_shapes: Callable[..., Sequence[int]]

    def __init_subclass__(cls, modules: Sequence[Any], **named: Any):
        super().__init_subclass__(**named)
        for name in Functions.__annotations__.keys() - vars(cls):
            owner = next(module for module in modules if hasattr(module, name))
            setattr(cls, name, staticmethod(getattr(owner, name)))

    def activation(self, name: ActivationName) -> Callable[[Array], Array]:
        """Return the activation of a name: relu, tanh, gelu, silu, elu or identity."""
        checks.one_of("activation", name, get_args(ActivationName))
        return getattr(self, name)

    @staticmethod
    def identity(x: Array) -> Array:
        """Return the array as it is."""
        return x

    def clip(self, x: Array, low: Any = None, high: Any = None) -> Array:
        """Bound the values from below and from above, where a bound is given."""

    def lerp(self, start: Array, end: Array, weight: float) -> Array:
        """Return start + weight (end - start)."""
        return start + weight * (end - start)

    def stop_gradient(self, x: Array) -> Array:
        """Return the values as constants."""

    # Reductions over one axis, several, or all (None).

    def sum(self, x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
        """Return the sum."""

    def mean(self, x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
        """Return the mean."""

    def var(self, x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
        """Return the biased variance."""

    def max(self, x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
        """Return the greatest value."""

    def min(self, x: Array, axis: Axes = None, keepdims: bool = False) -> Array:
        """Return the least value."""

    def argmax(self, x: Array, axis: int = -1) -> Array:
        """Return the place of the greatest value along an axis: the first of equal ones."""

    def argmin(self, x: Array, axis: int = -1) -> Array:
        """Return the place of the least value along an axis: the first of equal ones."""

    def logsumexp(self, x: Array, axis: int | Sequence[int] = -1) -> Array:
        """Return log sum exp over axes."""

    def softmax(self, x: Array, axis: int = -1) -> Array:
        """Return exp(x) over its sum along an axis."""

    def log_softmax(self, x: Array, axis: int = -1) -> Array:
        """Return x less its log sum exp along an axis."""

    def cumsum(self, x: Array, axis: int = -1) -> Array:
        """Return running sums along an axis."""

    # Shapes.

    def concat(self, parts: Sequence[Array], axis: int = -1) -> Array:
        """Join arrays along an axis that they have. What lacks axes in front, as data lacks the axis of
        particles, is repeated over those of the array with the most.
        """
        most = max(parts, key=lambda part: part.ndim)
        missing = [tuple(most.shape[: most.ndim - part.ndim]) for part in parts]
        pairs = zip(parts, missing, strict=True)
        return self._joined(
            [self.broadcast_to(part, (*more, *part.shape)) if more else part for part, more in pairs], axis
        )

    def _joined(self, parts: Sequence[Array], axis: int) -> Array:
        """Join arrays that have the same axes."""

    def stack(self, parts: Sequence[Array], axis: int = 0) -> Array:
        """Join arrays along a new axis."""

    def split(self, x: Array, parts: int | Sequence[int], axis: int = -1) -> tuple[Array, ...]:
        """Cut an array along an axis: into a number of equal parts, or into parts of given sizes."""

    def moveaxis(self, x: Array, source: Any, destination: Any) -> Array:
        """Move axes to other places."""

    def permute(self, x: Array, axes: Sequence[int]) -> Array:
        """Put all axes into another order."""

    def broadcast_to(self, x: Array, shape: Sequence[int]) -> Array:
        """Repeat an array along axes of size 1, and along new ones on the left."""

    def expand_dims(self, x: Array, axis: int) -> Array:
        """Insert an axis of size 1."""

    def flip(self, x: Array, axis: int) -> Array:
        """Reverse the order along an axis."""

    def pad(self, x: Array, widths: Sequence[tuple[int, int]], value: float = 0.0) -> Array:
        """Add entries before and after along the last axes; `widths` names those from left to right."""

    def take(self, x: Array, index: Array, axis: int = 0) -> Array:
        """Return the entries of whole numbers `index` along an axis, which the shape of `index` replaces."""

    def take_along_axis(self, x: Array, index: Array, axis: int = -1) -> Array:
        """Return at each place the entry of its own index along an axis; other axes are equally long."""

    def tril(self, x: Array, k: int = 0) -> Array:
        """Return the lower triangle of matrices, up to the k-th diagonal."""

    def diagonal(self, x: Array) -> Array:
        """Return the diagonal of matrices, [..., n, n] to [..., n]."""

    def diag(self, x: Array) -> Array:
        """Return matrices with a diagonal, [..., n] to [..., n, n]."""

    def resize(self, x: Array, size: tuple[int, int], method: Resizing = "nearest") -> Array:
        """Resize images [..., C, H, W] to [..., C, *size].

        `method` is nearest, or bilinear: between pixel centres at half numbers, not smoothed where an image
        shrinks.
        """
        checks.one_of("method", method, get_args(Resizing))
        return self._resized(x, size, method)

    def _resized(self, x: Array, size: tuple[int, int], method: str) -> Array:
        """Resize by a known method."""

    def avg_pool(self, x: Array, size: int) -> Array:
        """Return means over squares of pixels, [..., C, H, W] to [..., C, H // size, W // size]."""
        height, width = x.shape[-2] // size, x.shape[-1] // size
        cut = x[..., : height * size, : width * size]
        return cut.reshape(*x.shape[:-2], height, size, width, size).mean((-3, -1))

    # Kinds of numbers, and new arrays.

    def astype(self, x: Array, like: Array) -> Array:
        """Return the values in the dtype of another array."""

    def to_float(self, x: Array) -> Array:
        """Return whole numbers and truth values in single precision; others as they are."""

    def to_whole(self, x: Array) -> Array:
        """Return numbers without their fractions, as an index."""

    def to_single(self, x: Array) -> Array:
        """Return half-precision numbers in single precision; others as they are."""

    def asarray(self, value: Any, like: Array) -> Array:
        """Return numbers of the host as an array like another one."""

    def zeros(self, shape: Sequence[int], like: Array) -> Array:
        """Return zeros."""
        return self.full(shape, 0, like)

    def ones(self, shape: Sequence[int], like: Array) -> Array:
        """Return ones."""
        return self.full(shape, 1, like)

    def full(self, shape: Sequence[int], value: float, like: Array) -> Array:
        """Return one number everywhere."""

    def arange(self, count: int, like: Array) -> Array:
        """Return the whole numbers 0 ... count - 1, on the device of `like`."""

    def one_hot(self, index: Array, count: int, like: Array) -> Array:
        """Return 1 at the index among `count` places and 0 elsewhere, [...] to [..., count]."""

    def bincount(self, index: Array, count: int, like: Array) -> Array:
        """Return how often each of 0 ... count - 1 is among whole numbers, [N] to [count]."""

    def attention(self, query: Array, key: Array, value: Array, causal: bool = False) -> Array:
        """Return softmax(q k' / sqrt(d)) v, [..., T, d]; causal: a query sees the keys up to its own place.

        With fewer queries than keys, the last query has the place of the last key.
        """

    # Over the devices that share a batch; on one device, and on JAX, which sees the whole batch, as they say.

    def totals(self, *values: Array) -> Sequence[Array]:
        """Return sums over rows of a device as sums over the rows of all devices."""
        return values

    def moments(self, x: Array, axes: Sequence[int]) -> tuple[Array, Array]:
        """Return mean and biased variance along axes that hold the rows."""
        return self.mean(x, axes), self.var(x, axes)

    def spread(self, rows: Array, count: int) -> Array:
        """Return `count` rows at even distances out of [N, D]."""
        return rows[self.arange(count, rows) * rows.shape[0] // count]

    # Random numbers.

    def fork(self, noise: Any, count: int) -> tuple[Any, ...]:
        """Return independent sources of noise."""

    def uniform(self, noise: Any, shape: Sequence[int], like: Array) -> Array:
        """Draw from the open interval (0, 1)."""

    def normal(self, noise: Any, shape: Sequence[int], like: Array) -> Array:
        """Draw from N(0, 1)."""

    def gamma(self, noise: Any, concentration: Array) -> Array:
        """Draw from Gamma(concentration, 1), one for each entry; gradients pass to the concentration."""

    def poisson(self, noise: Any, rate: Array) -> Array:
        """Draw from Poisson(rate), one for each entry."""

    def categorical(self, noise: Any, logits: Array, shape: Sequence[int]) -> Array:
        """Draw classes [*shape] from unnormalised log probabilities [..., K] that broadcast against them."""
