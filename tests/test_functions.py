"""The array functions of both backends against NumPy's."""

import importlib

import numpy as np
import pytest
import scipy.special

from ppl_vae.functions import Functions

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2, 3, 4))
IMAGE = RNG.normal(size=(2, 3, 5, 7))
INDEX = np.array([[2, 0], [1, 1]])


@pytest.fixture(params=["pyro", "numpyro"])
def backend(request):
    """`F` of a backend, what makes an array of it, and what brings one back."""
    functions = importlib.import_module(f"ppl_vae.backends.{request.param}.functions").F
    if request.param == "pyro":
        import torch

        yield functions, torch.from_numpy, lambda value: value.numpy()
        return
    import jax

    with jax.enable_x64(True):
        yield functions, jax.numpy.asarray, np.asarray


def softmax(x):
    return scipy.special.softmax(x, -1)


CASES = {
    "softplus": (lambda F, x: F.softplus(x), lambda: np.logaddexp(0, X)),
    "log_sigmoid": (lambda F, x: F.log_sigmoid(x), lambda: -np.logaddexp(0, -X)),
    "gelu": (lambda F, x: F.gelu(x), lambda: X * scipy.special.ndtr(X)),
    "silu": (lambda F, x: F.activation("silu")(x), lambda: X * scipy.special.expit(X)),
    "elu": (lambda F, x: F.elu(x), lambda: np.where(X > 0, X, np.expm1(X))),
    "lgamma": (lambda F, x: F.lgamma(F.exp(x)), lambda: scipy.special.gammaln(np.exp(X))),
    "clip": (lambda F, x: F.clip(x, -0.5, 0.5), lambda: X.clip(-0.5, 0.5)),
    "clip below": (lambda F, x: F.clip(x, low=0.1), lambda: np.maximum(X, 0.1)),
    "lerp": (lambda F, x: F.lerp(x, F.exp(x), 0.3), lambda: X + 0.3 * (np.exp(X) - X)),
    "lerp near the end": (lambda F, x: F.lerp(x, F.exp(x), 0.9), lambda: X + 0.9 * (np.exp(X) - X)),
    "totals of one device": (lambda F, x: F.totals(x, F.exp(x))[1], lambda: np.exp(X)),
    "mean of moments": (lambda F, x: F.moments(x, (0, 2))[0], lambda: X.mean((0, 2))),
    "variance of moments": (lambda F, x: F.moments(x, (0, 2))[1], lambda: X.var((0, 2))),
    "spread": (lambda F, x: F.spread(x.reshape(6, 4), 4), lambda: X.reshape(6, 4)[[0, 1, 3, 4]]),
    "sum": (lambda F, x: F.sum(x), lambda: X.sum()),
    "sum over two": (lambda F, x: F.sum(x, (-1, -2)), lambda: X.sum((-1, -2))),
    "mean": (lambda F, x: F.mean(x, -1, keepdims=True), lambda: X.mean(-1, keepdims=True)),
    "var": (lambda F, x: F.var(x, 0), lambda: X.var(0)),
    "max": (lambda F, x: F.max(x, -1), lambda: X.max(-1)),
    "min": (lambda F, x: F.min(x), lambda: X.min()),
    "argmax": (lambda F, x: F.argmax(x), lambda: X.argmax(-1)),
    "argmin": (lambda F, x: F.argmin(x, 0), lambda: X.argmin(0)),
    "logsumexp": (lambda F, x: F.logsumexp(x, 0), lambda: scipy.special.logsumexp(X, 0)),
    "softmax": (lambda F, x: F.softmax(x), lambda: softmax(X)),
    "log_softmax": (lambda F, x: F.log_softmax(x), lambda: np.log(softmax(X))),
    "cumsum": (lambda F, x: F.cumsum(x), lambda: X.cumsum(-1)),
    "concat": (lambda F, x: F.concat([x, x], -2), lambda: np.concatenate([X, X], -2)),
    "concat, fewer axes": (
        lambda F, x: F.concat([x, x[0], x[0, 0]], -1),
        lambda: np.concatenate([X, *(np.broadcast_to(part, X.shape) for part in (X[0], X[0, 0]))], -1),
    ),
    "stack": (lambda F, x: F.stack([x, x], -1), lambda: np.stack([X, X], -1)),
    "split": (lambda F, x: F.split(x, 2)[1], lambda: X[..., 2:]),
    "split by sizes": (lambda F, x: F.split(x, (1, 2, 1))[1], lambda: X[..., 1:3]),
    "moveaxis": (lambda F, x: F.moveaxis(x, -3, -1), lambda: np.moveaxis(X, -3, -1)),
    "permute": (lambda F, x: F.permute(x, (2, 0, 1)), lambda: X.transpose(2, 0, 1)),
    "broadcast_to": (lambda F, x: F.broadcast_to(x, (5, 2, 3, 4)), lambda: np.broadcast_to(X, (5, 2, 3, 4))),
    "expand_dims": (lambda F, x: F.expand_dims(x, -2), lambda: X[..., None, :]),
    "flip": (lambda F, x: F.flip(x, -1), lambda: X[..., ::-1]),
    "pad": (
        lambda F, x: F.pad(x, [(1, 0), (0, 2)], 3.0),
        lambda: np.pad(X, [(0, 0), (1, 0), (0, 2)], constant_values=3),
    ),
    "tril": (lambda F, x: F.tril(x, -1), lambda: np.tril(X, -1)),
    "diagonal": (lambda F, x: F.diagonal(x[..., :3]), lambda: np.diagonal(X[..., :3], axis1=-2, axis2=-1)),
    "diag": (lambda F, x: F.diag(x), lambda: X[..., None] * np.eye(4)),
    "einsum": (lambda F, x: F.einsum("bij,bkj->bik", x, x), lambda: X @ X.swapaxes(-1, -2)),
    "full": (
        lambda F, x: F.full((2, 3), 0.5, x) + F.zeros((3,), x) + F.ones((3,), x),
        lambda: np.full((2, 3), 1.5),
    ),
    "arange": (lambda F, x: F.arange(4, x), lambda: np.arange(4)),
    "asarray": (lambda F, x: F.asarray([1, 2], x), lambda: np.array([1.0, 2.0])),
}


