"""Bounds and their gradients against closed forms and quadrature, on both backends."""

from dataclasses import dataclass
from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.special import logsumexp
from small_programs import BACKENDS, loss_and_gradients

from ppl_vae import ELBO, IWAE, STL, DReG, Program, bind, check, data, evaluate, fit
from ppl_vae.backends.common import terms
from ppl_vae.backends.common.site import Trace

ROWS = 4000
X = 1.3


def normal(value, loc, scale):
    return -0.5 * ((value - loc) / scale) ** 2 - np.log(scale) - 0.5 * np.log(2 * np.pi)


@dataclass(frozen=True)
class BottomUp(Program):
    """z2 ~ N(0, 1), z1 ~ N(c z2, 1), x ~ N(z1, 1); q(z1 | x) = N(a x + d c, s1), q(z2 | z1) = N(b z1, s2).

    The guide draws z1 first, whose prior depends on z2. It shares c with the model, unless d is 0.
    """

    x_shape: tuple[int, ...] | None = None
    shared: float = 0.0
    start: float = 0.0

    def networks(self, nn):
        return {name: nn.Parameter((), self.start) for name in "abcst"}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z2 = ppl.sample("z2", ppl.standard_normal(1))
            z1 = ppl.sample("z1", ppl.dist.Normal(net.c() * z2, 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(z1, 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc = net.a() * x + self.shared * net.c()
            z1 = ppl.sample("z1", ppl.dist.Normal(loc, ppl.F.exp(net.s())).to_event(1))
            ppl.sample("z2", ppl.dist.Normal(net.b() * z1, ppl.F.exp(net.t())).to_event(1))


# The posterior at c = 1: x ~ N(0, 3), z1 | x ~ N(2x/3, 2/3), z2 | z1 ~ N(z1/2, 1/2).
EXACT = {"a": 2 / 3, "b": 0.5, "c": 1.0, "s": 0.5 * np.log(2 / 3), "t": 0.5 * np.log(0.5)}
ELSEWHERE = {"a": 0.5, "b": 0.3, "c": 0.8, "s": -0.4, "t": -0.2}


def bound_at(backend, values, **fields):
    made = bind(BottomUp((1,), **fields), backend=backend, num_data=ROWS)
    made.load_weights({f"{name}.value": np.float32(value) for name, value in values.items()})
    return made.eval()


def rows(x=X):
    return {"x": np.full((ROWS, 1), x, np.float32)}


def repeated(backend, objective, values, seeds=8, **fields):
    """Return means and standard errors, over seeds, of the loss and of the gradient by parameter."""
    made = bound_at(backend, values, **fields)
    found = []
    for seed in range(seeds):
        value, _, grads = loss_and_gradients(made, objective, rows(), seed=seed)
        found.append([value, *(float(grads.get(f"{name}.value", 0.0)) for name in values)])
    found = np.array(found)
    return found.mean(0), found.std(0, ddof=1) / np.sqrt(seeds)


def importance_bound(values, k, shared=0.0, nodes=20):
    """The importance weighted bound of X with k draws, by Gauss-Hermite quadrature over all latents."""
    a, b, c, s, t = (values[name] for name in "abcst")
    points, weights = np.polynomial.hermite_e.hermegauss(nodes)
    weights = weights / weights.sum()
    grid = np.array(list(product(points, repeat=2 * k))).reshape(-1, k, 2)
    mass = np.array(list(product(weights, repeat=2 * k))).prod(1)
    loc = a * X + shared * c
    z1 = loc + np.exp(s) * grid[..., 0]
    z2 = b * z1 + np.exp(t) * grid[..., 1]
    log_p = normal(z2, 0, 1) + normal(z1, c * z2, 1) + normal(X, z1, 1)
    log_q = normal(z1, loc, np.exp(s)) + normal(z2, b * z1, np.exp(t))
    return mass @ (logsumexp(log_p - log_q, 1) - np.log(k))


def slopes(values, k, shared=0.0, step=1e-4):
    """The gradient of `importance_bound` by central differences, exact to about 1e-8."""
    found = []
    for name in values:
        ends = [importance_bound(values | {name: values[name] + sign * step}, k, shared) for sign in (1, -1)]
        found.append((ends[0] - ends[1]) / (2 * step))
    return np.array(found)


def agree(found, errors, exact, noise=6):
    # Six standard errors over eight seeds; 2e-5 is single precision over so many rows.
    np.testing.assert_array_less(np.abs(found - exact), noise * errors + 2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_bottom_up_guide_never_passes_the_evidence(backend):
    evidence, by_c = normal(X, 0, np.sqrt(3)), (X**2 / 3 - 1) / 3
    mean, error = repeated(backend, ELBO(), EXACT)
    # With the posterior as guide the bound is the evidence, and only the model's c has a gradient.
    agree(mean, error, np.array([-evidence, 0, 0, -by_c, 0, 0]))
    assert importance_bound(EXACT, 1) == pytest.approx(evidence, abs=1e-9)
    assert slopes(EXACT, 1)[2] == pytest.approx(by_c, abs=1e-7)
    elsewhere, error = repeated(backend, ELBO(), ELSEWHERE)
    exact = normal(X, 0, np.sqrt(2 + ELSEWHERE["c"] ** 2))
    assert -elsewhere[0] < exact + 6 * error[0]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shared", [0.0, 0.7])
@pytest.mark.parametrize(
    "objective", [ELBO(), ELBO(analytic_kl=False), IWAE(1), IWAE(2), STL(1), DReG(1), DReG(2)], ids=repr
)
def test_gradients_are_unbiased(objective, shared, backend):
    exact = slopes(ELSEWHERE, objective.particles, shared)
    mean, error = repeated(backend, objective, ELSEWHERE, shared=shared)
    agree(mean[1:], error[1:], -exact)
    agree(mean[0], error[0], -importance_bound(ELSEWHERE, objective.particles, shared))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("objective", [STL(1), STL(3), DReG(1), DReG(3)], ids=repr)
def test_at_the_posterior_the_guide_has_no_gradient_at_any_draw(objective, backend):
    made = bound_at(backend, EXACT)
    _, _, grads = loss_and_gradients(made, objective, rows())
    for name in "abst":
        assert abs(float(grads[f"{name}.value"])) < 1e-5
    noisy = loss_and_gradients(made, IWAE(objective.k), rows())[2]
    assert max(abs(float(noisy[f"{name}.value"])) for name in "abst") > 1e-4


@pytest.mark.parametrize("backend", BACKENDS)
def test_training_a_bottom_up_guide_finds_the_posterior(backend):
    x = np.random.default_rng(0).normal(scale=np.sqrt(3), size=(600, 1)).astype("f")
    run = fit(
        BottomUp(), data.of(x, valid=0, test=0), ELBO(), backend=backend, max_steps=500, batch_size=600,
        lr="cosine:5e-2:1e-4:500", keep="last", log_every=250, device="cpu",
    )  # fmt: skip
    found = {name: float(value) for name, value in run.bound.weights().items()}
    c = found["c.value"]
    # The posterior of the model that was learned: its parameters are those of the evidence's maximum.
    assert c**2 == pytest.approx(max(np.mean(x**2) - 2, 0), abs=0.25)
    variance = 1 / (1 / (1 + c**2) + 1)
    assert found["a.value"] == pytest.approx(variance, abs=0.05)
    assert found["b.value"] == pytest.approx(c / (1 + c**2), abs=0.05)
    assert np.exp(found["s.value"]) == pytest.approx(np.sqrt(variance), abs=0.05)
    bound = evaluate(run, "train", 20)
    assert bound["elbo_nats"] < np.mean(normal(x, 0, np.sqrt(2 + c**2))) + 6 * bound["elbo_stderr"]


@dataclass(frozen=True)
class GlobalPair(Program):
    """a ~ N(0, 1), b ~ N(a, 1) for all rows, x ~ N(b, 1); the guide draws b first, then a given b."""

    x_shape: tuple[int, ...] | None = None
    precise: float = 1.0

    def model(self, ppl, net, x=None):
        a = ppl.sample("a", ppl.standard_normal(1))
        b = ppl.sample("b", ppl.dist.Normal(a, 1.0).to_event(1))
        with ppl.minibatch(x):
            ppl.sample("x", ppl.dist.Normal(b, 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        precision = 0.5 + len(x)
        b = ppl.sample("b", ppl.dist.Normal(ppl.F.sum(x, 0) / precision, precision**-0.5).to_event(1))
        ppl.sample("a", ppl.dist.Normal(0.5 * b, ppl.array(0.5) ** 0.5).to_event(1))


@pytest.mark.parametrize(
    ("guide", "closed"), [("abc", "abc"), ("acb", "ab"), ("cba", "a"), ("bc", "bc"), ("", "")]
)
def test_the_guide_draws_a_site_in_order_after_all_that_precede_it_in_the_model(guide, closed):
    def trace(names):
        return Trace({name: SimpleNamespace(observed=False) for name in names})

    assert terms.drawn_in_order(trace(guide), trace("abc")) == set(closed)


@pytest.mark.parametrize("backend", BACKENDS)
def test_global_latents_in_another_order_never_pass_the_evidence(backend):
    x = np.random.default_rng(1).normal(size=(6, 1)).astype("f")
    made = bind(GlobalPair((1,)), backend=backend, num_data=len(x))
    cov = np.eye(6) + 2 * np.ones((6, 6))
    evidence = -0.5 * (x[:, 0] @ np.linalg.solve(cov, x[:, 0]) + np.linalg.slogdet(2 * np.pi * cov)[1])
    found = [loss_and_gradients_of(made, x, seed) for seed in range(10)]
    agree(np.mean(found), np.std(found, ddof=1) / np.sqrt(10), -evidence / 6)


def loss_and_gradients_of(made, x, seed):
    """Return the loss of many particles: its gradient does not exist, as there is nothing to train."""
    from importlib import import_module

    module = import_module(f"ppl_vae.backends.{made.backend}.objectives")
    objective = module.Objective(made, ELBO(particles=2000), len(x))
    if made.backend == "pyro":
        import torch

        torch.manual_seed(seed)
        return float(objective({"x": torch.from_numpy(x)}, {"beta": torch.tensor(1.0)}).value)
    import jax

    return float(objective({}, {}, jax.random.key(seed), {"x": x}, {"beta": 1.0}).value)


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_check_tells_whose_closed_form_is_no_term_of_the_bound(backend, monkeypatch):
    x = np.random.default_rng(0).normal(size=(40, 1)).astype("f")
    report = check(BottomUp(start=0.5), x, backend=backend)
    assert report["bound"].status == "ok" and "'z1'" in report["bound"].message
    assert "'z" not in check("linear_gaussian", x, backend=backend)["bound"].message
    # With closed forms everywhere the bound would be wrong, and the rule says so.
    monkeypatch.setattr(terms, "drawn_in_order", lambda guide, model: frozenset(model.latent))
    assert check(BottomUp(start=0.5), x, backend=backend)["bound"].status == "failed"
