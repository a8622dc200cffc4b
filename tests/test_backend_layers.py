"""Layers and networks give the same on both backends, at the same weights, and start alike."""

import numpy as np
import pytest
from made import BACKENDS, OnFlax, OnTorch, made

from ppl_vae import likelihoods, networks
from ppl_vae.backends import numpyro, pyro
from ppl_vae.backends.numpyro.networks import Seeded
from ppl_vae.backends.numpyro.weights import from_torch, to_torch
from ppl_vae.backends.pyro.networks import NN
from ppl_vae.errors import ProgramError, RunError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


BATCHES = np.array([0, 1, 1, 0])
CASES = {
    "linear": ("Linear", (3, 4), [normal(2, 5, 3)]),
    "linear without bias": ("Linear", (3, 4, False), [normal(2, 3)]),
    "conv1d": ("Conv1d", (3, 4, 5, 2, 1), [normal(2, 2, 3, 17)]),
    "conv1d, dilated": ("Conv1d", (3, 4, 3, 1, 2, True, 2), [normal(2, 3, 17)]),
    "conv2d": ("Conv2d", (3, 4, 4, 2, 1), [normal(3, 13, 9)]),
    "weight norm, 1d": ("WeightNormConv1d", (3, 4, 3, 1, 2, True, 2), [normal(2, 2, 3, 11)]),
    "weight norm, 2d": ("WeightNormConv2d", (3, 4, 3, 2, 1, False), [normal(3, 8, 7)]),
    "transposed, 1d": ("ConvTranspose1d", (3, 4, 4, 2, 1), [normal(2, 3, 7)]),
    "transposed, dilated": ("ConvTranspose1d", (3, 4, 3, 2, 1, True, 2), [normal(2, 3, 7)]),
    "transposed, stride 2": ("ConvTranspose2d", (3, 4, 4, 2, 1), [normal(2, 3, 7, 5)]),
    "transposed, stride 1": ("ConvTranspose2d", (3, 4, 3, 1, 0), [normal(2, 2, 3, 7, 5)]),
    "transposed, no bias": ("ConvTranspose2d", (2, 3, 5, 3, 2, False), [normal(2, 2, 4, 3)]),
    "embedding": ("Embedding", (7, 3), [np.array([[1, 6], [0, 2]])]),
    "parameter": ("Parameter", ((2, 3), 0.5), []),
    "layer norm": ("LayerNorm", (5,), [normal(2, 3, 5)]),
    "group norm": ("GroupNorm", (2, 6), [normal(2, 3, 6, 4, 5)]),
    "group norm of vectors": ("GroupNorm", (3, 6, 0), [normal(4, 6)]),
    "gru": ("GRU", (3, 4), [normal(2, 5, 7, 3)]),
    "gru from a state": ("GRU", (3, 4), [normal(2, 7, 3), normal(2, 4)]),
    "lstm": ("LSTM", (3, 4), [normal(2, 5, 7, 3)]),
    "lstm from a state": ("LSTM", (3, 4), [normal(2, 7, 3), (normal(2, 4), normal(2, 4))]),
    "activation": ("activation", ("gelu",), [normal(3, 4)]),
    "mlp": ("MLP", ((1, 4, 5), (7, 6), (2, 3), "gelu"), [normal(2, 3, 1, 4, 5)]),
    "no hidden layer": ("MLP", (4, (), 3), [normal(2, 4)]),
    "attention": ("Attention", (6, 2, 5), [normal(2, 3, 4, 6), normal(2, 3, 7, 5)]),
    "causal attention": ("Attention", (6, 3, None, True), [normal(2, 4, 6)]),
    "residual block": ("ResidualBlock", (3, 5, "silu"), [normal(2, 3, 5, 4)]),
    "bottleneck": ("Bottleneck", (3, 5), [normal(2, 2, 3, 5, 4)]),
    "down": ("ConvDown", ((1, 13, 9), (16, 12), 4, "silu"), [normal(2, 3, 1, 13, 9)]),
    "up": ("ConvUp", (4, (12, 16), (3, 13, 9), "elu"), [normal(2, 4)]),
    "grid": ("ConvGrid", ((3, 13, 9), 16, 4), [normal(2, 3, 13, 9)]),
    "from grid": ("GridConv", (4, 16, (3, 12, 8)), [normal(2, 3, 2, 4)]),
    "head": ("NormalHead", (5, (6,), 3, "mlp", "tanh"), [normal(2, 4, 5)]),
    "head of labels": ("NormalHead", (5, (6,), 3), [np.arange(10).reshape(2, 5)]),
    "merged": (
        "MergedNormal",
        (5, 3),
        [normal(4, 5), networks.NormalParameters(normal(4, 3), np.exp(normal(4, 3)))],
    ),
    "lower triangle": ("ScaleTril", (3,), []),
    "free normal": ("FreeNormal", ((2, 3),), []),
    "count encoder": ("CountEncoder", (6, 2, (5,), 2), [np.abs(normal(4, 6)), BATCHES]),
    "count mean": (
        "CountMean",
        (2, (5,), 6),
        [normal(3, 4, 2), normal(3, 1, 2, 6), BATCHES, np.exp(normal(4))],
    ),
    "codebook, ema": ("CodebookState", (8, 3), [normal(2, 5, 5, 3)]),
    "codebook, gradient": ("CodebookState", (8, 3, "gradient", 0.9, True), [normal(2, 5, 5, 3)]),
    "batch norm": ("BatchNorm", (3,), [normal(4, 5, 3)]),
    "batch norm of images": ("BatchNorm", (3, 2), [normal(4, 3, 5, 6)]),
}
CASES |= {name: ("Likelihood", (name, 4, (9,), (3, 3, 4)), [normal(3, 2, 4)]) for name in likelihoods.KNOWN}
WITH_STATE = ("codebook, ema", "batch norm", "batch norm of images")


