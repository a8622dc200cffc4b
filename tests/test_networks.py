"""Every composite network against its formula in NumPy, on both backends."""

import math

import numpy as np
import pytest
from made import BACKENDS, OnFlax, OnTorch, made
from scipy import special

from ppl_vae import networks
from ppl_vae.errors import DataError, UsageError

RNG = np.random.default_rng(0)
# Single precision: sums of some hundred products.
CLOSE = {"rtol": 2e-5, "atol": 1e-5}
# Values of some hundreds, through two residual blocks.
WIDE = {"rtol": 1e-4, "atol": 1e-3}
pytestmark = pytest.mark.parametrize("backend", BACKENDS)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def on(backend, network):
    found = made(backend, lambda _: network)
    return found, found.weights()


def affine(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def softplus(x):
    return np.logaddexp(0, x)


def gelu(x):
    return x * special.ndtr(x)


def convolved(w, name, x, padding=0):
    """Return a convolution of stride 1 over [..., C, H, W]."""
    kernel = w[f"{name}.layer.weight"]
    padded = np.pad(x, [(0, 0)] * (x.ndim - 2) + [(padding, padding)] * 2)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[-2:], (-2, -1))
    return np.einsum("...ihwab,oiab->...ohw", windows, kernel) + w[f"{name}.layer.bias"][:, None, None]


def transposed(w, name, x):
    """Return a transposed 4x4 convolution of stride 2 and padding 1: every pixel spreads over 4 x 4."""
    kernel, bias = w[f"{name}.layer.weight"], w[f"{name}.layer.bias"]
    *lead, _, height, width = x.shape
    out = np.zeros((*lead, kernel.shape[1], 2 * height + 2, 2 * width + 2))
    for i in range(height):
        for j in range(width):
            spot = np.einsum("...i,ioab->...oab", x[..., i, j], kernel)
            out[..., 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += spot
    return out[..., 1:-1, 1:-1] + bias[:, None, None]


def relu(x):
    return np.maximum(x, 0)


def test_mlp(backend):
    network, w = on(backend, networks.MLP((2, 3), (5, 4), (2, 2), "tanh"))
    x = normal(3, 4, 2, 3)
    h = np.tanh(affine(w, "layers.0", x.reshape(3, 4, 6)))
    h = np.tanh(affine(w, "layers.1", h))
    np.testing.assert_allclose(network(x)[0], affine(w, "layers.2", h).reshape(3, 4, 2, 2), **CLOSE)


def test_residual_block_adds_its_input(backend):
    network, w = on(backend, networks.ResidualBlock(3, 5))
    x = normal(2, 2, 3, 4, 5)
    h = convolved(w, "conv3", np.maximum(x, 0), padding=1)
    expected = x + convolved(w, "conv1", np.maximum(h, 0))
    np.testing.assert_allclose(network(x)[0], expected, **CLOSE)


def test_bottleneck_adds_its_input(backend):
    network, w = on(backend, networks.Bottleneck(4, 2))
    x = normal(2, 4, 5, 3)
    h = convolved(w, "mix", gelu(convolved(w, "narrow", gelu(x))), padding=1)
    np.testing.assert_allclose(network(x)[0], x + convolved(w, "widen", gelu(h)), **CLOSE)


def test_normal_head(backend):
    network, w = on(backend, networks.NormalHead(4, (), 3))
    x = normal(5, 4)
    out = affine(w, "body.layers.0", x)
    loc, scale = network(x)
    np.testing.assert_allclose(loc, out[:, :3], **CLOSE)
    np.testing.assert_allclose(scale, softplus(out[:, 3:]) + 1e-4, **CLOSE)
    labels = np.arange(20).reshape(5, 4)
    np.testing.assert_array_equal(network(labels)[0], network(labels.astype(np.float32))[0])


def test_merged_normal_is_the_product_of_two_normals(backend):
    """arXiv:1602.02282, eq. 18-19; and from the densities: their logs add up to a parabola."""
    network, w = on(backend, networks.MergedNormal(5, 3))
    x, down = normal(4, 5), networks.NormalParameters(normal(4, 3), np.exp(normal(4, 3)))
    out = affine(w, "out", x)
    up = networks.NormalParameters(out[:, :3], softplus(out[:, 3:]) + 1e-4)
    loc, scale = network(x, down)
    variance = 1 / (up.scale**-2 + down.scale**-2)
    np.testing.assert_allclose(scale, np.sqrt(variance), **CLOSE)
    mean = (up.loc * up.scale**-2 + down.loc * down.scale**-2) * variance
    np.testing.assert_allclose(loc, mean, **CLOSE)

    def log_product(z):
        return sum(-0.5 * ((z - one.loc) / one.scale) ** 2 for one in (up, down))

    step = np.array([-1.0, 0.0, 1.0])[:, None, None]
    left, middle, right = log_product(loc + step * scale)
    np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-3)  # the mode lies at loc
    np.testing.assert_allclose(middle - right, 0.5, rtol=1e-3)  # and falls by 1/2 within a scale
    for found, expected in zip(network(x), up, strict=True):
        np.testing.assert_allclose(found, expected, **CLOSE)


