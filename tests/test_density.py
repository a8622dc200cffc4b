"""The density of rows as a function of their latents, on both backends."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pytest
from exact import decoder, draw, evidence, posterior, program, weights
from scipy.stats import multivariate_normal, norm
from small_programs import BACKENDS

from ppl_vae import Program, bind, fit
from ppl_vae.backends import backend as backend_named
from ppl_vae.backends.common.density import Density
from ppl_vae.backends.common.terms import Densities
from ppl_vae.errors import DataError, ProgramError
from ppl_vae.program import PlainProgram

W, B = decoder()
X = draw(4, W, B)
SIGMA = program().sigma


def array(backend, value):
    if backend == "pyro":
        import torch

        return torch.from_numpy(np.asarray(value, np.float32))
    import jax

    return jax.numpy.asarray(value, jax.numpy.float32)


def host(value):
    return np.asarray(value.detach() if hasattr(value, "detach") else value)


def linear(backend):
    made = bind(program(), backend=backend, num_data=len(X))
    made.load_weights(weights(W, B))
    return Density(made, {"x": X})


FUNCTIONS = ("log_joint", "log_prior", "log_likelihood", "log_guide", "gradient", "constrain", "unconstrain")


def compiled(backend, density):
    """Return a density, on JAX with functions compiled as one: each operation would be compiled alone."""
    if backend == "pyro":
        return density
    import jax

    made = SimpleNamespace(dim=density.dim, from_guide=density.from_guide)
    vars(made).update({name: jax.jit(getattr(density, name)) for name in FUNCTIONS})
    return made


@dataclass(frozen=True)
class Positive(Program):
    """r ~ Exponential(1), w ~ Dirichlet(1, 1, 1), x ~ N(r w_1, 1): supports other than the reals."""

    x_shape: tuple[int, ...] | None = None
    fault: str = ""

    def networks(self, nn):
        return {"scale": nn.Parameter((1,), 0.5)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            r = ppl.sample("r", ppl.dist.Exponential(ppl.array([1.0])).to_event(1))
            w = ppl.sample("w", ppl.dist.Dirichlet(ppl.array([1.0, 1.0, 1.0])))
            if self.fault == "discrete":
                ppl.sample("c", ppl.dist.Bernoulli(ppl.array([0.5])).to_event(1))
            ppl.sample("x", ppl.dist.Normal(r * w[..., :1], 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("r", ppl.dist.LogNormal(0.1 * x, ppl.F.exp(net.scale())).to_event(1))
            ppl.sample("w", ppl.dist.Dirichlet(ppl.array([1.0, 2.0, 3.0])))
            if self.fault == "discrete":
                ppl.sample("c", ppl.dist.Bernoulli(ppl.array([0.5])).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_normal_program_has_its_density_and_gradient(backend):
    density, u = compiled(backend, linear(backend)), np.random.default_rng(0).normal(size=(3, len(X), 2))
    mean = u @ W.T + B
    likelihood = norm.logpdf(X, mean, SIGMA).sum(-1)
    prior = norm.logpdf(u).sum(-1)
    states = array(backend, u)
    np.testing.assert_allclose(host(density.log_likelihood(states)), likelihood, rtol=2e-5)
    np.testing.assert_allclose(host(density.log_prior(states)), prior, rtol=2e-5)
    value, gradient = density.gradient(states)
    np.testing.assert_allclose(host(value), likelihood + prior, rtol=2e-5)
    np.testing.assert_allclose(host(density.log_joint(states)), likelihood + prior, rtol=2e-5)
    np.testing.assert_allclose(host(gradient), (X - mean) @ W / SIGMA**2 - u, rtol=1e-4, atol=1e-3)
    matrix, offset, cov = posterior(W, B)
    guide = [
        [multivariate_normal.logpdf(z, m, cov) for z, m in zip(c, X @ matrix.T + offset, strict=True)]
        for c in u
    ]
    np.testing.assert_allclose(host(density.log_guide(states)), guide, rtol=1e-4, atol=1e-4)
    # With the posterior as guide every importance weight is the evidence.
    drawn = density.from_guide(5, seed=1)
    found = host(density.log_joint(drawn)) - host(density.log_guide(drawn))
    np.testing.assert_allclose(found, np.broadcast_to(evidence(X, W, B), found.shape), rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_draws_are_those_of_guide_and_prior(backend):
    density = linear(backend)
    matrix, offset, cov = posterior(W, B)
    for drawn, mean, variance in (
        (density.from_guide(4000, seed=3), X @ matrix.T + offset, np.diag(cov)),
        (density.from_prior(4000, seed=3), np.zeros((len(X), 2)), np.ones(2)),
    ):
        found = host(drawn)
        assert found.shape == (4000, len(X), 2)
        assert (np.abs(found.mean(0) - mean) < 6 * np.sqrt(variance / 4000)).all()
        np.testing.assert_allclose(found.var(0), np.broadcast_to(variance, (len(X), 2)), rtol=0.15)
    again, other = density.from_guide(3, seed=3), density.from_guide(3, seed=4)
    np.testing.assert_array_equal(host(again), host(density.from_guide(3, seed=3)))
    assert (host(again) != host(other)).any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_supports_are_mapped_with_their_determinant(backend):
    made = Density(bind(Positive((1,)), backend=backend), {"x": np.array([[0.7]], np.float32)})
    density = compiled(backend, made)
    assert density.dim == 3  # one number for r, two for a point of the simplex
    # The density of free numbers integrates to the evidence: by a grid over all three.
    grid = np.linspace(-8, 8, 81)
    u = np.stack(np.meshgrid(np.linspace(-12, 4, 161), grid, grid, indexing="ij"), -1).reshape(-1, 1, 3)
    cell = (16 / 160) * (16 / 80) ** 2
    total = sum(np.exp(host(density.log_joint(array(backend, part)))).sum() for part in np.array_split(u, 8))
    rng = np.random.default_rng(0)
    r, w = rng.exponential(size=400_000), rng.dirichlet(np.ones(3), size=400_000)[:, 0]
    samples = norm.pdf(0.7, r * w, 1)
    assert total * cell == pytest.approx(samples.mean(), abs=6 * samples.std() / np.sqrt(len(samples)) + 1e-4)
    prior = sum(np.exp(host(density.log_prior(array(backend, part)))).sum() for part in np.array_split(u, 8))
    assert prior * cell == pytest.approx(1.0, abs=2e-3)
    # There and back again.
    drawn = density.from_guide(6, seed=0)
    values = density.constrain(drawn)
    assert set(values) == {"r", "w"} and (host(values["r"]) > 0).all()
    np.testing.assert_allclose(host(values["w"]).sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(host(density.unconstrain(values)), host(drawn), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_the_slopes_of_the_density(backend):
    rows = {"x": np.array([[0.7], [2.0]], np.float32)}
    density = compiled(backend, Density(bind(Positive((1,)), backend=backend), rows))
    u, step = np.random.default_rng(1).normal(size=(2, 2, 3)), 1e-2
    gradient = host(density.gradient(array(backend, u)).gradient)
    for place in range(3):
        move = step * np.eye(3)[place]
        ends = [host(density.log_joint(array(backend, u + sign * move))) for sign in (1, -1)]
        # Central differences in single precision: 1e-2 steps leave about 1e-3.
        np.testing.assert_allclose(gradient[..., place], (ends[0] - ends[1]) / (2 * step), atol=5e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["log_joint", "log_prior", "log_likelihood", "log_guide"])
def test_every_density_is_differentiable_from_outside(backend, name):
    density, u = linear(backend), np.random.default_rng(0).normal(size=(3, len(X), 2))
    matrix, offset, cov = posterior(W, B)
    parts = {
        "log_likelihood": (X - u @ W.T - B) @ W / SIGMA**2,
        "log_prior": -u,
        "log_guide": (X @ matrix.T + offset - u) @ np.linalg.inv(cov),
    }
    wanted = parts["log_likelihood"] + parts["log_prior"] if name == "log_joint" else parts[name]
    function = getattr(density, name)
    if backend == "pyro":
        import torch

        states = array(backend, u).requires_grad_()
        found = torch.autograd.grad(function(states).sum(), states)[0]
        with torch.no_grad():
            assert not function(states).requires_grad
        assert not function(states.detach()).requires_grad
    else:
        import jax

        found = jax.grad(lambda states: function(states).sum())(array(backend, u))
    np.testing.assert_allclose(host(found), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ["log_joint", "log_guide", "gradient", "constrain"])
def test_latents_of_another_shape_are_refused(backend, name):
    density, rows = linear(backend), len(X)
    function = getattr(density, name)
    for shape in ((rows, 2), (3, rows + 1, 2), (3, rows, 3), (3, 1, 2), (1, 3, rows, 2)):
        with pytest.raises(DataError, match=rf"\[draws, {rows}, 2\]") as error:
            function(array(backend, np.zeros(shape)))
        assert str(shape) in str(error.value)
    with pytest.raises(DataError, match="u is no array of numbers"):
        function([["a"]])


@pytest.mark.parametrize("backend", BACKENDS)
def test_latents_may_be_arrays_of_numpy(backend):
    density, u = linear(backend), np.random.default_rng(0).normal(size=(3, len(X), 2))
    expected = host(density.log_joint(array(backend, u)))
    np.testing.assert_array_equal(host(density.log_joint(u)), expected)
    np.testing.assert_array_equal(host(density.log_joint(u.tolist())), expected)
    np.testing.assert_array_equal(host(density.gradient(u).value), expected)
    values = {name: host(value) for name, value in density.constrain(u).items()}
    np.testing.assert_allclose(host(density.unconstrain(values)), u, rtol=1e-6)
    with pytest.raises(DataError, match="got latents w: give z"):
        density.unconstrain({"w": values["z"]})
    with pytest.raises(DataError, match="latent 'z' has shape"):
        density.unconstrain({"z": values["z"][0]})


@dataclass(frozen=True)
class Words(Program):
    """Two draws per row in a plate of their own."""

    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {"loc": nn.Parameter((1,), 0.5)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            with ppl.plate("words", 2, dim=-2):
                ppl.sample("w", ppl.dist.Normal(ppl.array(0.0), 1.0))
            ppl.sample("x", ppl.dist.Normal(ppl.array([0.0]), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x), ppl.plate("words", 2, dim=-2):
            ppl.sample("w", ppl.dist.Normal(net.loc(), 1.0))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_site_in_a_plate_of_its_own_is_refused(backend):
    made = bind(Words((1,)), backend=backend)
    with pytest.raises(ProgramError, match=r"'w'.*plate 'words'.*to_event"):
        Density(made, {"x": np.zeros((3, 1), np.float32)})


def test_a_density_of_numpyro_is_a_pure_function():
    import jax

    density = linear("numpyro")
    u = array("numpyro", np.zeros((2, len(X), 2)))
    np.testing.assert_allclose(jax.jit(density.log_joint)(u), density.log_joint(u), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(density.gradient)(u).gradient, density.gradient(u).gradient, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_has_no_density_is_refused(backend):
    with pytest.raises(ProgramError, match="site 'c' is discrete"):
        Density(bind(Positive((1,), "discrete"), backend=backend), {"x": np.zeros((2, 1), np.float32)})
    run = fit(program(), X, backend=backend, max_steps=1, batch_size=2, device="cpu")
    assert run.density(X).dim == 2 and run.density({"x": X[:1]}).count == 1
    run.bound.declared, run.bound.program = False, PlainProgram(len, len, "mine", backend)
    with pytest.raises(ProgramError, match="mine is two plain functions"):
        Density(run.bound, {"x": X})


@pytest.mark.parametrize("backend", BACKENDS)
def test_importance_weights_are_log_joint_minus_log_guide(backend):
    x = np.array([[0.7], [2.0], [0.1]], np.float32)
    made = bind(Positive((1,)), backend=backend)
    density = compiled(backend, Density(made, {"x": x}))
    drawn = backend_named(backend).draws(made, {"x": x}, 5, predictive=False)
    u = density.unconstrain(drawn.posterior)
    expected = host(density.log_joint(u)) - host(density.log_guide(u))
    np.testing.assert_allclose(drawn.log_weight, expected, rtol=1e-4, atol=1e-4)
    # Those that the IW bound averages: one run of guide and model at the same draws.
    pair = made.tracer(0).pair(made.put({"x": x}), 5, values=made.put(drawn.posterior))
    weights = Densities(pair.guide, pair.model).log_weights
    np.testing.assert_allclose(host(weights), expected, rtol=1e-4, atol=1e-4)
    # Those of which a check compares the parts.
    probe = backend_named(backend).probe(Positive((1,)), ("x",), len(x), 0)
    seen = probe.trace({"x": x}, values={name: value[0] for name, value in drawn.posterior.items()})
    log_p, log_q = (sum(site.log_prob for site in sites.values()) for sites in seen[:2][::-1])
    probe.close()
    np.testing.assert_allclose(log_p - log_q, expected[0], rtol=1e-4, atol=1e-4)


@dataclass(frozen=True)
class Weighted(Program):
    """z ~ N(0, 1), x ~ N(z, 1), whose log density a handler of the library halves."""

    backend: str = "pyro"

    def networks(self, nn):
        return {"loc": nn.Parameter((1,))}

    def model(self, ppl, net, x=None):
        if self.backend == "pyro":
            from pyro.poutine import scale
        else:
            from numpyro.handlers import scale
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(1))
            with scale(scale=0.5):
                ppl.sample("x", ppl.dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(net.loc() + 0 * x, 1.0).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_density_has_no_weights_of_handlers(backend):
    rows = np.array([[0.3], [-1.2]], np.float32)
    density = Density(bind(Weighted(backend=backend), backend, num_data=2), {"x": rows})
    z = np.array([[[0.1], [0.7]]])
    found = density.log_likelihood(array(backend, z))
    np.testing.assert_allclose(host(found), norm.logpdf(rows - z)[..., 0], rtol=1e-5)
