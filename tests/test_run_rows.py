"""The rows that a run's verbs take: fields by name, what may be left out, and what is refused."""

import numpy as np
import pytest

from ppl_vae import Run, bind, load, posterior
from ppl_vae.errors import DataError
from ppl_vae.program import PlainProgram

BATCH, SIZE = np.array([0, 1, 0]), np.ones(3, np.float32)
X = np.arange(15, dtype=np.float32).reshape(3, 5)


def run(bound):
    return Run(bound, None, {"program": {"name": "mine"}})


@pytest.fixture(scope="module")
def counts():
    return run(bind(load("counts", x_shape=(5,), num_batches=2, z_dim=2, hidden=(4,)), num_data=3))


VERBS = ("encode", "reconstruct", "score", "draws", "log_prob")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    ("rows", "line"),
    [
        (
            X,
            "the field 'batch' is missing: the guide needs it; "
            "give a dict of arrays by name, with x, batch, size",
        ),
        ({"batch": BATCH, "size": SIZE}, "the field 'x' is missing"),
        ({"x": X, "batch": BATCH[:2]}, "the fields have different numbers of rows: x 3, batch 2"),
        ({"x": X, "batch": BATCH, "size": np.float32(1)}, "size is a single number: give rows"),
        (np.float32(1), "x is a single number"),
    ],
)
def test_fields_that_are_missing_or_of_different_lengths_are_refused(counts, verb, rows, line):
    with pytest.raises(DataError) as refusal:
        getattr(counts, verb)(rows)
    assert line in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_field_with_a_default_may_be_left_out(counts):
    rows = {"x": X, "batch": BATCH}
    assert counts.encode(rows)["z"].shape == (3, 2)
    assert counts.reconstruct(rows)["x"].shape == (3, 5)
    assert counts.draws(rows, 4).posterior["z"].shape == (4, 3, 2)
    np.testing.assert_array_equal(counts.encode(rows)["z"], counts.encode(rows | {"size": SIZE})["z"])
    # A field that the program does not know is passed over.
    assert counts.encode(rows | {"y": BATCH})["z"].shape == (3, 2)


def test_a_plain_function_takes_its_fields_by_position():
    from ppl_vae.backends.pyro import PlainBound

    def model(x, y=None, size=None):
        pass

    plain = run(PlainBound(PlainProgram(model, model), ("x", "y", "size")))
    assert list(plain._rows(X)) == ["x"]
    assert list(plain._rows({"x": X, "y": BATCH})) == ["x", "y"]
    for rows, name in [({"y": BATCH}, "x"), ({"x": X, "size": SIZE}, "y")]:
        with pytest.raises(DataError, match=f"the field '{name}' is missing"):
            plain._rows(rows)


def test_predictions_are_left_out_on_request(counts):
    rows = {"x": X, "batch": BATCH}
    assert set(posterior(counts, rows, num_samples=2, predictive=False).children) == {
        "posterior",
        "log_likelihood",
        "observed_data",
        "sample_stats",
    }
    assert "prior_predictive" in posterior(counts, rows, num_samples=2).children