@pytest.mark.parametrize("name", CASES)
def test_a_function_is_numpys(backend, name):
    functions, array, host = backend
    call, wanted = CASES[name]
    np.testing.assert_allclose(host(call(functions, array(X))), wanted(), rtol=1e-12, atol=1e-12)


def test_entries_are_taken_by_number(backend):
    functions, array, host = backend
    x, index = array(X), array(INDEX)
    np.testing.assert_array_equal(host(functions.take(x[0], index)), X[0][INDEX])
    np.testing.assert_array_equal(host(functions.take(x, index, -2)), np.take(X, INDEX, -2))
    own = RNG.integers(0, 4, (2, 3, 1))
    along = functions.take_along_axis(x, array(own), -1)
    np.testing.assert_array_equal(host(along), np.take_along_axis(X, own, -1))
    np.testing.assert_array_equal(host(functions.one_hot(index, 3, x)), np.eye(3)[INDEX])


@pytest.mark.parametrize("size", [(10, 14), (5, 7), (3, 4), (9, 11)])
def test_images_are_resized_by_the_nearest_pixel_or_bilinearly(backend, size):
    functions, array, host = backend
    rows, columns = (np.arange(new) * old // new for new, old in zip(size, (5, 7), strict=True))
    near = host(functions.resize(array(IMAGE), size))
    np.testing.assert_array_equal(near, IMAGE[..., rows[:, None], columns])
    smooth = IMAGE
    for axis, new in zip((-2, -1), size, strict=True):
        old = IMAGE.shape[axis]
        place = ((np.arange(new) + 0.5) * old / new - 0.5).clip(0, old - 1)
        weight = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(old)))
        smooth = np.moveaxis(np.moveaxis(smooth, axis, -1) @ weight.T, -1, axis)
    np.testing.assert_allclose(host(functions.resize(array(IMAGE), size, "bilinear")), smooth, atol=1e-12)
    with pytest.raises(ValueError, match="cubic"):
        functions.resize(array(IMAGE), size, "cubic")