def test_free_normal_starts_at_its_scale(backend):
    first = (OnTorch if backend == "pyro" else OnFlax)(lambda nn: nn.FreeNormal((2, 3), 0.3))
    np.testing.assert_allclose(first()[1], 0.3 + 1e-4, rtol=1e-5)
    network = made(backend, lambda nn: nn.FreeNormal((2, 3), 0.3))
    network.load({"loc": np.full((2, 3), 0.7, "f"), "raw": np.full((2, 3), math.log(math.expm1(0.3)), "f")})
    np.testing.assert_allclose(network()[1], 0.3 + 1e-4, rtol=1e-5)
    np.testing.assert_allclose(network()[0], 0.7, rtol=1e-6)


def test_lower_triangle(backend):
    network, w = on(backend, networks.ScaleTril(3))
    expected = np.tril(w["raw"], -1) + np.diag(softplus(np.diag(w["raw"])) + 1e-4)
    np.testing.assert_allclose(network()[0], expected, **CLOSE)


def test_count_encoder(backend):
    network, w = on(backend, networks.CountEncoder(6, 2, (), 2))
    x, batch = RNG.poisson(3, (4, 6)).astype("f"), np.array([0, 1, 1, 0])
    given = np.concatenate([np.log1p(x), np.eye(2)[batch]], -1)
    np.testing.assert_allclose(network(x, batch)[0], affine(w, "head.body.layers.0", given)[:, :2], **CLOSE)


def test_count_mean(backend):
    network, w = on(backend, networks.CountMean(2, (), 6))
    z, effect, batch = normal(3, 4, 2), 0.3 * normal(3, 1, 2, 6), np.array([0, 1, 1, 0])
    size = np.exp(normal(4))
    shift = np.stack([effect[:, 0, b] for b in batch], 1)
    expected = np.exp(affine(w, "body.layers.0", z) + shift)
    np.testing.assert_allclose(network(z, effect, batch, size)[0], expected * size[:, None], **CLOSE)
    first = np.exp(affine(w, "body.layers.0", z) + effect[:, :, 0])
    np.testing.assert_allclose(network(z, effect)[0], first, **CLOSE)


def attended(w, heads, x, context, causal):
    q, k, v = affine(w, "query", x), affine(w, "key", context), affine(w, "value", context)
    parts = []
    for a, b, c in zip(*(np.split(part, heads, -1) for part in (q, k, v)), strict=True):
        scores = a @ b.swapaxes(-1, -2) / math.sqrt(a.shape[-1])
        if causal:
            scores[..., ~np.tri(*scores.shape[-2:], dtype=bool)] = -np.inf
        parts.append(special.softmax(scores, -1) @ c)
    return affine(w, "out", np.concatenate(parts, -1))


