"""A user's own loader of batches: training, going on, and evaluation, declared and plain."""

import math

import numpy as np
import pyro
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

from ppl_vae import evaluate, fit, load
from ppl_vae.api import resume
from ppl_vae.data.loader import Loader
from ppl_vae.errors import DataError, RunError, UsageError
from ppl_vae.program import PlainProgram

X = (np.random.default_rng(0).random((30, 1, 4, 4)) < 0.4).astype(np.float32)
SMALL = {"hidden": (8,), "z_dim": 2}


def loader(rows=X, size=8):
    return DataLoader(list(torch.from_numpy(rows)), batch_size=size)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_declared_program_is_evaluated_on_all_rows_of_a_loader_or_of_arrays(backend):
    run = fit(load("vae", **SMALL), loader(), epochs=1, backend=backend)
    whole, loaded = (
        evaluate(run, data=X, importance_samples=3),
        evaluate(run, data=loader(), importance_samples=3),
    )
    assert whole["n"] == loaded["n"] == 30
    np.testing.assert_array_equal(loaded["per_row"]["iw"], whole["per_row"]["iw"])
    np.testing.assert_array_equal(whole["per_row"]["elbo"], run.score(X).elbo)
    with pytest.raises(UsageError, match="trained on a loader: give what to evaluate on"):
        evaluate(run)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_run_on_a_loader_goes_on_bit_by_bit(tmp_path, backend):
    options = {"backend": backend, "log_every": 2}
    once = fit(load("vae", **SMALL), loader(), max_steps=7, out=tmp_path / "once", **options)
    fit(load("vae", **SMALL), loader(), max_steps=5, out=tmp_path / "twice", **options)
    twice = resume(tmp_path / "twice", data=loader(), max_steps=7)
    for name, value in once.bound.weights().items():
        np.testing.assert_array_equal(twice.bound.weights()[name], value)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_both_bounds_of_a_row_are_of_the_same_row_where_a_loader_shuffles(backend):
    library = pyro if backend == "pyro" else pytest.importorskip("numpyro")
    rows = torch.from_numpy(X[:, 0, 0, :3])
    shuffled = DataLoader(list(rows), batch_size=7, shuffle=True)
    run = fit(chain(library), shuffled, max_steps=2)
    result = evaluate(run, data=shuffled, importance_samples=2)["per_row"]
    np.testing.assert_allclose(result["iw"], result["elbo"], atol=1e-5)  # exact, both of them


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_rows_of_a_loader_are_taken_as_they_are_also_for_evaluation(backend):
    items = [{"x": row, "id": float("nan")} for row in torch.from_numpy(X[:, 0])]
    batches = DataLoader(items, batch_size=8)
    run = fit(load("vae", **SMALL), batches, epochs=1, backend=backend)
    assert run.program.x_shape == (4, 4)
    loaded, given = evaluate(run, data=batches), evaluate(run, data=X[:, 0])
    assert loaded["n"] == 30 and loaded["elbo_nats"] == given["elbo_nats"]
    assert evaluate(run, data=X[:, 0], rows=7)["n"] == evaluate(run, data=batches, rows=7)["n"] == 7


def chain(library):
    """A random walk of as many latents as the batch is wide; q = p, so that both bounds are exact."""
    dist = library.distributions

    def walk(x):
        z = x[:, 0] * 0
        for t in range(x.shape[1]):
            z = library.sample(f"z_{t}", dist.Normal(z, 1.0))

    def guide(x):
        with library.plate("rows", len(x)):
            walk(x)

    def model(x):
        with library.plate("rows", len(x)):
            walk(x)
            library.sample("x", dist.Normal(x * 0, 1.0).to_event(1), obs=x)

    return PlainProgram(model, guide, backend=library.__name__)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_plain_program_is_evaluated_on_batches_of_different_lengths(backend):
    library = pyro if backend == "pyro" else pytest.importorskip("numpyro")
    batches = [torch.from_numpy(X[:size, 0, 0, :width]) for size, width in ((8, 3), (5, 4), (1, 2))]
    run = fit(chain(library), loader(X[:, 0, 0]), max_steps=2)
    result = evaluate(run, data=batches_of(batches), importance_samples=20)
    exact = [-(0.5 * (x**2).sum(1) + 0.5 * x.shape[1] * math.log(2 * math.pi)) for x in batches]
    exact = torch.cat(exact).numpy()
    np.testing.assert_allclose(result["per_row"]["elbo"], exact, atol=1e-5)
    np.testing.assert_allclose(result["per_row"]["iw"], exact, atol=1e-5)
    dims = sum(x.numel() for x in batches)
    assert result["bits_per_dim"] == pytest.approx(-exact.sum() / dims / math.log(2), rel=1e-5)
    assert result["n"] == 14 and result["rate_nats_by_site"].keys() == {"z_0", "z_1", "z_2", "z_3"}
    with pytest.raises(DataError, match="no rows"):
        run.score(batches_of([]))


