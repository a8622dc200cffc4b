"""A distribution declared once is a full distribution of Pyro's and of NumPyro's."""

from dataclasses import dataclass

import numpy as np
import pytest
from on_backend import BACKENDS, side
from scipy import stats

from ppl_vae.distributions import Distribution, closed_kl


@dataclass(frozen=True, eq=False)
class Rayleigh(Distribution):
    """A user's own: the length of a normal vector in the plane."""

    scale: object
    power: int = 2

    static = ("power",)
    arg_constraints = {"scale": "positive"}
    support = "positive"
    reparametrised = True

    @property
    def doubled(self):
        return 2 * self.scale

    def log_prob(self, F, value):
        return F.log(value) - 2 * F.log(self.scale) - (value / self.scale) ** self.power / 2

    def draw(self, F, noise, shape):
        return self.scale * F.sqrt(-2 * F.log(F.uniform(noise, shape, self.scale)))

    def mode_times(self, F, factor):
        return F.exp(F.log(self.scale)) * factor


@dataclass(frozen=True, eq=False)
class Still(Rayleigh):
    """The same, whose draws are constants."""

    reparametrised = False


@closed_kl(Rayleigh, Rayleigh)
def _kl(F, q, p):
    ratio = F.square(q.scale / p.scale)
    return ratio - 1 - F.log(ratio)


@pytest.fixture(params=BACKENDS)
def on(request):
    yield from side(request.param)


SCALE = np.array([0.5, 2.0, 3.0])


def rayleigh(on, scale=SCALE, **options):
    return on.dist.adapted(Rayleigh)(on.array(scale), **options)


def test_density_draws_and_members_are_those_declared(on):
    made = rayleigh(on)
    assert type(made).__name__ == "Rayleigh" and type(made) is on.dist.adapted(Rayleigh)
    x = np.array([0.3, 1.0, 4.0])
    np.testing.assert_allclose(on.host(made.log_prob(on.array(x))), stats.rayleigh(scale=SCALE).logpdf(x))
    drawn = on.draws(made, 20_000)
    assert drawn.shape == (20_000, 3) and stats.kstest(drawn[:, 1], stats.rayleigh(scale=2).cdf).pvalue > 1e-4
    np.testing.assert_allclose(on.host(made.doubled), 2 * SCALE)
    np.testing.assert_allclose(on.host(made.mode_times(3.0)), 3 * SCALE)
    np.testing.assert_allclose(on.host(on.kl(made, made)), 0, atol=1e-12)
    with pytest.raises(NotImplementedError):
        _ = made.mean


def test_it_expands_and_takes_events(on):
    made = rayleigh(on).expand((5, 3)).to_event(1)
    assert (tuple(made.batch_shape), tuple(made.event_shape)) == ((5,), (3,))
    x = np.full((5, 3), 0.7)
    expected = stats.rayleigh(scale=SCALE).logpdf(x).sum(-1)
    np.testing.assert_allclose(on.host(made.log_prob(on.array(x))), expected)
    assert on.draws(made, 2).shape == (2, 5, 3)


def test_gradients_pass_through_reparametrised_draws_alone(on):
    made = on.dist.adapted(Rayleigh)
    (found,) = on.gradients(lambda scale: on.reparametrised_draw(made(scale)).sum(), SCALE)
    assert (found > 0).all()
    still = on.dist.adapted(Still)
    (found,) = on.gradients(lambda scale: (scale * on.sample(still(scale))).sum(), SCALE)
    np.testing.assert_allclose(found, on.host(on.sample(still(on.array(SCALE)))))
    assert made(on.array(SCALE)).has_rsample and not still(on.array(SCALE)).has_rsample
    with pytest.raises(NotImplementedError):
        on.reparametrised_draw(still(on.array(SCALE)))


def test_parameters_and_values_are_checked_where_validation_is_on(on):
    with pytest.raises(ValueError, match="scale"):
        rayleigh(on, -SCALE, validate_args=True)
    rayleigh(on, -SCALE, validate_args=False)
    assert rayleigh(on, validate_args=True).expand((2, 3))._validate_args is True
    grey = on.dist.DiscretizedLogistic(0.5, on.array(0.1))
    assert grey.support.is_discrete and not rayleigh(on).support.is_discrete
    inside = grey.support.check(on.array(np.array([-0.1, 0.0, 0.2, 0.5, 1.0, 1.1])))
    np.testing.assert_array_equal(on.host(inside), [False, True, True, False, True, False])


@pytest.mark.parametrize("on", ["numpyro"], indirect=True)
def test_jax_maps_scans_and_compiles_it(on):
    import jax

    x, expected = np.array([0.3, 1.0, 4.0]), stats.rayleigh(scale=SCALE).logpdf([0.3, 1.0, 4.0])
    made = jax.jit(on.dist.adapted(Rayleigh))(on.array(SCALE))
    mapped = jax.vmap(lambda one, value: one.log_prob(value))(made, on.array(x))
    np.testing.assert_allclose(mapped, expected)
    rows = on.array(x[:, None])
    _, scanned = jax.lax.scan(lambda carry, value: (carry, carry.log_prob(value)), made, rows)
    np.testing.assert_allclose(np.diagonal(scanned), expected)


def test_a_guide_and_a_model_use_it(on):
    """Stock ELBOs take it as any distribution."""
    if on.name == "pyro":
        import pyro
        import torch

        def program(scale):
            return lambda: pyro.sample("z", rayleigh(on, scale).to_event(1))

        with pyro.get_param_store().scope():
            torch.manual_seed(0)
            loss = pyro.infer.TraceMeanField_ELBO().loss(program(SCALE), program(SCALE * 2))
    else:
        import jax
        import numpyro

        def program(scale):
            return lambda: numpyro.sample("z", rayleigh(on, scale).to_event(1))

        elbo = numpyro.infer.TraceMeanField_ELBO()
        loss = elbo.loss(jax.random.key(0), {}, program(SCALE), program(SCALE * 2))
    assert float(loss) == pytest.approx(3 * (4 - 1 - np.log(4)), rel=1e-6)