def test_pixels_are_averaged(backend):
    functions, array, host = backend
    wanted = IMAGE[..., :4, :6].reshape(2, 3, 2, 2, 3, 2).mean((-3, -1))
    np.testing.assert_allclose(host(functions.avg_pool(array(IMAGE), 2)), wanted, rtol=1e-12)


@pytest.mark.parametrize(("queries", "causal"), [(5, False), (5, True), (2, True), (2, False)])
def test_attention(backend, queries, causal):
    functions, array, host = backend
    q, k, v = RNG.normal(size=(2, queries, 4)), RNG.normal(size=(2, 5, 4)), RNG.normal(size=(2, 5, 3))
    scores = q @ k.swapaxes(-1, -2) / 2
    if causal:
        scores = np.where(np.arange(5) <= np.arange(5 - queries, 5)[:, None], scores, -np.inf)
    found = functions.attention(array(q), array(k), array(v), causal=causal)
    np.testing.assert_allclose(host(found), softmax(scores) @ v, rtol=1e-10)


def test_numbers_change_their_kind(backend):
    functions, array, host = backend
    whole = array(INDEX)
    assert host(functions.to_float(whole)).dtype == np.float32
    assert host(functions.astype(whole, array(X))).dtype == np.float64
    assert host(functions.to_single(array(X))).dtype == np.float64
    np.testing.assert_array_equal(host(functions.to_whole(array(np.array([0.0, 2.0, 7.0])))), [0, 2, 7])
    assert host(functions.to_whole(array(X))).dtype.kind == "i"


def test_whole_numbers_are_counted(backend):
    functions, array, host = backend
    (found,) = functions.totals(functions.bincount(array(INDEX.reshape(-1)), 5, array(X)))
    np.testing.assert_array_equal(host(found), np.bincount(INDEX.reshape(-1), minlength=5))
    assert host(found).dtype == np.float64


def noise(functions, seed):
    """Return a source of noise: a key of JAX, or None once torch is seeded."""
    if "numpyro" in type(functions).__module__:
        import jax

        return jax.random.key(seed)
    import torch

    torch.manual_seed(seed)
    return None


DRAWS = 20_000
# name -> (draws, mean, variance); six standard errors of the mean are allowed, and 10 % of the variance.
RANDOM = {
    "uniform": (lambda F, key, x: F.uniform(key, (DRAWS,), x), 0.5, 1 / 12),
    "normal": (lambda F, key, x: F.normal(key, (DRAWS,), x), 0.0, 1.0),
    "gamma": (lambda F, key, x: F.gamma(key, F.full((DRAWS,), 2.5, x)), 2.5, 2.5),
    "poisson": (lambda F, key, x: F.poisson(key, F.full((DRAWS,), 3.0, x)), 3.0, 3.0),
    "categorical": (
        lambda F, key, x: F.categorical(key, F.log(F.asarray([0.2, 0.3, 0.5], x)), (DRAWS,)), 1.3, 0.61
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RANDOM)
def test_draws_have_their_mean_and_variance(backend, name):
    functions, array, host = backend
    draw, mean, variance = RANDOM[name]
    found = host(draw(functions, noise(functions, 0), array(X))).astype(np.float64)
    assert abs(found.mean() - mean) < 6 * np.sqrt(variance / DRAWS)
    assert abs(found.var() / variance - 1) < 0.1
    first, second = functions.fork(noise(functions, 1), 2)
    assert (host(draw(functions, first, array(X))) != host(draw(functions, second, array(X)))).any()


def test_unknown_activations_are_refused(backend):
    with pytest.raises(ValueError, match="swish"):
        backend[0].activation("swish")


# What the base itself computes; torch has some of them otherwise.
SHARED = {
    "concat",
    "PI",
    "activation",
    "identity",
    "resize",
    "avg_pool",
    "zeros",
    "ones",
    "lerp",
    "totals",
    "moments",
    "spread",
}


@pytest.mark.parametrize(
    "name", [name for name in vars(Functions) | Functions.__annotations__ if name[0] != "_"]
)
def test_every_function_is_there(backend, name):
    own = name in vars(type(backend[0]))
    assert own or name in SHARED