@pytest.mark.parametrize("causal", [False, True])
def test_attention_to_itself(backend, causal):
    network, w = on(backend, networks.Attention(6, 3, causal=causal))
    x = normal(2, 3, 5, 6)
    np.testing.assert_allclose(network(x)[0], attended(w, 3, x, x, causal), **CLOSE)


def test_attention_to_a_context(backend):
    network, w = on(backend, networks.Attention(4, 2, context=3))
    x, context = normal(2, 5, 4), normal(2, 7, 3)
    np.testing.assert_allclose(network(x, context)[0], attended(w, 2, x, context, False), **CLOSE)


def test_attention_piece_by_piece_is_that_of_the_whole(backend):
    network, _ = on(backend, networks.Attention(6, 2, causal=True))
    x = normal(2, 7, 6)
    (whole,) = network(x)
    memory, pieces = (), []
    for start, stop in ((0, 1), (1, 2), (2, 5), (5, 6), (6, 7)):
        piece, *memory = network(x[:, start:stop], None, tuple(memory))
        assert memory[0].shape == (2, 2, stop, 3)
        pieces.append(piece)
    np.testing.assert_allclose(np.concatenate(pieces, 1), whole, **CLOSE)
    # No token sees a later one.
    changed = np.concatenate([x[:, :4], normal(2, 3, 6)], 1)
    np.testing.assert_allclose(network(changed)[0][:, :4], whole[:, :4], **CLOSE)


def test_gru(backend):
    network = made(backend, lambda nn: nn.GRU(3, 4))
    w, x, h = network.weights(), normal(2, 5, 3), normal(2, 4)
    out, last = network(x, h)
    for t in range(5):
        given = x[:, t] @ w["weight_ih_l0"].T + w["bias_ih_l0"]
        recurrent = h @ w["weight_hh_l0"].T + w["bias_hh_l0"]
        (r, z, n), (rh, zh, nh) = (np.split(part, 3, -1) for part in (given, recurrent))
        update = special.expit(z + zh)
        h = (1 - update) * np.tanh(n + special.expit(r + rh) * nh) + update * h
        np.testing.assert_allclose(out[:, t], h, **CLOSE)
    np.testing.assert_allclose(last, h, **CLOSE)


def test_lstm(backend):
    network = made(backend, lambda nn: nn.LSTM(3, 4))
    w, x, h, c = network.weights(), normal(2, 5, 3), normal(2, 4), normal(2, 4)
    out, *last = network(x, (h, c))
    for t in range(5):
        gates = x[:, t] @ w["weight_ih_l0"].T + h @ w["weight_hh_l0"].T + w["bias_ih_l0"] + w["bias_hh_l0"]
        i, f, g, o = np.split(gates, 4, -1)
        c = special.expit(f) * c + special.expit(i) * np.tanh(g)
        h = special.expit(o) * np.tanh(c)
        np.testing.assert_allclose(out[:, t], h, **CLOSE)
    for found, expected in zip(last, (h, c), strict=True):
        np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("kind", ["GRU", "LSTM"])
def test_a_sequence_in_two_pieces_is_the_whole(backend, kind):
    network, x = made(backend, lambda nn: getattr(nn, kind)(3, 4)), normal(2, 2, 6, 3)
    whole, *last = network(x)
    first, *state = network(x[..., :4, :])
    second, *end = network(x[..., 4:, :], state[0] if kind == "GRU" else tuple(state))
    np.testing.assert_allclose(np.concatenate([first, second], -2), whole, **CLOSE)
    for found, expected in zip(end, last, strict=True):
        np.testing.assert_allclose(found, expected, **CLOSE)


