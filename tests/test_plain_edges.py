"""Corners of plain programs: devices, scales of plates, late parameters, names of fields."""

import numpy as np
import pyro
import pyro.distributions as dist
import pytest
import torch

from ppl_vae import ELBO, data, evaluate, fit
from ppl_vae.backends.pyro.objectives import Objective
from ppl_vae.backends.pyro.plain import PlainBound
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import PlainProgram

SMALL = {"hidden": (8,), "z_dim": 2}


def test_a_plain_program_runs_where_it_is_moved():
    encoder = torch.nn.Linear(2, 2)

    def model(x):
        with pyro.plate("data", len(x)):
            z = pyro.sample("z", dist.Normal(torch.zeros(2), 1.0).to_event(1))
            scale = pyro.param("scale", torch.ones(2), constraint=dist.constraints.positive)
            pyro.sample("x", dist.Normal(z, scale).to_event(1), obs=x)

    def guide(x):
        pyro.module("encoder", encoder)
        with pyro.plate("data", len(x)):
            pyro.sample("z", dist.Normal(encoder(x), 1.0).to_event(1))

    bound = PlainBound(PlainProgram(model, guide), ("x",)).to("meta")
    batch = {"x": torch.zeros(5, 2, device="meta")}
    with pyro.validation_enabled(False):
        loss = Objective(bound, ELBO(), 5)(batch, {"beta": torch.ones((), device="meta")}).value
    loss.backward()
    assert loss.device.type == "meta" and len(bound.trainable()) == 3
    assert all(parameter.device.type == "meta" for parameter in bound.trainable())


ROWS = np.random.default_rng(1).normal(size=(52, 2)).astype("f")


def scaled(x):
    return pyro.plate("data", 52, subsample=torch.arange(len(x)))


def unscaled(x):
    return pyro.plate("data", len(x))


@pytest.mark.parametrize("objective", [ELBO(), "Trace_ELBO"])
@pytest.mark.parametrize("plate", [scaled, unscaled])
def test_a_bound_of_a_plain_program_is_per_row_however_its_plate_is_scaled(objective, plate):
    def guide(x):
        with plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))

    def model(x):
        with plate(x):
            pyro.sample("z", dist.Normal(torch.zeros(()), 1.0))
            pyro.sample("x", dist.Normal(torch.zeros(2), 1.0).to_event(1), obs=x)

    exact = -(0.5 * (ROWS**2).sum(1) + np.log(2 * np.pi)).mean()
    found = data.of({"train": {"x": ROWS}, "test": {"x": ROWS}}, valid=0)
    run = fit((model, guide), found, objective, max_steps=4, batch_size=13, log_every=4)
    assert evaluate(run)["elbo_nats"] == pytest.approx(exact, rel=1e-5)
    assert run.history[0]["elbo_nats"] == pytest.approx(exact, rel=1e-5)


NUMPY = np.random.default_rng(2).normal(size=(52, 2)).astype("f")


@pytest.mark.parametrize("objective", [ELBO(), "TraceMeanField_ELBO"])
@pytest.mark.parametrize("part", [None, True])
def test_a_bound_of_a_plain_numpyro_program_is_per_row_however_its_plate_is_scaled(objective, part):
    import numpyro
    import numpyro.distributions as ndist

    def rows(x):
        return numpyro.plate("data", 52 if part else len(x), subsample_size=len(x) if part else None)

    def guide(x):
        with rows(x):
            numpyro.sample("z", ndist.Normal(0.0, 1.0))

    def model(x):
        with rows(x):
            numpyro.sample("z", ndist.Normal(0.0, 1.0))
            numpyro.sample("x", ndist.Normal(np.zeros(2), 1.0).to_event(1), obs=x)

    exact = -(0.5 * (NUMPY**2).sum(1) + np.log(2 * np.pi)).mean()
    found = data.of({"train": {"x": NUMPY}, "test": {"x": NUMPY}}, valid=0)
    program = PlainProgram(model, guide, backend="numpyro")
    run = fit(program, found, objective, max_steps=4, batch_size=13, log_every=4)
    assert evaluate(run)["elbo_nats"] == pytest.approx(exact, rel=1e-5)
    assert run.history[0]["elbo_nats"] == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_stock_loss_is_per_row_where_the_guide_has_no_plate(backend):
    library = {"pyro": pyro, "numpyro": pytest.importorskip("numpyro")}[backend]
    subsample = (
        (lambda x: {"subsample": torch.arange(len(x))})
        if backend == "pyro"
        else (lambda x: {"subsample_size": len(x)})
    )

    def model(x):
        with library.plate("data", 52, **subsample(x)):
            twice = library.deterministic("twice", 2 * x)
            library.sample("x", library.distributions.Normal(0 * twice, 1.0).to_event(1), obs=x)

    found = data.of({"train": {"x": ROWS}, "test": {"x": ROWS}}, valid=0)
    program = PlainProgram(model, lambda x: None, backend=backend)
    exact = -(0.5 * (ROWS**2).sum(1) + np.log(2 * np.pi)).mean()
    for objective in ("Trace_ELBO", ELBO()):
        run = fit(program, found, objective, max_steps=4, batch_size=13, log_every=4)
        assert run.history[0]["elbo_nats"] == pytest.approx(exact, rel=1e-5)
        assert evaluate(run)["elbo_nats"] == pytest.approx(exact, rel=1e-5)


def test_a_default_of_the_first_parameter_is_kept_where_another_is_called_x():
    seen = []

    def model(scale=1.5, x=None):
        seen.append(scale)
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(0 * x, scale).to_event(1), obs=x)

    fit((model, lambda scale=1.5, x=None: None), ROWS, max_steps=2, batch_size=5)
    assert set(seen) == {1.5}


def test_a_parameter_first_made_after_the_first_batch_is_refused():
    calls = []

    def model(x):
        calls.append(x)
        if len(calls) > 4:
            pyro.param("late", torch.zeros(()))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.Normal(pyro.param("loc", torch.zeros(2)), 1.0).to_event(1), obs=x)

    with pytest.raises(ProgramError, match="made a parameter after its first batch"):
        fit((model, lambda x: None), ROWS, max_steps=8, batch_size=13)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_field_after_a_parameter_with_a_default_is_passed_by_name(backend):
    seen = []
    library = {"pyro": pyro, "numpyro": pytest.importorskip("numpyro")}[backend]

    def model(x, width=3, labels=None):
        seen.append((width, labels is not None))
        with library.plate("data", len(x)):
            z = library.sample("z", library.distributions.Normal(labels[:, 0], 1.0))
            library.sample("x", library.distributions.Normal(z[..., None] + 0 * x, 1.0).to_event(1), obs=x)

    def guide(batch, width=3, labels=None):
        with library.plate("data", len(batch)):
            library.sample("z", library.distributions.Normal(labels[:, 0], 1.0))

    rows = {"x": ROWS, "labels": ROWS}
    run = fit(PlainProgram(model, guide, backend=backend), rows, max_steps=4, batch_size=13)
    assert set(seen) == {(3, True)}
    assert evaluate(run, data={name: value[:40] for name, value in rows.items()})["n"] == 40
    with pytest.raises(DataError, match="'x' is missing"):
        run.score({"labels": ROWS})
    with pytest.raises(ProgramError, match="the guide does not take them"):
        fit(PlainProgram(model, lambda x: None, backend=backend), rows, max_steps=4, batch_size=13)
