"""Chunks of steps on NumPyro: one loop on the device, whose carry gives its memory to the next one."""

import jax
import numpy as np
import optax
import pytest
from numpyro.infer import SVI, TraceMeanField_ELBO
from training_cases import FIELDS, bits, vae

from ppl_vae import ELBO, bind, fit, load
from ppl_vae.backends.numpyro import svi
from ppl_vae.backends.numpyro.svi import Engine
from ppl_vae.errors import RunError
from ppl_vae.options import Training

STEPS = 4


def an_engine(program="vae", **options):
    bound = bind(load(program, x_shape=(1, 4, 4), **FIELDS[program]), "numpyro", num_data=64)
    training = Training(**{"log_every": STEPS, "device": "cpu"} | options)
    return Engine(bound, ELBO(), training, train={"x": bits(64)}, num_data=64)


def advanced(engine, count=STEPS, size=16, stop=lambda: False):
    items = [np.arange(i, i + size) for i in range(count)]
    scalars = {"lr": np.full(count, 1e-2), "beta": np.ones(count), "ema": np.ones(count)}
    return engine.advance(items, scalars, stop)


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

    options = {"max_steps": 6, "batch_size": 32, "log_every": 2, "backend": "numpyro"}
    run = fit(vae(), bits(64), callbacks=[keep], **options)
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
    other._scans, other._capacity = True, STEPS  # as on a GPU
    for count in (STEPS, 1, STEPS, 3):
        found = [advanced(engine, count) for engine in (one, other)]
        assert found[0] == found[1]
    assert (one._many._cache_size(), other._many._cache_size()) == (1, 2)
    assert_same_bits(one.carry, other.carry)


def test_one_compilation_serves_any_number_of_steps_between_logs():
    # So that a run may be resumed with another number, and keep its bits.
    items = [np.arange(i, i + 16) for i in range(3)]
    scalars = {"lr": np.full(3, 1e-2), "beta": np.ones(3), "ema": np.ones(3)}
    one, other = an_engine(log_every=1), an_engine(log_every=STEPS)
    shapes = [watched(engine) for engine in (one, other)]
    for i in range(3):
        present = {name: values[i : i + 1] for name, values in scalars.items()}
        one.advance(items[i : i + 1], present, lambda: False)
    other.advance(items, scalars, lambda: False)
    assert shapes[0] == 3 * shapes[1]
    assert_same_bits(one.carry, other.carry)


def watched(engine):
    """Return a list that gets the shapes that each call of an engine's loop is compiled for."""
    loop, shapes = engine._many, []

    def watching(*arguments):
        shapes.append(str(jax.tree.map(jax.typeof, arguments[1:])))
        return loop(*arguments)

    engine._many = watching
    return shapes


def test_each_size_of_batch_compiles_once():
    engine = an_engine(log_every=50)
    for count in (6, 2, 4):
        assert advanced(engine, count, size=32).steps == count
        assert advanced(engine, 1, size=6).steps == 1
    assert engine._many._cache_size() == 2


def test_a_stop_request_ends_between_two_calls(monkeypatch):
    monkeypatch.setattr(svi, "AT_ONCE", 4)
    asked = iter([False, False, True])
    assert advanced(an_engine(), 12, stop=lambda: next(asked)).steps == 8


def test_a_state_of_another_optimizer_is_refused():
    first = an_engine()
    assert first.state() == {"state.safetensors": b""}
    advanced(first, 1)
    second = an_engine(optimizer="adamw")
    second.restore(first.state().get)
    with pytest.raises(RunError, match="another program or optimizer"):
        advanced(second, 1)
    with pytest.raises(RunError, match=r"state\.safetensors"):
        second.restore(lambda name: b"no tensors")


def test_stock_svi_and_the_engine_leave_the_codebook_in_the_same_place():
    # numpyro's svi.init has already run the guide once and so has moved the codebook: the state is put back.
    made = load("vqvae", x_shape=(1, 8, 8), **FIELDS["vqvae"])
    x = np.random.default_rng(0).random((32, 1, 8, 8)).astype("f")
    bound = bind(made, "numpyro", num_data=32).train()
    before = bound.state
    svi = SVI(bound.model, bound.guide, optax.sgd(0.0), TraceMeanField_ELBO())
    state = svi.init(jax.random.key(0), x)
    assert state.mutable_state["codebook$state"]["state"]["placed"] == 1
    state = jax.jit(svi.update)(state._replace(mutable_state=before), x)[0]
    engine = Engine(bind(made, "numpyro"), ELBO(), Training(device="cpu"), train={"x": x}, num_data=32)
    engine.advance([np.arange(32)], {"lr": np.zeros(1), "beta": np.ones(1)}, lambda: False)
    moved = engine.carry.state["codebook$state"]["state"]
    for name, value in state.mutable_state["codebook$state"]["state"].items():
        np.testing.assert_allclose(moved[name], value, rtol=1e-5, atol=1e-6)