@pytest.mark.parametrize("spatial", [1, 2])
def test_weight_normalised_convolution(backend, spatial):
    network = made(backend, lambda nn: getattr(nn, f"WeightNormConv{spatial}d")(3, 4, 3))
    w, x = network.weights(), normal(2, 3, *(6, 5)[:spatial])
    v, g = w["weight_v"], w["weight_g"]
    kernel = g * v / np.sqrt((v**2).sum(tuple(range(1, v.ndim)), keepdims=True))
    shape = (4, 3, 3, 3) if spatial == 2 else (4, 3, 1, 3)
    plain = {"c.layer.weight": kernel.reshape(shape), "c.layer.bias": w["bias"]}
    expected = convolved(plain, "c", x if spatial == 2 else x[:, :, None]).reshape(2, 4, *(4, 3)[:spatial])
    np.testing.assert_allclose(network(x)[0], expected, **CLOSE)


@pytest.mark.parametrize("kind", ["Conv1d", "Conv2d"])
def test_a_weight_normalised_convolution_starts_as_the_other(backend, kind):
    both = (
        made(backend, lambda nn, name=name: getattr(nn, name)(3, 4, 3))
        for name in (kind, f"WeightNorm{kind}")
    )
    plain, normed = both
    w, x = plain.weights(), normal(2, 3, 6, *([5] if kind == "Conv2d" else []))
    v = w["layer.weight"]
    norms = np.sqrt((v**2).sum(tuple(range(1, v.ndim)), keepdims=True))
    normed.load({"weight_v": 3 * v, "weight_g": norms, "bias": w["layer.bias"]})
    np.testing.assert_allclose(normed(x)[0], plain(x)[0], **CLOSE)


@pytest.mark.parametrize(("height", "width"), [(28, 28), (13, 9), (7, 5), (3, 1)])
def test_the_way_up_ends_at_the_size_that_the_way_down_began_with(backend, height, width):
    shape = (2, height, width)
    down, _ = on(backend, networks.ConvDown(shape, (16, 8), (3, 2)))
    up, _ = on(backend, networks.ConvUp(6, (8, 16), shape))
    (code,) = down(normal(2, 4, *shape))
    assert code.shape == (2, 4, 3, 2)
    assert up(code.reshape(2, 4, 6))[0].shape == (2, 4, *shape)


def test_the_way_down(backend):
    network, w = on(backend, networks.ConvDown((1, 7, 5), (16, 6), 3))
    x = normal(2, 3, 1, 7, 5)
    h = relu(convolved(w, "conv1", x, padding=1)[..., ::2, ::2])
    h = relu(convolved(w, "conv2", h, padding=1)[..., ::2, ::2]).reshape(2, 3, -1)
    np.testing.assert_allclose(network(x)[0], affine(w, "out", relu(affine(w, "dense", h))), **CLOSE)


def test_the_way_up(backend):
    network, w = on(backend, networks.ConvUp(3, (16, 6), (2, 7, 5)))
    z = normal(2, 3)
    h = relu(affine(w, "spread", relu(affine(w, "dense", z)))).reshape(2, 4, 2, 2)
    h = relu(transposed(w, "up1", h))[..., :4, :3]
    np.testing.assert_allclose(network(z)[0], transposed(w, "up2", h)[..., :7, :5], **CLOSE)


def blocks(w, h):
    for i in range(2):
        inner = convolved(w, f"blocks.{i}.conv3", relu(h), padding=1)
        h = h + convolved(w, f"blocks.{i}.conv1", relu(inner))
    return h


def test_encoder_of_a_grid(backend):
    network, w = on(backend, networks.ConvGrid((2, 8, 12), 4, 3))
    x = normal(2, 2, 8, 12)
    h = relu(convolved(w, "down1", x, padding=1)[..., ::2, ::2])
    h = relu(convolved(w, "down2", h, padding=1)[..., ::2, ::2])
    expected = convolved(w, "out", relu(blocks(w, convolved(w, "conv", h, padding=1))))
    np.testing.assert_allclose(network(x)[0], np.moveaxis(expected, 1, -1), **WIDE)


def test_decoder_of_a_grid(backend):
    network, w = on(backend, networks.GridConv(3, 4, (2, 8, 12)))
    z = normal(2, 2, 3, 3)
    h = relu(blocks(w, convolved(w, "conv", np.moveaxis(z, -1, 1), padding=1)))
    expected = transposed(w, "up2", relu(transposed(w, "up1", h)))
    np.testing.assert_allclose(network(z)[0], expected, **WIDE)


