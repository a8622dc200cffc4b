"""A bound program is a pair of ordinary functions of its library."""

import copy
import pickle

import numpy as np
import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from training_cases import bits, same, small_data, vae

from ppl_vae import bind, fit


def test_two_programs_train_independently_in_one_process():
    # Under stock SVI, as under fit: each bound program's parameters have names of their own.
    x = torch.from_numpy(bits())
    first, second = (bind(vae().adapted_to(small_data()), num_data=70, seed=seed) for seed in (0, 1))
    before = second.weights()
    svi = [SVI(b.model, b.guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()) for b in (first, second)]
    start = [float(s.evaluate_loss(x)) for s in svi]
    for _ in range(60):
        svi[0].step(x)
    assert same(second.weights(), before)
    for _ in range(60):
        svi[1].step(x)
    assert all(float(s.evaluate_loss(x)) < 0.95 * old for s, old in zip(svi, start, strict=True))
    pyro.clear_param_store()
    together = [fit(vae(), small_data(), max_steps=5, batch_size=35, seed=s) for s in (0, 1)]
    alone = fit(vae(), small_data(), max_steps=5, batch_size=35, seed=1)
    assert same(together[1].bound.weights(), alone.bound.weights())
    assert not list(pyro.get_param_store().keys())


def pickled(bound):
    return pickle.loads(pickle.dumps(bound))


@pytest.mark.parametrize("copied", [copy.deepcopy, pickled])
def test_a_copy_of_a_trained_program_trains_by_itself(copied):
    x, adam = torch.from_numpy(bits()), pyro.optim.Adam({"lr": 1e-2})
    first = bind(vae().adapted_to(small_data()), num_data=70)
    SVI(first.model, first.guide, adam, Trace_ELBO()).step(x)
    trained = first.weights()
    second = copied(first)
    assert same(second.weights(), trained)
    SVI(second.model, second.guide, adam, Trace_ELBO()).step(x)
    assert same(first.weights(), trained)
    assert not any(np.array_equal(value, trained[name]) for name, value in second.weights().items())
    moved = second.weights()
    SVI(first.model, first.guide, adam, Trace_ELBO()).step(x)
    assert same(second.weights(), moved) and not same(first.weights(), trained)