def batches_of(items):
    """A loader without a dataset: something with a length that yields batches."""

    class Batches:
        def __len__(self):
            return len(items)

        def __iter__(self):
            return iter(items)

    return Batches()


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_a_large_batch_of_a_loader_is_taken_whole(backend):
    library = pyro if backend == "pyro" else pytest.importorskip("numpyro")
    seen = []

    def model(x, table):
        seen.append((len(x), len(table)))
        with library.plate("rows", len(x)):
            z = library.sample("z", library.distributions.Normal(0.0, 1.0))
            library.sample("x", library.distributions.Normal(z + table.mean(), 1.0), obs=x)

    def guide(x, table):
        with library.plate("rows", len(x)):
            library.sample("z", library.distributions.Normal(x, 1.0))

    batches = DataLoader([0], batch_size=1, collate_fn=lambda _: (torch.zeros(300), torch.zeros(200)))
    fit(PlainProgram(model, guide, backend=backend), batches, max_steps=1)
    assert set(seen) == {(300, 200)}


class Stream(torch.utils.data.IterableDataset):
    """Rows one after the other, without a length."""

    def __iter__(self):
        return iter(torch.from_numpy(X))


class Sized(Stream):
    def __len__(self):
        return len(X)


ROWS = list(torch.from_numpy(X))
COUNTED = {  # loaders, and how many rows they go through
    "no data set": (lambda: batches_of(torch.from_numpy(X).split(8)), 30),
    "dicts": (lambda: batches_of([{"x": rows, "name": "a"} for rows in X.reshape(5, 6, 1, 4, 4)]), 30),
    "sampler": (lambda: DataLoader(ROWS, 8, sampler=RandomSampler(ROWS, num_samples=12)), 12),
    "batch sampler": (lambda: DataLoader(ROWS, batch_sampler=BatchSampler(range(20), 7, False)), 20),
    "own batch sampler": (lambda: DataLoader(ROWS, batch_sampler=[[0, 1, 2], [3, 4]]), 5),
    "whole batches": (lambda: DataLoader(torch.from_numpy(X).split(8), batch_size=None), 30),
    "drop last": (lambda: DataLoader(ROWS, 8, drop_last=True), 30),
    "stream": (lambda: DataLoader(Sized(), 8), 30),
}


@pytest.mark.parametrize("case", COUNTED)
def test_rows_of_a_loader_are_counted_whatever_it_tells(case):
    make, rows = COUNTED[case]
    run = fit(load("vae", **SMALL), make(), max_steps=1)
    assert run.bound.num_data == run.record.data.rows["train"] == rows


HALVES = torch.from_numpy(X[:16]).split(8)
REFUSED = {
    "no length": (lambda: DataLoader(Stream(), 8), "the loader has no length: .* a __len__"),
    "too few rows": (lambda: DataLoader(ROWS, 64, drop_last=True), "yields no batches: give it rows"),
    "nothing": (lambda: batches_of([None]), "the loader yields no batches"),
    "another shape": (
        lambda: batches_of([HALVES[0], HALVES[1][..., :2]]),
        r"batch 2 of the loader has rows of x \(1, 4, 2\), the first one has x \(1, 4, 4\)",
    ),
    "no x": (
        lambda: batches_of([{"y": HALVES[0]}]),
        "first batch of the loader holds no x or mask: yield dicts",
    ),
    "no x later": (
        lambda: batches_of([{"x": HALVES[0]}, {"y": HALVES[1]}]),
        "batch 2 of the loader has rows of no field",
    ),
    "no rows later": (lambda: batches_of([HALVES[0], HALVES[1][:0]]), "batch 2 of the loader has no rows"),
    "text": (lambda: batches_of([["a"], ["b"]]), "x is not numeric"),
    "not finite": (lambda: batches_of([HALVES[0] / 0]), "the first batch: x has .* values that are NaN"),
}


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("case", REFUSED)
def test_a_loader_that_cannot_be_trained_on_is_refused_in_one_line(backend, case):
    make, message = REFUSED[case]
    with pytest.raises(DataError, match=message) as refused:
        fit(load("vae", **SMALL), make(), epochs=1, backend=backend)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.int64, torch.uint8, torch.bool])
