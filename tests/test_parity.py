"""Pyro and NumPyro agree: same weights and latents, then same densities, bounds and state."""

import numpy as np
import pytest
from small_programs import CASES, NUM_DATA, batch, bound, observe

from ppl_vae.backends.numpyro import networks as flax_networks
from ppl_vae.backends.numpyro.weights import from_torch, to_torch
from ppl_vae.errors import RunError

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def likelihood(name):
    return ("Likelihood", (name, 4, (9,), (3, 3, 4)), [normal(3, 2, 4)])


NETWORKS = {
    "linear": ("Linear", (3, 4), [normal(2, 5, 3)]),
    "linear without bias": ("Linear", (3, 4, False), [normal(2, 3)]),
    "conv1d": ("Conv1d", (3, 4, 5, 2, 1), [normal(2, 2, 3, 17)]),
    "conv2d": ("Conv2d", (3, 4, 4, 2, 1), [normal(3, 13, 9)]),
    "transposed, stride 2": ("ConvTranspose2d", (3, 4, 4, 2, 1), [normal(2, 3, 7, 5)]),
    "transposed, stride 1": ("ConvTranspose2d", (3, 4, 3, 1, 0), [normal(2, 2, 3, 7, 5)]),
    "transposed, no bias": ("ConvTranspose2d", (2, 3, 5, 3, 2, False), [normal(2, 2, 4, 3)]),
    "embedding": ("Embedding", (7, 3), [np.array([[1, 6], [0, 2]])]),
    "parameter": ("Parameter", ((2, 3), 0.5), []),
    "mlp": ("MLP", ((1, 4, 5), (7, 6), (2, 3), "gelu"), [normal(2, 3, 1, 4, 5)]),
    "no hidden layer": ("MLP", (4, (), 3), [normal(2, 4)]),
    "residual block": ("ResidualBlock", (3, 5, "silu"), [normal(2, 3, 5, 4)]),
    "down": ("ConvDown", ((1, 13, 9), (16, 12), 4, "silu"), [normal(2, 3, 1, 13, 9)]),
    "up": ("ConvUp", (4, (12, 16), (3, 13, 9), "elu"), [normal(2, 4)]),
    "grid": ("ConvGrid", ((3, 13, 9), 16, 4), [normal(2, 3, 13, 9)]),
    "from grid": ("GridConv", (4, 16, (3, 12, 8)), [normal(2, 3, 2, 4)]),
    "head": ("NormalHead", (5, (6,), 3, "mlp", "tanh"), [normal(2, 4, 5)]),
    "merged": ("MergedNormal", (5, 3), [normal(4, 5), (normal(4, 3), np.exp(normal(4, 3)))]),
    "lower triangle": ("ScaleTril", (3,), []),
    "free normal": ("FreeNormal", ((2, 3),), []),
    "count encoder": ("CountEncoder", (6, 2, (5,), 2), [np.abs(normal(4, 6)), np.array([0, 1, 1, 0])]),
    "count mean": (
        "CountMean",
        (2, (5,), 6),
        [normal(3, 4, 2), normal(3, 1, 2, 6), np.array([0, 1, 1, 0]), np.exp(normal(4))],
    ),
    "codebook, ema": ("CodebookState", (8, 3), [normal(2, 5, 5, 3)]),
    "codebook, gradient": ("CodebookState", (8, 3, "gradient", 0.9, True), [normal(2, 5, 5, 3)]),
    "batch norm": ("BatchNorm", (3,), [normal(4, 5, 3)]),
    "batch norm of images": ("BatchNorm", (3, 2), [normal(4, 3, 5, 6)]),
}
NETWORKS |= {name: likelihood(name) for name in flax_networks.heads.likelihoods.KNOWN}


def arrays_in(value):
    """Return the arrays in a network's output."""
    if isinstance(value, tuple):
        return [array for part in value for array in arrays_in(part)]
    return [value] if hasattr(value, "shape") else []


def twins(name, arguments):
    import torch

    from ppl_vae.backends.pyro import networks

    torch.manual_seed(0)
    theirs = getattr(networks, name)(*arguments)
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter.data, std=0.5)
    ours = getattr(flax_networks.Seeded(0), name)(*arguments)
    from_torch(
        {"n": ours}, {f"n.{key}": value.detach().numpy() for key, value in theirs.state_dict().items()}
    )
    return theirs, ours


def call_both(theirs, ours, inputs):
    import torch

    from ppl_vae.backends.pyro.networks.heads import NormalParameters as Theirs

    tensors = [
        Theirs(*map(torch.from_numpy, a)) if isinstance(a, tuple) else torch.from_numpy(a) for a in inputs
    ]
    arrays = [flax_networks.heads.NormalParameters(*a) if isinstance(a, tuple) else a for a in inputs]
    expected = [tensor.detach().numpy() for tensor in arrays_in(theirs(*tensors))]
    return expected, [np.asarray(array) for array in compiled(ours, jax_arrays(arrays))]


def compiled(network, inputs):
    """Call a network within jit, which compiles it as one, and keep what it wrote."""
    import jax
    from flax import nnx

    graph, state = nnx.split(network)

    @jax.jit
    def run(state, inputs):
        made = nnx.merge(graph, state)
        return arrays_in(made(*inputs)), nnx.state(made)

    out, state = run(state, inputs)
    nnx.update(network, state)
    return out


def jax_arrays(arrays):
    import jax

    return jax.tree.map(jax.numpy.asarray, arrays)


