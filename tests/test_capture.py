"""The captured step equals the eager one, for every program of the gallery and every objective."""

from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import small_programs
import torch
from training_cases import example

from ppl_vae import ELBO, bind, evaluate, fit, load
from ppl_vae.api import resume
from ppl_vae.backends.pyro.capture import NotCaptured, capture
from ppl_vae.backends.pyro.compiling import Compiled
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.objectives import parse
from ppl_vae.program import PlainProgram, Program

PROGRAMS = ("vae", "hvae", "topdown", "counts", "vqvae", "linear_gaussian")
OBJECTIVES = ("elbo", "elbo(particles=2)", "iwae(k=3)", "dreg(k=3)", "stl(k=2)")


def objective(name, text, autocast=None):
    program, batch = example(name, 8)
    bound = bind(program, num_data=50).train()
    bound.autocast = autocast
    batch = {field: torch.from_numpy(array) for field, array in batch.items()}
    return Objective(bound, parse(text), 50), batch


def stepped(call, loss, batch, betas=(0.7, 0.0, 1.0)):
    """Losses, metrics, weights and buffers of three optimizer steps, on batches of three sizes."""
    start = {name: value.clone() for name, value in loss.state_dict().items()}
    optimizer, found = torch.optim.Adam(loss.parameters(), 1e-2), []
    torch.manual_seed(5)
    with pyro.validation_enabled(False):
        for weight, rows in zip(betas, (8, 5, 2), strict=True):
            optimizer.zero_grad(set_to_none=True)
            rows = {name: part[:rows] for name, part in batch.items()}
            value, metrics, _ = call(rows, {"beta": torch.tensor(weight)})
            value.backward()
            optimizer.step()
            found.append(
                {"loss": value.detach()}
                | metrics
                | {f"state {n}": v.clone() for n, v in loss.state_dict().items()}
            )
    loss.load_state_dict(start)
    return found


def close(found, expected, rtol=1e-5, atol=1e-6):
    for ours, theirs in zip(found, expected, strict=True):
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(
                ours[name], value, rtol=rtol, atol=atol, msg=lambda text, n=name: f"{n}: {text}"
            )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        pytest.param(name, text, marks=() if name == "hvae" or text == "elbo" else pytest.mark.slow)
        for name in PROGRAMS
        for text in OBJECTIVES
    ],
)
def test_a_captured_step_is_the_eager_one_at_every_batch_size(name, text):
    if name == "counts" and not text.startswith("elbo"):
        pytest.skip("refused: counts has global latents")
    loss, batch = objective(name, text)
    before, noise = {n: v.clone() for n, v in loss.state_dict().items()}, torch.get_rng_state()
    graph = capture(loss, loss.bound, batch, {"beta": torch.tensor(0.3)})
    assert torch.equal(torch.get_rng_state(), noise)
    assert all(torch.equal(value, before[n]) for n, value in loss.state_dict().items())
    # In the same order of operations: equal but for the rounding of sums that are taken together.
    close(stepped(graph.module(), loss, batch), stepped(loss, loss, batch))


@pytest.mark.parametrize("likelihood", [*small_programs.MORE_LIKELIHOODS, "rgb_logistic_mixture:17:2"])
def test_a_captured_step_takes_every_likelihood(likelihood):
    case = f"vae mlp {likelihood}"
    bound = bind(small_programs.program(case), num_data=50).train()
    loss = Objective(bound, parse("elbo(particles=2)"), 50)
    rows = small_programs.batch(case)["x"]
    batch = {"x": torch.from_numpy(np.concatenate([rows, rows[:2]]))}
    graph = capture(loss, bound, batch, {"beta": torch.tensor(0.3)})
    close(stepped(graph.module(), loss, batch), stepped(loss, loss, batch))


