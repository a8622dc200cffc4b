"""The project's objectives against the libraries' own, and what they refuse, on both backends."""

from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import pytest
from made import OnTorch
from small_programs import BACKENDS, FEW, NUM_DATA, ROWS, batch, bound, loss_and_gradients, observe

from ppl_vae import ELBO, IWAE, Program, bind, load
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.objectives import STL, DReG

PAIRS = {"TraceMeanField_ELBO": ELBO(), "Trace_ELBO": ELBO(analytic_kl=False)}


def close(found, expected, rtol=1e-5):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(
            found[name], value, rtol=rtol, atol=rtol * (1e-3 + np.abs(value).max()), err_msg=name
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stock", PAIRS)
@pytest.mark.parametrize("case", [*FEW[:-2], pytest.param("topdown", marks=pytest.mark.slow), FEW[-1]])
def test_our_bound_and_its_gradient_are_those_of_the_stock_elbo(case, stock, backend):
    # The same seed gives the same draws. The batch is a part of the data, so that scales are tested too.
    rows = batch(case)
    theirs = bound(case, backend).train()
    value, metrics, grads = loss_and_gradients(theirs, backend_named(backend).stock_objective(stock)(), rows)
    ours = bound(case, backend).train()
    own_value, own_metrics, own_grads = loss_and_gradients(ours, PAIRS[stock], rows)
    assert own_value == pytest.approx(value, rel=2e-6)
    assert metrics["elbo_nats"] == pytest.approx(-value, rel=1e-6)
    close(own_grads, grads, rtol=2e-5)
    # Statistics and codebooks end where the stock objective leaves them.
    close(ours.weights(), theirs.weights(), rtol=1e-6)
    penalty = sum(v for n, v in own_metrics.items() if n.startswith("penalty/"))
    assert own_metrics["elbo_nats"] == pytest.approx(-own_value + penalty, rel=2e-6)


def at(value, particle):
    """Return one particle of an array; what has no axis of particles belongs to all of them."""
    return value[particle] if value.shape[:1] == (3,) else value


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", FEW)
def test_several_particles_are_several_single_ones(case, backend):
    made, rows = bound(case, backend).eval(), batch(case)
    many = observe(made, rows, seed=1, particles=3)
    for i in range(3):
        one = observe(made, rows, {name: at(value, i) for name, value in many.latents.items()})
        np.testing.assert_allclose(
            at(many.terms["log_likelihood"], i), one.terms["log_likelihood"], rtol=2e-5
        )
        for kind in ("kl", "kl_global"):
            for name, value in many.terms[kind].items():
                np.testing.assert_allclose(at(value, i), one.terms[kind][name], rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_bound_of_particles_is_the_mean(backend):
    made, rows = bound("linear_gaussian", backend), batch("linear_gaussian")
    value, _, _ = loss_and_gradients(made, ELBO(particles=5), rows, seed=2)
    terms = observe(made, rows, seed=2, particles=5).terms
    assert value == pytest.approx(float((terms["kl"]["z"] - terms["log_likelihood"]).mean()), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["vae mlp bernoulli", "counts negative_binomial", "vqvae ema"])
def test_beta_weights_the_kl_and_may_be_zero(case, backend):
    rows, made, objective, found = batch(case), bound(case, backend), ELBO(), {}
    weights = made.weights()
    for beta in (0.0, 1.0, 4.0):
        made.load_weights(weights)
        found[beta] = loss_and_gradients(made, objective, rows, beta)
    value, metrics, grads = found[0.0]
    penalty = sum(v for n, v in metrics.items() if n.startswith("penalty/"))
    assert value == pytest.approx(metrics["distortion_nats"] + penalty, rel=1e-6)
    for beta in (1.0, 4.0):
        assert found[beta][0] == pytest.approx(value + beta * metrics["rate_nats"], rel=1e-5)
        assert found[beta][1] == pytest.approx(metrics, rel=1e-6)
    # The gradient is linear in beta.
    for name, zero in grads.items():
        slope = found[1.0][2][name] - zero
        np.testing.assert_allclose(
            found[4.0][2][name] - zero, 4 * slope, rtol=1e-3, atol=1e-4 * np.abs(zero).max() + 1e-6
        )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["vae mlp bernoulli", "hvae", "vqvae ema"])
def test_iwae_of_one_sample_is_the_elbo_with_a_sampled_kl(case, backend):
    rows = batch(case)
    value, _, grads = loss_and_gradients(bound(case, backend), IWAE(1), rows)
    expected, _, expected_grads = loss_and_gradients(bound(case, backend), ELBO(analytic_kl=False), rows)
    assert value == pytest.approx(expected, rel=2e-6)
    close(grads, expected_grads, rtol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", ["vae mlp bernoulli", "hvae"])
def test_iwae_weighs_the_joint_samples_of_one_datum(case, backend):
    made, rows = bound(case, backend).eval(), batch(case)
    value, metrics, _ = loss_and_gradients(made, IWAE(4), rows, seed=3)
    seen = observe(made, rows, seed=3, particles=4)
    weights = sum(seen.log_p.values()) - sum(seen.log_q.values())
    assert weights.shape == (4, ROWS)
    top = weights.max(0)
    exact = (top + np.log(np.exp(weights - top).mean(0))).mean()
    assert value == pytest.approx(-exact, rel=1e-5)
    assert metrics["iw_nats"] == pytest.approx(exact, rel=1e-5)
    assert metrics["elbo_nats"] == pytest.approx(weights.mean(), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_commitment_is_a_penalty_outside_the_reported_bound(backend):
    made, rows = bound("vqvae ema", backend), batch("vqvae ema")
    value, metrics, _ = loss_and_gradients(made, ELBO(), rows)
    assert metrics["penalty/commitment"] > 0
    assert value == pytest.approx(-metrics["elbo_nats"] + metrics["penalty/commitment"], rel=1e-6)
    assert metrics["rate_nats"] == pytest.approx(6 * np.log(5), rel=1e-6)  # 2 x 3 codes, each of 5
    assert 1 <= metrics["perplexity"] <= 5 and 0 < metrics["usage"] <= 1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("objective", [IWAE(1), STL(1), DReG(1)])
def test_importance_weighted_objectives_add_penalties(objective, backend):
    rows, made = batch("vqvae ema"), bound("vqvae ema", backend)
    heavy = bind(replace(made.program, commitment=1e5), backend, num_data=NUM_DATA)
    heavy.load_weights(made.weights())
    value, metrics, _ = loss_and_gradients(heavy, objective, rows)
    assert metrics["penalty/commitment"] > 0.1 * abs(metrics["iw_nats"])
    assert value == pytest.approx(metrics["penalty/commitment"] - metrics["iw_nats"], rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_penalties_of_a_vqvae_are_its_weighted_errors(backend):
    """arXiv:1711.00937, eq. 3, with the encoder's output computed apart; and the gradient of the codes."""
    case, shape, commitment = "vqvae gradient", (3, 8, 12), 0.7
    fields = {"codes": 5, "code_dim": 4, "hidden": 6, "learning": "gradient", "commitment": commitment}
    program, weights, rows = (
        load("vqvae", x_shape=shape, **fields),
        bound(case, "pyro").weights(),
        batch(case),
    )
    program_bound = bind(program, backend, num_data=NUM_DATA)
    program_bound.load_weights(weights)
    value, metrics, gradients = loss_and_gradients(program_bound, ELBO(), rows)
    encoder = OnTorch(lambda nn: nn.ConvGrid(shape, 6, 4))
    encoder.load({n.removeprefix("encoder."): w for n, w in weights.items() if n.startswith("encoder.")})
    z = encoder(rows["x"])[0].reshape(-1, 4)
    book = weights["codebook.vectors"] + weights["codebook.moved"]
    gaps = z[:, None] - book
    codes = np.square(gaps).sum(-1).argmin(-1)
    error = np.square(z - book[codes]).sum() / ROWS
    assert metrics["penalty/codebook"] == pytest.approx(error, rel=1e-4)
    assert metrics["penalty/commitment"] == pytest.approx(commitment * error, rel=1e-4)
    assert value == pytest.approx(-metrics["elbo_nats"] + (1 + commitment) * error, rel=1e-4)
    # The decoder's gradient passes by the codes: they follow the codebook's error alone.
    pulls = np.stack([2 * (book[k] - z[codes == k]).sum(0) for k in range(5)]) / ROWS
    np.testing.assert_allclose(gradients["codebook.vectors"], pulls, rtol=1e-3, atol=1e-4)


def shared(bound_program, objective):
    """Return the objective of a backend, ready to check a program."""
    module = import_module(f"ppl_vae.backends.{bound_program.backend}.objectives")
    return module.Objective(bound_program, objective, NUM_DATA)


def check(bound_program, objective, rows):
    if bound_program.backend == "pyro":
        import torch

        rows = {name: torch.from_numpy(value) for name, value in rows.items()}
    shared(bound_program, objective).check(rows, {}, lambda: None)


@dataclass(frozen=True)
class Broken(Program):
    """x ~ N(z, 1), with one fault by name."""

    fault: str = ""

    def model(self, ppl, net, x=None):
        if self.fault == "global":
            ppl.sample("shift", ppl.standard_normal(1))
        with ppl.minibatch(x):
            if self.fault == "missing in guide":
                ppl.sample("w", ppl.standard_normal(2))
            if self.fault == "discrete":
                ppl.sample("z", ppl.dist.Bernoulli(ppl.array([0.5, 0.5])).to_event(1))
                z = ppl.array([0.0, 0.0])
            else:
                z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        if self.fault == "global":
            ppl.sample("shift", ppl.standard_normal(1))
        with ppl.minibatch(x):
            if self.fault == "missing in model":
                ppl.sample("v", ppl.standard_normal(2))
            if self.fault in ("discrete", "enumerated"):
                how = {"enumerate": "parallel"} if self.fault == "enumerated" else {}
                ppl.sample("z", ppl.dist.Bernoulli(ppl.array([0.5, 0.5])).to_event(1), infer=how)
            else:
                ppl.sample("z", ppl.dist.Normal(0.5 * x, 0.7).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("fault", "objective", "message"),
    [
        ("global", IWAE(3), "site 'shift' is global: importance weights per row are wrong for it"),
        ("missing in guide", ELBO(), "site 'w' of the model has no site in the guide"),
        ("missing in model", ELBO(), "site 'v' of the guide is not in the model"),
        ("discrete", ELBO(), "site 'z' has no reparametrised draw: use .*TraceGraph_ELBO"),
        ("enumerated", IWAE(2), "site 'z' is enumerated: use .*TraceEnum_ELBO"),
    ],
)
def test_what_cannot_be_estimated_is_refused_by_the_name_of_the_site(fault, objective, message, backend):
    rows = {"x": np.zeros((ROWS, 2), np.float32)}
    check(bind(Broken(), backend=backend), objective, rows)
    with pytest.raises(ProgramError, match=message):
        check(bind(Broken(fault), backend=backend), objective, rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_callable_is_an_objective_of_its_own(backend):
    made, rows = bound("linear_gaussian", backend), batch("linear_gaussian")
    expected, _, expected_grads = loss_and_gradients(made, ELBO(analytic_kl=False), rows, seed=4)

    def objective(model, guide, **data):
        """Return the negative log joint minus log q, by hand."""
        if backend == "pyro":
            from pyro import poutine

            q = poutine.trace(guide).get_trace(**data)
            p = poutine.trace(poutine.replay(model, trace=q)).get_trace(**data)
            return q.log_prob_sum() - p.log_prob_sum()
        from numpyro import handlers
        from numpyro.infer.util import log_density

        q = handlers.trace(guide).get_trace(**data)
        log_q, _ = log_density(handlers.replay(guide, trace=q), (), data, {})
        log_p, _ = log_density(handlers.replay(model, trace=q), (), data, {})
        return log_q - log_p

    value, metrics, grads = loss_and_gradients(made, objective, rows, seed=4)
    assert value == pytest.approx(expected, rel=1e-5)
    assert metrics["elbo_nats"] == pytest.approx(-expected, rel=1e-5)
    close(grads, expected_grads, rtol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_no_objective_is_refused(backend):
    with pytest.raises(UsageError, match="3 is no objective: use"):
        shared(bound("linear_gaussian", backend), 3)


def test_the_weight_of_the_kl_rises_from_0_over_the_warm_up():
    objective = ELBO(beta=4.0, warm_up=10)
    assert [objective.scalars(step)["beta"] for step in (0, 5, 10, 50)] == [0, 2, 4, 4]
    assert ELBO(beta=4.0).scalars(0)["beta"] == 4


def test_a_particle_count_below_one_is_refused():
    with pytest.raises(UsageError, match="particles=0"):
        ELBO(particles=0)
