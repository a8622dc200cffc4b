"""Likelihoods that take something of all entries of x at once, such as their total."""

import importlib

import numpy as np
import pytest
import torch
from test_autoregressive import ALL, LIKE, RNG, WIDTH, bound_program, check
from toys import Autoregressive

from ppl_vae import bind, data, fit
from ppl_vae.errors import ProgramError


class AroundItsMean(Autoregressive):
    """A density of all entries at once, about their mean."""

    backends = ("pyro",)
    otherwise = None

    def model(self, ppl, net, x=None, mean=None):
        with ppl.minibatch(x, mean):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            if mean is None:
                mean = 0 * z[..., 0] + self.otherwise if x is None and self.otherwise else x.mean(-1)
            centre = mean[..., None].expand(-1, WIDTH)
            ppl.sample("x", ppl.dist.MultivariateNormal(centre, scale_tril=torch.eye(WIDTH)), obs=x)


class AroundSeven(AroundItsMean):
    otherwise = 7


GIVEN = (
    "given what the likelihood of 'x' takes of x itself, such as a total: to choose it, "
    "give it as a field of its own"
)


def test_what_a_likelihood_takes_of_all_entries_at_once_is_given_and_said(caplog):
    bound, verbs = bound_program(AroundItsMean, "pyro")
    mean = np.tile(ALL.mean(-1, keepdims=True), WIDTH)
    np.testing.assert_allclose(verbs.reconstruct(bound, {"x": ALL})["x"], mean)
    drawn = verbs.draws(bound, {"x": 100 * ALL}, 200)
    np.testing.assert_allclose(drawn.posterior_predictive["x"].mean(0), 100 * mean, atol=0.4)
    assert [r.getMessage() for r in caplog.records] == [f"reconstruct: {GIVEN}", f"predictive draws: {GIVEN}"]
    for verb in (verbs.sample, lambda b, n, like: verbs.decode(b, {"z": np.zeros((n, 3))}, like=like)):
        with pytest.raises(ProgramError, match="'NoneType' object has no attribute 'mean'"):
            verb(bound, 2, like=LIKE)
    assert verbs.sample(bind(AroundSeven(x_shape=(WIDTH,)), seed=3), 50, like=LIKE)["x"].mean() > 6
    assert f"sample: {GIVEN}" in caplog.text and f"decode: {GIVEN}" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("most", [None, 40])
def test_a_topic_model_of_numpyro_is_drawn_given_its_totals(most, caplog):
    numpyro = pytest.importorskip("numpyro")
    dist, F = numpyro.distributions, importlib.import_module("jax.numpy")

    def model(x):
        topics = numpyro.param("topics", F.ones((2, WIDTH)))
        with numpyro.plate("rows", len(x)):
            z = numpyro.sample("z", dist.Normal(0, F.ones(2)).to_event(1))
            counts = dist.Multinomial(x.sum(-1), logits=z @ topics, total_count_max=most)
            numpyro.sample("words", counts, obs=x)

    def guide(x):
        loc = numpyro.param("loc", F.zeros((WIDTH, 2)))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("z", dist.Normal(x @ loc, 1).to_event(1))

    x = RNG.integers(0, 9, (20, WIDTH))
    run = fit((model, guide), data.of(x, valid=0, test=0), max_steps=1, batch_size=10, backend="numpyro")
    np.testing.assert_allclose(run.reconstruct(x)["words"].sum(-1), x.sum(-1), rtol=1e-5)
    drawn = run.draws(x, num_samples=3)
    assert drawn.posterior["z"].shape == (3, 20, 2)
    if most is None:  # NumPyro cannot compile draws then
        assert not drawn.posterior_predictive and not drawn.prior
        assert "no predictive draws: the model fails" in caplog.text and "total_count_max" in caplog.text
    else:
        for words in (drawn.posterior_predictive["words"], drawn.prior_predictive["words"]):
            assert words.std(0).max() > 0
            np.testing.assert_array_equal(words.sum(-1), np.tile(x.sum(-1), (3, 1)))


def test_what_a_likelihood_of_all_entries_takes_of_them_may_be_a_field_of_its_own(caplog):
    bound, verbs = bound_program(AroundItsMean, "pyro")
    mean = ALL.mean(-1)
    made = verbs.reconstruct(bound, {"x": ALL, "mean": mean})["x"]
    np.testing.assert_allclose(made, np.tile(mean[:, None], WIDTH))
    drawn = verbs.sample(bound, 2, covariates={"mean": np.float32([-50, 50])}, like=LIKE)["x"]
    assert (np.sign(drawn) == [[-1] * WIDTH, [1] * WIDTH]).all()
    assert not caplog.records


def test_check_says_what_is_given_what_a_likelihood_takes_of_all_entries():
    report = check(AroundItsMean(), data.of(RNG.normal(size=(40, WIDTH)).astype(np.float32), name="reals"))
    assert [f.name for f in report.failed] == ["parameters"]  # networks without use
    assert "given what it takes of x, such as a total" in report["entries"].message
    assert all("is given what it takes without" in report[rule].message for rule in ("prior", "decoding"))
