"""The rows that a run's verbs take: fields by name, what may be left out, and what is refused."""

import numpy as np
import pytest
from bound_runs import run_of

from ppl_vae import bind, data, evaluate, fit, load, posterior
from ppl_vae.data.dataset import Rows
from ppl_vae.errors import DataError, UsageError
from ppl_vae.program import PlainProgram

BATCH, SIZE = np.array([0, 1, 0]), np.ones(3, np.float32)
X = np.arange(15, dtype=np.float32).reshape(3, 5)


@pytest.fixture(scope="module")
def counts():
    bound = bind(load("counts", x_shape=(5,), num_batches=2, z_dim=2, hidden=(4,)), num_data=3)
    return run_of(bound, data.of({"x": X, "batch": BATCH, "size": SIZE}))


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

    bound = PlainBound(PlainProgram(model, model), ("x", "y", "size"))
    plain = run_of(bound, data.of({"x": X, "y": BATCH, "size": SIZE}))
    assert list(plain._rows(X)) == ["x"]
    assert list(plain._rows({"x": X, "y": BATCH})) == ["x", "y"]
    for rows, name in [({"y": BATCH}, "x"), ({"x": X, "size": SIZE}, "y")]:
        with pytest.raises(DataError, match=f"the field '{name}' is missing"):
            plain._rows(rows)


@pytest.fixture(scope="module")
def named():
    """Counts of a table with names of rows, columns and classes."""
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.arange(100).reshape(20, 5) % 7, [f"s{i}" for i in range(20)], list("abcde"))
    frame["site"] = ["north", "south"] * 10
    made = data.of(frame, batch="site")
    return frame, run_of(bind(load("counts", z_dim=2, hidden=(4,)).adapted_to(made)), made, made)


def test_rows_of_a_split_keep_their_names(named):
    frame, run = named
    every, parts = run.data.rows("all"), [run.data.rows(split) for split in ("train", "valid", "test")]
    for name in every:
        np.testing.assert_array_equal(every[name], np.concatenate([part[name] for part in parts]))
    np.testing.assert_array_equal(every["x"], frame.loc[every.names, list("abcde")])
    assert every.names.tolist() == [name for part in parts for name in part.names] != list(frame.index)
    assert run.data.num_rows("all") == evaluate(run, "all")["n"] == 20
    found = posterior(run, parts[2], num_samples=1, predictive=False)
    assert found["posterior"].coords["data"].values.tolist() == parts[2].names.tolist()


def test_what_is_refused_of_a_table_is_called_by_its_names(named):
    frame, run = named
    bad = run.data.rows("test")
    bad["x"][1, 3] = -1
    fractions = Rows(bad | {"x": bad["x"] + 0.5}, bad.names, bad.columns)
    with pytest.raises(
        DataError, match=rf"row 0 of 'x', row '{bad.names[0]}', column 'a', is outside .*\.5\)"
    ):
        run.score(fractions)
    with pytest.raises(
        DataError, match=rf"values in row 1, row '{bad.names[1]}', column 'd', that are no counts"
    ):
        run.score(bad)
    with pytest.raises(DataError, match=r"the field 'batch' \(the column 'site'\) is missing"):
        run.encode(frame.drop(columns="site"))
    with pytest.raises(UsageError, match="takes no 'place', it takes site, size"):
        run.sample(1, covariates={"place": "north"})
    with pytest.raises(
        UsageError, match="no split 'tst': it has train, valid, test, and all for all of them"
    ):
        run.data.rows("tst")