def same_weights(theirs, ours):
    expected = {f"n.{name}": value.detach().numpy() for name, value in theirs.state_dict().items()}
    found = to_torch({"n": ours})
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].shape == value.shape and found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], value, rtol=2e-6, atol=2e-6, err_msg=name)


WITH_MODE = ("codebook, ema", "codebook, gradient", "batch norm", "batch norm of images")


@pytest.mark.parametrize(
    ("case", "training"), [(c, True) for c in NETWORKS] + [(c, False) for c in WITH_MODE]
)
def test_a_network_gives_what_its_twin_gives(case, training):
    name, arguments, inputs = NETWORKS[case]
    theirs, ours = twins(name, arguments)
    theirs.train(training)
    ours.set_attributes(training=training, raise_if_not_found=False)
    for _ in range(2):  # twice, so that what the first call wrote is read
        for a, b in zip(*call_both(theirs, ours, inputs), strict=True):
            assert a.shape == b.shape
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=2e-6 * max(1, np.abs(a).max()))
        same_weights(theirs, ours)


def test_every_network_has_a_twin():
    from ppl_vae.backends.pyro import networks

    assert networks.__all__ == flax_networks.__all__
    assert {name for name, _, _ in NETWORKS.values()} == set(networks.__all__) - {
        "Module",
        "Sequential",
        "activation",
    }


def test_a_sequence_carries_over_by_the_place_of_its_layers():
    import torch

    from ppl_vae.backends.pyro import networks

    def built(nn):
        return nn.Sequential(nn.Conv2d(2, 3, 3), nn.activation("elu"), nn.ConvTranspose2d(3, 2, 4, 2, 1))

    theirs, ours = built(networks), built(flax_networks.Seeded(0))
    from_torch(
        {"n": ours}, {f"n.{key}": value.detach().numpy() for key, value in theirs.state_dict().items()}
    )
    x = normal(2, 2, 6, 5)
    with torch.no_grad():
        np.testing.assert_allclose(ours(jax_arrays(x)), theirs(torch.from_numpy(x)), rtol=1e-5, atol=1e-6)
    same_weights(theirs, ours)


@pytest.mark.parametrize(
    "case", ["linear", "conv2d", "conv1d", "transposed, stride 2", "embedding", "mlp", "codebook, ema"]
)
def test_first_weights_have_torchs_distribution(case):
    import torch

    from ppl_vae.backends.pyro import networks

    name, arguments, _ = NETWORKS[case]
    torch.manual_seed(0)
    theirs = [getattr(networks, name)(*arguments).state_dict() for _ in range(200)]
    nn = flax_networks.Seeded(0)
    ours = [to_torch({"n": getattr(nn, name)(*arguments)}) for _ in range(200)]
    for key in theirs[0]:
        a = np.stack([weights[key].numpy() for weights in theirs])
        b = np.stack([weights[f"n.{key}"] for weights in ours])
        if a.std():
            assert b.std() == pytest.approx(a.std(), rel=0.1)
            assert np.abs(b).max() == pytest.approx(np.abs(a).max(), rel=0.1 if np.abs(a).max() < 1 else 0.3)
        else:
            np.testing.assert_array_equal(a, b)


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
    network = {"n": flax_networks.Seeded(0).MLP(4, (), 3)}
    weights = to_torch(network)
    change(weights)
    with pytest.raises(RunError, match=message):
        from_torch(network, weights)


def close(found, expected, dims, what):
    assert found.shape == expected.shape, what
    np.testing.assert_array_less(
        np.abs(found - expected), 1e-5 * np.maximum(np.abs(expected), dims), err_msg=what
    )


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("case", CASES)
def test_a_program_has_the_same_densities_and_bound_at_the_same_latents(case, training):
    rows = batch(case)
    theirs, ours = (bound(case, backend).train(training) for backend in ("pyro", "numpyro"))
    a = observe(theirs, rows)
    b = observe(ours, rows, a.latents)
    for role in ("log_p", "log_q"):
        expected, found = getattr(a, role), getattr(b, role)
        assert expected.keys() == found.keys()
        for name, value in expected.items():
            close(found[name], value, a.event.get(name, 1), f"{role} of {name}")
    for kind in ("kl", "kl_global", "auxiliary", "metrics"):
        assert a.terms[kind].keys() == b.terms[kind].keys()
        for name, value in a.terms[kind].items():
            close(b.terms[kind][name], value, a.event.get(name, 1), f"{kind} of {name}")
    close(elbo(b), elbo(a), sum(a.event.values()), "ELBO")
    assert a.weights.keys() == b.weights.keys()
    for name, value in a.weights.items():
        np.testing.assert_allclose(b.weights[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def elbo(seen):
    terms = seen.terms
    return terms["log_likelihood"] - sum(terms["kl"].values()) - sum(terms["kl_global"].values()) / NUM_DATA


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_guide_in_train_mode_moves_the_codebook_once_and_one_in_eval_mode_does_not(backend):
    made, rows = bound("vqvae ema", backend), batch("vqvae ema")
    before = made.weights()
    after = observe(made.train(), rows).weights
    assert after["codebook.placed"] == 1 and before["codebook.placed"] == 0
    points = observe(made.eval(), rows).weights
    for name, value in after.items():
        np.testing.assert_array_equal(points[name], value)
    # A count moves by 1 - decay towards the number of points that chose the code: in all 6 x 2 x 3 points.
    assert after["codebook.counts"].sum() == pytest.approx(0.99 * 5 + 0.01 * 36, rel=1e-5)