def test_numbers_of_a_loader_are_those_of_single_precision(backend, kind):
    runs = [
        fit(
            load("vae", **SMALL),
            batches_of(torch.from_numpy(X).to(one).split(8)),
            max_steps=3,
            backend=backend,
        )
        for one in (torch.float32, kind)
    ]
    for name, value in runs[0].bound.weights().items():
        np.testing.assert_array_equal(runs[1].bound.weights()[name], value)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_counts_and_classes_of_a_loader_stay_whole(backend):
    counts = np.random.default_rng(0).poisson(3.0, (30, 5))
    groups = (np.arange(30) % 2).astype(np.int32)
    batches = batches_of([{"x": counts[part], "batch": groups[part]} for part in (slice(15), slice(15, 30))])
    run = fit("counts", batches, max_steps=2, backend=backend)
    assert run.record.data.kind == "counts"
    rows = {"x": counts, "batch": groups}
    loaded = evaluate(run, data=batches, seed=1)["per_row"]["elbo"]
    np.testing.assert_array_equal(loaded, run.score(rows, seed=1).elbo)
    first = next(Loader(batches, ("x", "batch")).epoch(0))
    assert [first[name].dtype for name in ("x", "batch")] == [np.int64, np.int64]


def test_another_loader_does_not_go_on_with_a_run(tmp_path):
    fit(load("vae", **SMALL), loader(), max_steps=2, out=tmp_path / "run")
    with pytest.raises(RunError, match="the loader has 1 row, the run was trained on 30"):
        resume(tmp_path / "run", data=loader(X[:1]), max_steps=3)


GIVEN = {  # what a verb is given, of 30 rows of 4 numbers, after two functions were trained on a loader
    "an array": lambda x: x,
    "a tensor": torch.from_numpy,
    "lists of numbers": lambda x: x.tolist(),
    "a dict": lambda x: {"x": x},
    "a tuple": lambda x: (x,),
    "a list of batches": lambda x: [x[:20], x[20:]],
    "a list of tuples": lambda x: [(x[:20],), (x[20:],)],
    "a loader of one batch": lambda x: batches_of([x]),
    "a loader": lambda x: batches_of([torch.from_numpy(x[:20]), torch.from_numpy(x[20:])]),
}


@pytest.fixture(scope="module", params=["pyro", "numpyro"])
def plain_run(request):
    library = pyro if request.param == "pyro" else pytest.importorskip("numpyro")
    return fit(chain(library), batches_of([X[:15, 0, 0], X[15:, 0, 0]]), max_steps=2)


@pytest.mark.parametrize("form", GIVEN)
def test_after_a_loader_every_verb_of_two_functions_takes_rows_in_any_form(plain_run, form):
    x = X[:, 0, 0]
    given = GIVEN[form](x)
    exact = -(0.5 * (x**2).sum(1) + 0.5 * x.shape[1] * math.log(2 * math.pi))
    np.testing.assert_allclose(plain_run.score(given).elbo, exact, rtol=1e-5)
    np.testing.assert_allclose(plain_run.log_prob(given, 3), exact, rtol=1e-5)
    assert evaluate(plain_run, data=given)["n"] == 30
    assert plain_run.encode(given)["z_3"].shape == (30,)
    assert plain_run.reconstruct(given)["x"].shape == x.shape
    assert plain_run.draws(given, 2, predictive=False).posterior["z_0"].shape == (2, 30)


def test_after_a_loader_batches_that_are_no_rows_of_one_shape_are_refused_in_one_line(plain_run):
    x = X[:, 0, 0]
    with pytest.raises(DataError, match=r"batch 2 has rows of argument 000 \(3,\), unlike the first"):
        plain_run.encode([x, x[:, :3]])
    with pytest.raises(DataError, match="different numbers of them: argument 000 30, argument 001 4"):
        plain_run.encode((x, x[:4]))
    with pytest.raises(DataError, match="no batches"):
        plain_run.encode(batches_of([]))
