"""A step of training makes no tensor on a device of its own choice."""

import pyro
import pytest
import torch
from training_cases import example

from ppl_vae import bind
from ppl_vae.backends.pyro.step import Step, parts_of_program
from ppl_vae.backends.pyro.svi import Engine
from ppl_vae.objectives import parse
from ppl_vae.options import Training


@pytest.mark.parametrize("name", ["vae", "hvae", "counts", "vqvae", "linear_gaussian"])
@pytest.mark.parametrize("objective", ["elbo", "elbo(particles=2)", "iwae(k=3)"])
def test_a_whole_step_runs_on_the_meta_device(name, objective):
    # A tensor made on a fixed device inside a step meets meta tensors and fails.
    program, batch = example(name)
    if name == "counts" and objective.startswith("iwae"):
        pytest.skip("refused: counts has global latents")
    bits = name in ("vae", "hvae")
    engine = Engine(bind(program), parse(objective), Training(ema=0.9), num_data=9, dynamic=bits)
    engine.loss.to("meta")
    step = Step(engine.loss, parts_of_program(engine.bound, ()), engine.options)
    # The fused optimizer and the clipping of norms have no form on the meta device.
    step.optimizer = torch.optim.Adam(step.parameters, foreach=True)
    batch = {field: torch.from_numpy(array).to("meta") for field, array in batch.items()}
    with pyro.validation_enabled(False):
        metrics = step(
            engine._binarized(batch), {"lr": 0.1, "ema": 0.1, "beta": torch.ones((), device="meta")}
        )
    assert {value.device.type for value in metrics.values()} == {"meta"}
    assert all(parameter.grad is not None for parameter in step.parameters)
