"""Discrete latents that the model alone has are summed out, as the stock TraceEnum_ELBO does."""

import importlib
from dataclasses import dataclass

import numpy as np
import pytest

from ppl_vae import ELBO, IWAE, Program, bind, check, data, evaluate, fit, posterior
from ppl_vae.errors import ProgramError

both = pytest.mark.parametrize("backend", ["pyro", "numpyro"])
LOC = [[0.0, 1.0], [3.0, -1.0], [-2.0, 0.5]]
X = np.random.default_rng(0).normal(size=(24, 2)).astype("f")


@dataclass(frozen=True)
class Mixture(Program):
    """Classes, as many as `kinds`, and a latent of each row; `arrows` says what depends on the classes."""

    x_shape: tuple | None = None
    arrows: str = "z x"
    kinds: int = 1

    def networks(self, nn):
        return {"loc": nn.Parameter((3, 2), LOC), "e": nn.MLP(2, (4,), 4)}

    def model(self, ppl, net, x=None):
        hidden = {"infer": {"enumerate": "parallel"}}
        with ppl.minibatch(x):
            shift = 0.0
            for number in range(self.kinds):
                k = ppl.sample(f"k{number}", ppl.dist.Categorical(ppl.array([0.5, 0.3, 0.2])), **hidden)
                shift = shift + (1 + number) * net.loc()[k]
            of_z, of_x = (shift if name in self.arrows else 0 * shift[..., :1] for name in "zx")
            prior = (
                ppl.dist.Normal(of_z, ppl.array([1.0, 2.0]))
                if "z" in self.arrows
                else ppl.dist.Normal(ppl.array([0.0, 0.0]), 1.0)
            )
            z = ppl.sample("z", prior.to_event(1))
            loc = of_x + z if "x" in self.arrows else z
            ppl.sample("x", ppl.dist.Normal(loc, 0.5).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            h = net.e(x)
            ppl.sample("z", ppl.dist.Normal(h[..., :2], 1 + abs(h[..., 2:])).to_event(1))


def stock(bound, backend, seed):
    """Return the stock bound, in nats per row."""
    if backend == "pyro":
        import pyro
        import torch

        torch.manual_seed(seed)
        elbo = pyro.infer.TraceEnum_ELBO(max_plate_nesting=1)
        return -elbo.loss(bound.model, bound.guide, x=torch.from_numpy(X)) / len(X)
    import jax
    from numpyro.infer import TraceEnum_ELBO

    values = dict(bound.params) | dict(bound.state)
    loss = TraceEnum_ELBO(max_plate_nesting=1).loss(
        jax.random.key(seed), values, bound.model, bound.guide, x=X
    )
    return -float(loss) / len(X)


def ours(bound, backend, seed, **options):
    objectives = importlib.import_module(f"ppl_vae.backends.{backend}.objectives")
    loss = objectives.Objective(bound, ELBO(analytic_kl=False, **options), len(X))
    if backend == "pyro":
        import torch

        torch.manual_seed(seed)
        return -float(loss({"x": torch.from_numpy(X)}, {"beta": torch.ones(())}).value.detach())
    import jax

    params = bound.trainable()
    return -float(loss(params, bound.state, jax.random.key(seed), {"x": X}, {"beta": 1.0}).value)


@both
@pytest.mark.parametrize("program", [Mixture(), Mixture(arrows="z", kinds=2)])
def test_the_bound_is_that_of_the_stock_elbo(backend, program):
    if (backend, program.kinds) == ("numpyro", 2):
        pytest.skip("NumPyro's own does not add up two enumerated sites here")
    bound = bind(program.adapted_to(data.of(X)), backend, num_data=len(X), seed=3)
    assert ours(bound, backend, 5) == pytest.approx(stock(bound, backend, 5), rel=1e-5)


@both
def test_every_verb_sums_the_class_out(backend):
    found = data.of({"train": {"x": X}, "test": {"x": X}}, valid=0)
    run = fit(Mixture(arrows="z"), found, backend=backend, max_steps=2, batch_size=12)
    assert evaluate(run)["rate_nats_by_site"].keys() == {"z"}
    tree = posterior(run, X, num_samples=2, predictive=False)
    assert set(tree["posterior"].data_vars) == {"z"} and run.encode(X).keys() == {"z"}
    assert run.reconstruct(X)["x"].shape == X.shape


@pytest.mark.slow
@both
def test_a_program_whose_class_is_summed_out_passes_the_check_and_trains_under_other_objectives(backend):
    found = data.of({"train": {"x": X}, "test": {"x": X}}, valid=0)
    assert check(Mixture(arrows="z"), found, backend).ok
    for objective in ("TraceEnum_ELBO(max_plate_nesting=1)", IWAE(3)):
        run = fit(Mixture(arrows="z"), found, objective, backend=backend, max_steps=2, batch_size=12)
        assert np.isfinite(evaluate(run, importance_samples=20)["iw_nats"])


@both
def test_the_importance_weighted_bound_nears_the_evidence(backend):
    """z | k and x | z are normal: the evidence is a mixture of three normals."""
    found = data.of({"train": {"x": X}, "test": {"x": X}}, valid=0)
    run = fit(Mixture(arrows="z"), found, backend=backend, max_steps=1, batch_size=12)
    loc = next(v for n, v in run.bound.weights().items() if n.startswith("loc"))
    variance = np.array([1.0, 4.0]) + 0.25
    log_p = -0.5 * ((X[:, None] - loc) ** 2 / variance + np.log(2 * np.pi * variance)).sum(-1)
    exact = np.logaddexp.reduce(log_p + np.log([0.5, 0.3, 0.2]), 1)
    assert run.log_prob(X, 4000).mean() == pytest.approx(exact.mean(), abs=0.05)


@dataclass(frozen=True)
class Guided(Mixture):
    """The class is drawn by the guide too."""

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            h = net.e(x)
            ppl.sample("k0", ppl.dist.Categorical(ppl.F.zeros((len(x), 3), x) + 1 / 3))
            ppl.sample("z", ppl.dist.Normal(h[..., :2], 1 + abs(h[..., 2:])).to_event(1))


@pytest.mark.parametrize("backend", ["pyro", pytest.param("numpyro", marks=pytest.mark.slow)])
def test_a_class_that_the_guide_draws_decodes_as_it_was_encoded(backend):
    run = fit(Guided(), X, "TraceGraph_ELBO", backend=backend, max_steps=1, batch_size=12)
    latents = run.encode(X)
    assert latents["k0"].dtype.kind == "i"
    np.testing.assert_allclose(run.decode(latents)["x"], run.reconstruct(X)["x"], rtol=1e-5)
    np.testing.assert_array_equal(
        run.decode(latents | {"k0": latents["k0"].astype("f")})["x"], run.decode(latents)["x"]
    )


@both
def test_what_depends_on_the_class_beside_a_latent_is_refused(backend):
    run = fit(Mixture(), X, backend=backend, max_steps=1, batch_size=12)
    for verb in (run.reconstruct, run.draws):
        with pytest.raises(ProgramError, match="'k0' is summed out"):
            verb(X)
    with pytest.raises(ProgramError, match="'k0' is summed out, and x, z depend on it"):
        run.decode({"z": X})
    assert run.sample(2)["x"].shape == (2, 2)