def test_predictions_are_left_out_on_request(counts):
    rows = {"x": X, "batch": BATCH}
    assert set(posterior(counts, rows, num_samples=2, predictive=False).children) == {
        "posterior",
        "log_likelihood",
        "observed_data",
        "sample_stats",
    }
    assert "prior_predictive" in posterior(counts, rows, num_samples=2).children


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_columns_of_a_table_are_taken_by_name(backend):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
    trained = fit(load("linear_gaussian"), table, max_steps=2, batch_size=8, backend=backend)
    held = table[:20] + 1
    expected = evaluate(trained, data=held)
    assert expected["n"] == 20
    assert evaluate(trained, data=held[["c", "a", "b"]])["elbo_nats"] == expected["elbo_nats"]
    np.testing.assert_array_equal(trained.encode(held[["b", "c", "a"]])["z"], trained.encode(held)["z"])
    for renamed in (held.rename(columns={"a": "other"}), held.assign(d=1.0), held[["a", "b"]]):
        for call in (lambda x=renamed: evaluate(trained, data=x), lambda x=renamed: trained.encode(x)):
            with pytest.raises(DataError, match="the run was trained on a, b, c"):
                call()


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_within_unscaled_a_row_counts_once(backend):
    trained = fit(load("linear_gaussian"), np.zeros((60, 3), "f"), max_steps=1, batch_size=8, backend=backend)
    x = np.ones((4, 3), "f")

    def density():
        if backend == "pyro":
            import pyro
            import torch

            latent = {"z": torch.zeros(4, 2)}
            model = pyro.poutine.condition(trained.bound.model, latent)
            return float(pyro.poutine.trace(model).get_trace(torch.from_numpy(x)).log_prob_sum().detach())
        from numpyro.infer.util import log_density

        return float(
            log_density(trained.bound.model, (x,), {}, trained.bound.params | {"z": np.zeros((4, 2), "f")})[0]
        )

    with trained.bound.unscaled():
        once = density()
    assert density() == pytest.approx(once * 48 / 4, rel=1e-5)  # 48 of the 60 rows are for training


def images(seed, n=40, high=256):
    """Bytes, none of which need to reach the highest level: a dark image is no other data."""
    return np.random.default_rng(seed).integers(0, high, (n, 1, 4, 4)).astype(np.uint8)


@pytest.fixture(scope="module", params=["pyro", "numpyro"])
def of_bytes(request):
    return fit(
        load("vae", z_dim=2, hidden=(4,), likelihood="normal"),
        data.of(images(0)),
        max_steps=2,
        batch_size=8,
        backend=request.param,
    )


@pytest.mark.parametrize("high", [256, 17, 2])
@pytest.mark.parametrize("kind", [np.uint8, np.int64, list])
def test_bytes_have_the_scale_of_training_in_every_verb(of_bytes, high, kind):
    given = images(1, 6, high)
    scaled = given.astype("f") / 255
    given = given.tolist() if kind is list else given.astype(kind)
    for verb in (of_bytes.encode, of_bytes.reconstruct):
        for name, value in verb(scaled).items():
            np.testing.assert_array_equal(verb(given)[name], value)
    expected = of_bytes.score(scaled, 3)
    np.testing.assert_array_equal(of_bytes.score(given, 3).iw, expected.iw)
    np.testing.assert_array_equal(of_bytes.log_prob(given, 3), expected.iw)
    np.testing.assert_array_equal(evaluate(of_bytes, data=given, importance_samples=3)["per_row"]["iw"],
                                  expected.iw)  # fmt: skip
    drawn = posterior(of_bytes, given, num_samples=2)
    np.testing.assert_array_equal(drawn["observed_data"]["x"], scaled)


def test_bytes_beyond_the_levels_of_training_are_refused():
    few = fit(
        load("vae", z_dim=2, hidden=(4,)), data.of(images(0) // 64, levels=4), max_steps=1, batch_size=8
    )
    line = r"x lies in \[0, 4\] and is no whole number in \[0, 3\]"
    for call in (few.encode, few.score, lambda x: evaluate(few, data=x)):
        with pytest.raises(DataError, match=line):
            call(np.arange(5).repeat(16).reshape(5, 1, 4, 4))
    bits = images(0, high=2)
    np.testing.assert_array_equal(few.encode(bits == 1)["z"], few.encode(bits.astype("f"))["z"])


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_tensors_tables_and_lists_are_rows(backend):
    torch, pandas = pytest.importorskip("torch"), pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("f")
    trained = fit(load("linear_gaussian"), x, max_steps=2, batch_size=8, backend=backend)
    expected = trained.encode(x)["z"]
    forms = [x.tolist(), x.astype(np.float64), torch.from_numpy(x).requires_grad_(), pandas.DataFrame(x)]
    if backend == "numpyro":
        import jax.numpy as jnp

        forms.append(jnp.asarray(x))
    for given in forms:
        np.testing.assert_array_equal(trained.encode(given)["z"], expected)
        np.testing.assert_array_equal(trained.encode({"x": given})["z"], expected)
        assert fit(load("linear_gaussian"), given, max_steps=1, batch_size=8, backend=backend).steps == 1