def declared(case):
    name, sizes, inputs = CASES[case]
    return lambda nn: getattr(nn, name)(*sizes), inputs


@pytest.mark.parametrize(
    ("case", "training"), [(case, False) for case in CASES] + [(case, True) for case in WITH_STATE]
)
def test_a_layer_gives_the_same_on_both_backends(case, training):
    declare, inputs = declared(case)
    ours, theirs = (made(backend, declare) for backend in BACKENDS)
    for _ in range(2):  # twice, so that what the first call wrote is read
        for a, b in zip(ours(*inputs, training=training), theirs(*inputs, training=training), strict=True):
            assert a.shape == b.shape and a.dtype.kind == b.dtype.kind
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=2e-6 * max(1, np.abs(a).max()))
        found, expected = theirs.weights(), ours.weights()
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert found[name].shape == value.shape and found[name].dtype == value.dtype
            np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=2e-6, err_msg=name)


def test_every_layer_and_network_is_compared():
    assert pyro.layers.__all__ == numpyro.layers.__all__
    known = {*pyro.layers.__all__, *networks.GALLERY} - {"Module", "Buffer", "normal"}
    assert {name for name, _, _ in CASES.values()} == known


STARTS = (
    "linear",
    "conv2d",
    "conv1d",
    "transposed, 1d",
    "transposed, stride 2",
    "weight norm, 1d",
    "embedding",
    "mlp",
    "gru",
    "lstm",
    "codebook, ema",
)


@pytest.mark.parametrize("case", STARTS)
def test_first_weights_have_torchs_distribution(case):
    name, sizes, _ = CASES[case]
    nn = Seeded(0)
    theirs = [OnTorch(lambda nn: getattr(nn, name)(*sizes), seed).weights() for seed in range(100)]
    ours = [to_torch({"n": getattr(nn, name)(*sizes)}) for _ in range(100)]
    for key in theirs[0]:
        a = np.stack([weights[key] for weights in theirs])
        b = np.stack([weights[f"n.{key}"] for weights in ours])
        if a.std():
            assert b.std() == pytest.approx(a.std(), rel=0.1)
            assert np.abs(b).max() == pytest.approx(np.abs(a).max(), rel=0.1 if np.abs(a).max() < 1 else 0.3)
        else:
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("backend", BACKENDS)
def test_arrays_start_where_their_init_says(backend):
    on = {"pyro": OnTorch, "numpyro": OnFlax}[backend]
    (found,) = on(lambda nn: nn.Parameter((2, 3), np.arange(3)))()
    np.testing.assert_array_equal(found, [[0, 1, 2], [0, 1, 2]])
    (found,) = on(lambda nn: nn.Parameter((40, 50), nn.normal((40, 50), 0.02)))()
    assert found.std() == pytest.approx(0.02, rel=0.1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_takes_layers_and_networks_and_keeps_torchs_names(backend):
    declare = lambda nn: nn.Sequential(  # noqa: E731
        nn.Conv2d(2, 3, 3), nn.activation("elu"), networks.ResidualBlock(3, 2), nn.LayerNorm(3)
    )
    found = made(backend, declare)
    assert {name.split(".")[0] for name in found.weights()} == {"0", "2", "3"}
    x = normal(2, 2, 6, 5)
    expected = made("pyro", declare)
    np.testing.assert_allclose(found(x)[0], expected(x)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop("n.layers.0.bias"), "the weights lack n.layers.0.bias"),
        (lambda w: w.update(more=np.zeros(2)), "the networks have no place for more"),
        (
            lambda w: w.update({"n.layers.0.weight": np.zeros((2, 2))}),
            r"n.layers.0.weight has shape \(2, 2\), not \(3, 4\)",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message):
    network = {"n": Seeded(0).MLP(4, (), 3)}
    weights = to_torch(network)
    change(weights)
    with pytest.raises(RunError, match=message):
        from_torch(network, weights)


@pytest.mark.parametrize("nn", [NN, Seeded(0)], ids=BACKENDS)
def test_an_unknown_name_is_refused_with_those_that_there_are(nn):
    with pytest.raises(
        ProgramError,
        match="'Linaer': did you mean Linear. Choose one of activation, Att.*, LSTM, ",
    ):
        nn.Linaer(3, 4)
