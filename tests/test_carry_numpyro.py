"""Chunks of steps on NumPyro: one loop on the device, whose carry gives its memory to the next one."""

import jax
import numpy as np
import pytest

from ppl_vae import ELBO, bind, fit, load
from ppl_vae.backends.numpyro.svi import Engine
from ppl_vae.options import Training

STEPS = 4


def rows(n=64):
    return (np.random.default_rng(0).random((n, 1, 4, 4)) < 0.4).astype(np.float32)


def an_engine(program="vae", **options):
    fields = {"vae": {"hidden": (16,), "z_dim": 3}, "vqvae": {"codes": 8, "code_dim": 4, "hidden": 8}}
    bound = bind(load(program, x_shape=(1, 4, 4), **fields[program]), "numpyro", num_data=64)
    training = Training(**{"log_every": STEPS, "device": "cpu"} | options)
    return Engine(bound, ELBO(), training, train={"x": rows()}, num_data=64)


def advanced(engine, count=STEPS, size=16):
    items = [np.arange(i, i + size) for i in range(count)]
    return engine.advance(
        items, {"lr": np.full(count, 1e-2), "beta": np.ones(count), "ema": np.ones(count)}, lambda: False
    )


def data_of(tree):
    """Return every leaf of a tree as NumPy's, keys included."""
    keys = jax.tree.map(lambda a: jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key), tree)
    return jax.tree.map(lambda a, key: np.array(jax.random.key_data(a) if key else a), tree, keys)


def assert_same_bits(one, other):
    jax.tree.map(np.testing.assert_array_equal, data_of(one), data_of(other))


@pytest.mark.parametrize("program", ["vae", "vqvae"])
def test_a_chunk_takes_over_the_memory_of_the_last_carry(program):
    engine = an_engine(program, ema=0.9)
    advanced(engine)
    before = engine.carry
    advanced(engine)
    leaves = [leaf for leaf in jax.tree.leaves(before) if leaf.size > 1]
    assert len(leaves) > 8 and all(leaf.is_deleted() for leaf in leaves)
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(engine.carry))


def test_what_others_hold_of_a_run_outlives_the_next_chunks():
    engine = an_engine(ema=0.9)
    engine.bound.train()
    held = [engine.bound.params]
    advanced(engine)
    held.append(engine.bound.params)
    engine.select()
    held.append(engine.best.params)
    copies = [data_of(one) for one in held]
    for _ in range(2):
        advanced(engine)
    for one, copy in zip(held, copies, strict=True):
        assert_same_bits(one, copy)
    # What is shown are the present weights, not the averaged ones.
    assert_same_bits(engine.bound.params, engine.carry.params)
    assert not np.array_equal(
        engine.bound.params["decoder$params"]["body"]["layers"][0]["bias"],
        held[1]["decoder$params"]["body"]["layers"][0]["bias"],
    )
    engine.finish(selected=True)
    assert_same_bits(engine.bound.params, copies[2])
    advanced(engine)
    assert_same_bits(engine.best.params, copies[2])


def test_a_callback_may_keep_parameters():
    kept = []

    def keep(event, state):
        if event == "log":
            bound = state["run"].bound
            kept.append((bound.params, bound.weights()))

    program = load("vae", hidden=(16,), z_dim=3)
    options = {"max_steps": 6, "batch_size": 32, "log_every": 2, "backend": "numpyro"}
    run = fit(program, rows(), callbacks=[keep], **options)
    assert len(kept) == 3
    for params, weights in kept:
        run.bound.params = params
        now = run.bound.weights()
        assert all(np.array_equal(now[name], value) for name, value in weights.items())


@pytest.mark.parametrize(("count", "loop"), [(None, "scan"), (2, "while")])
def test_a_chunk_is_one_loop_without_a_word_to_the_host(count, loop):
    engine = an_engine()
    advanced(engine)
    index, lr = np.zeros((STEPS, 16), np.int32), np.zeros(STEPS, np.float32)
    made = jax.make_jaxpr(engine._steps)(engine.carry, engine.data, index, {"lr": lr, "beta": lr}, count)
    found = [str(equation.primitive) for equation in made.eqns]
    assert [name for name in found if name in ("scan", "while")] == [loop]
    assert "callback" not in str(made)


def test_a_loop_of_known_length_takes_the_same_steps_to_the_bit():
    one, other = an_engine(), an_engine()
    other._scans = True
    for count in (STEPS, 1, STEPS, 3):
        found = [advanced(engine, count) for engine in (one, other)]
        assert found[0] == found[1]
    assert (one._many._cache_size(), other._many._cache_size()) == (1, 2)
    assert_same_bits(one.carry, other.carry)