LEADING = {
    "MLP": (networks.MLP((2, 3), (4,), 2), [(2, 3)]),
    "Attention": (networks.Attention(4, 2, causal=True), [(3, 4)]),
    "ResidualBlock": (networks.ResidualBlock(2, 3), [(2, 4, 3)]),
    "Bottleneck": (networks.Bottleneck(2, 3), [(2, 4, 3)]),
    "ConvDown": (networks.ConvDown((1, 7, 5), (8,), 2), [(1, 7, 5)]),
    "ConvUp": (networks.ConvUp(2, (8,), (1, 7, 5)), [(2,)]),
    "ConvGrid": (networks.ConvGrid((1, 8, 12), 4, 3), [(1, 8, 12)]),
    "GridConv": (networks.GridConv(3, 4, (1, 8, 12)), [(2, 3, 3)]),
    "NormalHead": (networks.NormalHead((1, 7, 5), (8,), 2, "conv"), [(1, 7, 5)]),
    "Likelihood": (networks.Likelihood("normal_predicted", 2, (8,), (1, 7, 5), "conv"), [(2,)]),
    "MergedNormal": (networks.MergedNormal(3, 2), [(3,)]),
    "CodebookState": (networks.CodebookState(4, 3), [(2, 2, 3)]),
}


@pytest.mark.parametrize("name", LEADING)
def test_leading_axes_are_kept(backend, name):
    network, shapes = LEADING[name]
    network, _ = on(backend, network)
    inputs = [normal(2, 3, *shape) for shape in shapes]
    whole = network(*inputs)
    for particle in range(2):
        for found, one in zip(whole, network(*(x[particle] for x in inputs)), strict=True):
            found = found if found.shape == one.shape else found[particle]  # a codebook is the same for all
            np.testing.assert_allclose(found, one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda n: n.MLP(3, (0,), 2), UsageError, "hidden=0: a size must be at least 1"),
        (lambda n: n.MLP(3, 4, 2, "swish"), UsageError, "unknown activation 'swish': choose one of relu"),
        (lambda n: n.ConvUp(3, (), (1, 4, 4)), UsageError, "names no width"),
        (
            lambda n: n.NormalHead(3, 4, 2, "rnn"),
            UsageError,
            "unknown body_kind 'rnn': choose one of mlp, conv",
        ),
        (lambda n: n.Likelihood("gauss", 3, 4, 2), UsageError, "unknown likelihood 'gauss'"),
        (lambda n: n.CodebookState(4, 3, "sgd"), UsageError, "unknown learning 'sgd'"),
        (lambda n: n.Attention(6, 4), UsageError, "width=6 is no multiple of heads=4"),
        (lambda n: n.ConvDown(3, 4, 2), DataError, "are no images"),
        (lambda n: n.GridConv(4, 4, (3, 9, 8)), DataError, "crop or pad them to multiples of 4"),
    ],
)
def test_sizes_and_names_that_make_no_sense_are_refused(backend, make, error, words):
    with pytest.raises(error, match=words):
        made(backend, make)


def test_first_values_by_name_are_draws(backend):
    side = {"pyro": OnTorch, "numpyro": OnFlax}[backend]
    (near,) = side(lambda nn: nn.Parameter((50, 40), "normal:0.1")).weights().values()
    (wide,) = side(lambda nn: nn.Parameter((50, 40), "normal")).weights().values()
    # 2,000 draws: the standard error of a standard deviation is 1.6 per cent.
    assert near.std() == pytest.approx(0.1, rel=0.08) and wide.std() == pytest.approx(1.0, rel=0.08)
    assert abs(near.mean()) < 0.01 and abs(wide.mean()) < 0.1
    for text in ("normal:-1", "normal:x", "gamma"):
        with pytest.raises(UsageError, match=f"init='{text}'"):
            side(lambda nn, text=text: nn.Parameter(3, text))
