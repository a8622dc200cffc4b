"""NumPyro's training steps as torch's optimizers and torch's clipping do."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch

from ppl_vae import ELBO, bind, load
from ppl_vae.backends.numpyro.step import make_optimizer
from ppl_vae.backends.numpyro.svi import Engine
from ppl_vae.backends.pyro.step import Part
from ppl_vae.backends.pyro.step import make_optimizer as torchs
from ppl_vae.options import Training


@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", ["adam", "adamw", "adamax"])
def test_an_optimizer_steps_as_torchs(name, decay):
    rng = np.random.default_rng(0)
    options = Training(optimizer=name, weight_decay=decay, betas=(0.8, 0.95), eps=1e-3)
    start, grads = rng.normal(size=(3, 4)).astype("f"), rng.normal(size=(30, 3, 4)).astype("f")
    parameter = torch.nn.Parameter(torch.from_numpy(start.copy()))
    theirs, ours = torchs([Part("", [parameter], {})], options), make_optimizer(options)
    value, state = jnp.asarray(start), ours.init(jnp.asarray(start))
    for step, grad in enumerate(grads):
        lr = 0.1 / (1 + step)
        parameter.grad = torch.from_numpy(grad)
        theirs.param_groups[0]["lr"] = lr
        theirs.step()
        update, state = ours.update(jnp.asarray(grad), state, value)
        value = value - lr * update
    np.testing.assert_allclose(value, parameter.detach().numpy(), rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("most", [1e-2, 1.0, 1e3])
def test_a_gradient_is_clipped_as_torch_clips_it(most):
    engine = Engine(
        bind(load("linear_gaussian", x_shape=(3,)), "numpyro"),
        ELBO(),
        Training(clip_norm=most, device="cpu"),
        num_data=3,
    )
    grads = {"a": jnp.arange(6.0).reshape(2, 3), "b": -jnp.ones(2)}
    parameters = [torch.nn.Parameter(torch.zeros(2, 3)), torch.nn.Parameter(torch.zeros(2))]
    for parameter, grad in zip(parameters, grads.values(), strict=True):
        parameter.grad = torch.from_numpy(np.array(grad))
    torch.nn.utils.clip_grad_norm_(parameters, most)
    for parameter, grad in zip(parameters, engine.step._clipped(grads).values(), strict=True):
        np.testing.assert_allclose(grad, parameter.grad.numpy(), rtol=1e-6)