@pytest.mark.parametrize("name", ["vae", "vqvae"])
def test_a_step_captured_in_bfloat16_is_the_eager_one(name):
    loss, batch = objective(name, "elbo", torch.bfloat16)
    graph = capture(loss, loss.bound, batch, {"beta": torch.tensor(0.3)})
    close(stepped(graph.module(), loss, batch), stepped(loss, loss, batch))


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "linear_gaussian" else pytest.mark.slow) for name in PROGRAMS],
)
def test_a_compiled_step_is_the_eager_one(name):
    loss, batch = objective(name, "elbo")
    graph = capture(loss, loss.bound, batch, {"beta": torch.tensor(0.3)})
    # The compiler has noise of its own; here it takes torch's, so that the draws are the same.
    with torch._inductor.config.patch(fallback_random=True):
        found = stepped(Compiled(loss, graph, batch, {"beta": torch.tensor(0.3)}), loss, batch)
    close(found, stepped(loss, loss, batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["linear_gaussian", pytest.param("vqvae", marks=pytest.mark.slow)])
def test_what_was_compiled_once_is_found_again_and_takes_other_weights(name):
    from torch._dynamo.utils import counters

    found = counters["aot_autograd"]
    with torch._inductor.config.patch(fallback_random=True):
        for shift in (0.0, 0.1):
            loss, batch = objective(name, "elbo")
            with torch.no_grad():
                for parameter in loss.parameters():
                    parameter.add_(shift)
            before = found["autograd_cache_hit"]
            graph = capture(loss, loss.bound, batch, {"beta": torch.tensor(0.3)})
            ours = stepped(Compiled(loss, graph, batch, {"beta": torch.tensor(0.3)}), loss, batch)
            close(ours, stepped(loss, loss, batch), rtol=1e-4, atol=1e-5)
    assert found["autograd_cache_hit"] == before + 1


@dataclass(frozen=True)
class Shifted(Program):
    """A program with a constant: its bound is -shift^2 / 2 and a term that does not depend on it."""

    shift: float = 0.0

    def networks(self, nn):
        return {"loc": nn.Parameter((2,))}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.dist.Normal(net.loc(), 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(0.0 * z + ppl.array([self.shift, 0.0]), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.loc(), 1.0).to_event(1))


def test_what_was_compiled_once_takes_other_constants():
    x, weight, found = {"x": torch.zeros(4, 2)}, {"beta": torch.tensor(1.0)}, []
    for shift in (1.0, 3.0):
        loss = Objective(bind(Shifted(shift), num_data=4).train(), ELBO(), 4)
        found.append(capture(loss, loss.bound, x, weight).compiled(x, weight)(x, weight).value.item())
    # log p(x | z) = -log(2 pi) - shift^2 / 2, and q(z | x) = p(z).
    expected = [np.log(2 * np.pi) + shift**2 / 2 for shift in (1.0, 3.0)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@dataclass(frozen=True)
class Undecided(Shifted):
    """A program whose guide looks at the data."""

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc = net.loc() if float(x.sum()) > 1.0 else 0.0
            ppl.sample("z", ppl.dist.Normal(loc, 1.0).expand((2,)).to_event(1))


def test_control_flow_that_depends_on_data_is_reported_with_its_line():
    loss = Objective(bind(Undecided(), num_data=4).train(), ELBO(), 4)
    place = r"\(test_capture.py, line \d+: loc = net.loc\(\) if float"
    with pytest.raises(NotCaptured, match=f"^its control flow depends on the values of data {place}"):
        capture(loss, loss.bound, {"x": torch.zeros(4, 2)}, {"beta": torch.tensor(1.0)})


def test_what_is_compiled_is_made_for_one_size():
    # Code for any size is slower, and takes longer to make.
    loss, weight = Objective(bind(Shifted(1.0), num_data=4).train(), ELBO(), 4), {"beta": torch.tensor(1.0)}
    graph = capture(loss, loss.bound, {"x": torch.zeros(4, 2)}, weight)
    call = graph.compiled({"x": torch.zeros(4, 2)}, weight)
    assert graph.any_size and call({"x": torch.zeros(4, 2)}, weight).value > 0
    with pytest.raises(AssertionError, match="size"):
        call({"x": torch.zeros(3, 2)}, weight)


def test_noise_is_fresh_at_every_call():
    loss, batch = objective("vae", "elbo")
    graph = capture(loss, loss.bound, batch, {"beta": torch.tensor(1.0)})
    assert (
        graph.module()(batch, {"beta": torch.tensor(1.0)}).value
        != graph.module()(batch, {"beta": torch.tensor(1.0)}).value
    )


class Outside(torch.nn.Module):
    """An objective that keeps its program where torch does not look for parameters."""

    def __init__(self, loss):
        super().__init__()
        self.loss = [loss]

    def forward(self, batch, weight):
        return self.loss[0](batch, weight).value


def test_a_graph_whose_parameters_would_be_constants_is_refused():
    loss, batch = objective("vae", "elbo")
    with pytest.raises(NotCaptured, match="8 of its parameters would become constants"):
        capture(Outside(loss), loss.bound, batch, {"beta": torch.tensor(1.0)})


def test_a_plain_program_is_trained_uncompiled(caplog):
    decoder = torch.nn.Linear(2, 3)

    def model(x):
        pyro.module("decoder", decoder)
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))
            pyro.sample("x", pyro.distributions.Normal(decoder(z), 1.0).to_event(1), obs=x)

    def guide(x):
        with pyro.plate("data", len(x)):
            pyro.sample("z", pyro.distributions.Normal(torch.zeros(2), 1.0).to_event(1))

    x = torch.randn(6, 3)
    bound = PlainBound(PlainProgram(model, guide), ("x",))
    bound.ensure_parameters({"x": x})
    with pytest.raises(NotCaptured, match="its parameters lie outside"):
        capture(Objective(bound, ELBO(), 6), bound, {"x": x}, {"beta": torch.tensor(1.0)})
    run = fit((model, guide), x.numpy(), max_steps=3, batch_size=2, compile="on")
    assert run.steps == 3
    assert "runs uncompiled: its parameters lie outside" in caplog.text


def test_a_compiled_run_goes_on_bit_by_bit_and_ends_where_an_eager_one_does(tmp_path):
    x = (np.random.default_rng(0).random((70, 1, 4, 4)) < 0.4).astype(np.float32)
    program, options = load("vae", hidden=(8,), z_dim=2), {"batch_size": 16, "lr": 1e-2, "ema": 0.9}
    whole = fit(program, x, epochs=12, compile="on", out=tmp_path / "whole", **options)
    fit(program, x, max_steps=19, compile="on", out=tmp_path / "part", **options)  # in the middle of an epoch
    part = resume(tmp_path / "part", data=x, epochs=12, max_steps=None)
    for name, value in whole.bound.weights().items():
        np.testing.assert_array_equal(part.bound.weights()[name], value)
    eager = fit(program, x, epochs=12, **options)
    assert evaluate(whole)["elbo_nats"] == pytest.approx(evaluate(eager)["elbo_nats"], abs=0.3)
