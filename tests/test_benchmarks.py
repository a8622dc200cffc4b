"""Every contender of the benchmarks is given the same work: the same model, the same loss, the same bytes."""

import importlib
import math
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def benchmark(monkeypatch):
    """Return a function that imports a file of the benchmarks by its name."""
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module


def objective(program, rows):
    from ppl_vae import ELBO, bind
    from ppl_vae.backends.pyro.objectives import Objective

    bound = bind(program, num_data=rows).train()
    return bound, Objective(bound, ELBO(), rows)


def share_weights(bound, peer):
    assert sum(p.numel() for p in peer.parameters()) == sum(p.numel() for p in bound.parameters())
    with torch.no_grad():
        for theirs, ours in zip(peer.parameters(), bound.parameters(), strict=True):
            assert theirs.squeeze().shape == ours.squeeze().shape
            theirs.copy_(ours.reshape(theirs.shape))


def loss_and_gradients(call, module):
    torch.manual_seed(0)
    module.zero_grad()
    loss = call()
    loss.backward()
    return loss.item(), [p.grad.reshape(-1).clone() for p in module.parameters()]


def assert_same(found, expected):
    assert found[0] == pytest.approx(expected[0], rel=1e-5)
    for ours, theirs in zip(found[1], expected[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_hand_written_mlp_is_the_same_model(benchmark):
    from ppl_vae import load

    x = (torch.rand(9, 1, 4, 4) < 0.3).float()
    bound, loss = objective(load("vae", x_shape=(1, 4, 4), hidden=(8,), z_dim=3), 9)
    peer = benchmark("peers.mlp").HandWrittenVAE(16, (8,), 3)
    share_weights(bound, peer)
    ours = loss_and_gradients(lambda: loss({"x": x}, {"beta": torch.ones(())}).value, bound)
    assert_same(ours, loss_and_gradients(lambda: peer(x), peer))


@pytest.mark.parametrize("latents", [1, 2, 3])
def test_the_hand_written_single_pass_is_the_same_top_down_model(benchmark, latents):
    from ppl_vae import load

    x = (torch.rand(3, 1, 8, 8) < 0.3).float()
    sizes = {"latents": latents, "z_channels": 2, "width": 4, "inner": 3}
    bound, loss = objective(load("topdown", x_shape=(1, 8, 8), **sizes), 3)
    torch.nn.init.normal_(bound.networks["start"].value)
    peer = benchmark("peers.topdown").HandWrittenTopDown((1, 8, 8), **sizes)
    share_weights(bound, peer)
    ours = loss_and_gradients(lambda: loss({"x": x}, {"beta": torch.ones(())}).value, bound)
    assert_same(ours, loss_and_gradients(lambda: peer(x), peer))


def test_the_hand_written_vqvae_learns_the_same_codes(benchmark):
    pytest.importorskip("vector_quantize_pytorch")
    from ppl_vae import load

    sizes = {"codes": 5, "code_dim": 3, "hidden": 8}
    bound, loss = objective(load("vqvae", x_shape=(3, 8, 8), **sizes), 6)
    peer = benchmark("peers.vq").HandWrittenVQVAE((3, 8, 8), **sizes).train()
    share_weights(bound, peer)
    book, theirs = bound.networks["codebook"], peer.quantizer._codebook
    # Ours begins with codes on points of its first batch: here with the peer's.
    book.placed.fill_(1)
    book.vectors.copy_(theirs.embed[0])
    book.sums.copy_(theirs.embed_avg[0])
    steps = [torch.optim.Adam(module.parameters(), 1e-2) for module in (bound, peer)]
    constant = 3 * 8 * 8 * (math.log(0.25) + 0.5 * math.log(2 * math.pi)) + 4 * math.log(5)
    for _ in range(4):
        x = torch.rand(6, 3, 8, 8)
        losses = [loss({"x": x}, {"beta": torch.ones(())}).value, peer(x)]
        assert losses[0].item() == pytest.approx(losses[1].item() + constant, rel=1e-5)
        for value, step in zip(losses, steps, strict=True):
            step.zero_grad()
            value.backward()
            step.step()
        # The peer smooths its counts before it divides by them.
        torch.testing.assert_close(book.vectors, theirs.embed[0], rtol=1e-4, atol=1e-4)
    assert not torch.equal(book.vectors, book.vectors.new_zeros(5, 3))


@pytest.mark.filterwarnings("ignore")
def test_pythae_trains_the_same_networks(benchmark, tmp_path):
    pytest.importorskip("pythae")
    peers = benchmark("peers.pythae_vae")
    model = peers.model(16, (8,), 3)
    by_hand = benchmark("peers.mlp").HandWrittenVAE(16, (8,), 3)
    assert sorted(p.shape for p in model.parameters()) == sorted(p.shape for p in by_hand.parameters())
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    x = (np.random.default_rng(0).random((10, 1, 4, 4)) < 0.3).astype(np.float32)
    # All probabilities are a half and the posterior is the prior: log 2 a bit.
    assert peers.epochs_of(model, x, 5, tmp_path, lr=0.0)() == pytest.approx(16 * math.log(2), rel=1e-5)


def jax_weights(bound):
    """Return the weights of a bound `vae` as the hand-written JAX model has them."""
    layers = {name: bound.params[f"{name}$params"]["body"]["layers"] for name in ("encoder", "decoder")}
    return {
        name: [(part[i]["kernel"], part[i]["bias"]) for i in range(len(part))]
        for name, part in layers.items()
    }


def test_the_jax_and_numpyro_peers_have_the_same_loss(benchmark):
    import jax
    import numpyro
    from numpyro import handlers

    from ppl_vae import ELBO, bind, load
    from ppl_vae.backends.numpyro.objectives import Objective
    from ppl_vae.backends.numpyro.tracing import Tracer

    jax_vae, svi = benchmark("peers.jax_vae"), benchmark("peers.numpyro_svi")
    x = (np.random.default_rng(0).random((9, 1, 4, 4)) < 0.3).astype(np.float32)
    bound = bind(load("vae", x_shape=(1, 4, 4), hidden=(8,), z_dim=3), backend="numpyro", num_data=9).train()
    weights, flat, key = jax_weights(bound), x.reshape(9, -1), jax.random.key(3)
    assert jax.tree.map(np.shape, weights) == jax.tree.map(
        np.shape, jax_vae.init(jax.random.key(0), 16, (8,), 3)
    )

    def noise(value, fn):
        return (value - fn.base_dist.loc) / fn.base_dist.scale

    ours = Objective(bound, ELBO(), 9)(bound.params, bound.state, key, {"x": x}, {"beta": 1.0}).value
    z = Tracer(bound, key).pair({"x": x}).guide["z"]
    theirs = jax_vae.loss(weights, flat, noise(z.value, z.fn))
    assert float(ours) == pytest.approx(float(theirs), rel=1e-5)
    stock = numpyro.infer.TraceMeanField_ELBO().loss(
        key, weights, svi.story, svi.guide, flat, weights=weights, z_dim=3
    )
    seeded = handlers.substitute(handlers.seed(svi.guide, jax.random.split(key)[1]), data=weights)
    z = handlers.trace(seeded).get_trace(flat, weights=weights, z_dim=3)["z"]
    drawn = noise(z["value"], z["fn"])
    assert float(stock) / 9 == pytest.approx(float(jax_vae.loss(weights, flat, drawn)), rel=1e-5)


def test_the_jax_and_numpyro_peers_learn(benchmark):
    import jax

    jax_vae = benchmark("peers.jax_vae")
    x = np.zeros((16, 4), np.float32)
    params = jax_vae.init(jax.random.key(0), 4, (8,), 2)
    for peer in (jax_vae, benchmark("peers.numpyro_svi")):
        steps = peer.steps_of(params, x, [np.arange(8)] * 20, lr=1e-2)
        losses = [steps() for _ in range(5)]
        assert all(later < earlier for earlier, later in pairwise(losses))
        assert losses[-1] < 0.5 * 4 * math.log(2)


def test_the_importance_weighted_bound_by_hand_is_ours(benchmark):
    from ppl_vae import evaluate

    evaluation, importance = benchmark("evaluation"), benchmark("peers.importance")
    work = evaluation.Workload("test", 0, 8, (8,), 2, (1, 4, 4))
    x = (np.random.default_rng(0).random((8, 1, 4, 4)) < 0.3).astype(np.float32)
    run = evaluation.trained(work, x)
    model, rows, found = evaluation.by_hand(work, run), torch.from_numpy(x), []
    for seed in range(8):
        ours = evaluate(run, split="test", importance_samples=1000, seed=seed)["per_row"]["iw"]
        torch.manual_seed(seed)
        # Chunks that divide neither rows nor samples.
        theirs = importance.bound(model, rows, 1000, at_once=300, rows=3)
        assert theirs.shape == (8,)
        found.append((ours, theirs.numpy()))
    ours, theirs = np.exp(np.array(found)).transpose(1, 2, 0)  # each an unbiased estimate of p(x)
    error = np.sqrt((ours.var(1, ddof=1) + theirs.var(1, ddof=1)) / 8)
    assert (np.abs(ours.mean(1) - theirs.mean(1)) < 4 * error).all()
    assert np.abs(ours.mean() - theirs.mean()) < 4 * np.sqrt((error**2).sum()) / len(error)


def test_saved_bytes_are_counted_once_a_storage(benchmark):
    saved_bytes = benchmark("memory").saved_bytes
    a, b = torch.ones(10, requires_grad=True), torch.ones(20)[:10]
    assert saved_bytes(lambda: (a * a).sum().backward()) == 40
    assert saved_bytes(lambda: ((a * b) * b).sum().backward()) == 80  # the storage under a slice, once
    assert saved_bytes(lambda: (a.exp() * a).sum().backward()) == 80
