"""Parameters that a distribution cannot have are refused by site, though a bound of them may be finite."""

import importlib
import re

import numpy as np
import pytest
from on_backend import BACKENDS, side

from ppl_vae import ELBO, check, evaluate, fit
from ppl_vae.backends.common.constraints import outside, said
from ppl_vae.backends.common.site import Trace
from ppl_vae.errors import ProgramError, RunError

both = pytest.mark.parametrize("backend", BACKENDS)
ROWS = np.abs(np.random.default_rng(0).normal(size=(12, 2))).astype("f") + 0.1
# Name of a distribution, its parameters, and what is said of them.
CASES = [
    (
        "Normal",
        {"loc": [0.0, 0.0], "scale": [1.0, -0.5]},
        "scale of its Normal is -0.5, it must be at least 0",
    ),
    ("Normal", {"loc": [0.0, np.nan], "scale": [1.0, 1.0]}, "loc of its Normal is nan, it must be a number"),
    ("Normal", {"loc": [0.0, np.inf], "scale": [1.0, 1.0]}, ""),
    ("LogNormal", {"loc": 0.0, "scale": -2.0}, "scale of its .*Normal is -2"),
    ("Bernoulli", {"probs": [0.5, 1.25]}, "probs of its Bernoulli.* is 1.25, it must be between 0 and 1"),
    ("Bernoulli", {"probs": [0.0, 1.0]}, ""),
    ("Categorical", {"probs": [0.5, 0.6, -0.1]}, "is -0.1, it must be probabilities"),
    ("Categorical", {"probs": [0.2, 0.3, 0.5001]}, ""),
    ("Categorical", {"logits": [-np.inf, 0.0, 1.0]}, ""),
    ("Gamma", {"concentration": -1.0, "rate": 1.0}, "concentration of its Gamma is -1"),
    ("Beta", {"concentration1": 1.0, "concentration0": -3.0}, "of its .* is -3"),
    ("Poisson", {"rate": [0.0, 1.0]}, ""),
]


@both
@pytest.mark.parametrize("name, parameters, words", CASES)
def test_the_first_value_outside_is_named(backend, name, parameters, words):
    one = next(side(backend, "float32"))
    site = importlib.import_module(f"ppl_vae.backends.{backend}.sites").Site
    values = {key: one.array(np.asarray(value, "f")) for key, value in parameters.items()}
    with importlib.import_module(backend).validation_enabled(False):  # as a compiled function is
        fn = getattr(one.dist, name)(**values)
    kinds = {
        "bare": fn,
        "to_event": fn.to_event(len(fn.batch_shape)),
        "expanded": fn.expand((3, *fn.batch_shape)),
    }
    for kind, made in kinds.items():
        found = outside(one.F, guide=Trace(z=site("z", made, one.array(np.float32(0.5)), False, ())))
        found = {key: (np.asarray(bad), np.asarray(value)) for key, (bad, value) in found.items()}
        assert re.search(words, said(found)) if words else said(found) == "", kind
    assert not words or "z' of the guide" in said(found)


def pair(backend, start=1.0, of_row=False, prior=1.0):
    """Return two functions whose guide has a scale without a constraint."""
    library = importlib.import_module(backend)
    dist, array = library.distributions, next(side(backend, "float32")).array

    def model(x):
        with library.plate("data", len(x)):
            z = library.sample("z", dist.Normal(0 * x, prior).to_event(1))
            library.sample("x", dist.Normal(z, 1.0).to_event(1), obs=x)

    def guide(x):
        scale = library.param("s", array(np.full(2, start, "f")))
        with library.plate("data", len(x)):
            library.sample("z", dist.Normal(0 * x, scale * x if of_row else scale + 0 * x).to_event(1))

    return model, guide


@both
def test_a_scale_below_zero_is_refused_before_training_whatever_the_objective(backend):
    for objective in (ELBO(), "TraceMeanField_ELBO"):
        with pytest.raises(ProgramError, match="scale") as error:
            fit(pair(backend, -0.5), ROWS, objective, max_steps=2, batch_size=6)
        assert "'z'" in str(error.value)


@both
def test_a_scale_that_falls_below_zero_in_training_is_refused(backend):
    with pytest.raises(
        RunError, match=r"site 'z' of the guide: scale of its Normal is -0\.\d+, .* by step 1"
    ):
        fit(pair(backend, 0.5, prior=0.01), ROWS, max_steps=1, batch_size=10, lr=0.8)


@both
def test_rows_for_which_a_scale_is_below_zero_are_refused_in_every_bound(backend):
    run = fit(pair(backend, of_row=True), {"x_train": ROWS, "x_test": -ROWS}, max_steps=1, batch_size=10)
    for verb in (lambda: evaluate(run), lambda: run.score(-ROWS), lambda: run.log_prob(-ROWS, 2)):
        with pytest.raises(ProgramError, match="site 'z' of the guide: scale of its Normal is -"):
            verb()
    assert np.isfinite(run.score(ROWS).elbo).all()


@both
def test_check_names_a_scale_below_zero(backend):
    report = check(pair(backend, -0.5), ROWS, backend)
    failed = {finding.name: finding.message for finding in report.findings if finding.status == "failed"}
    assert "scale of its Normal is -0.5" in failed["finite"]
