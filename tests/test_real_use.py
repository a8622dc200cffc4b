"""What a person gives means the same everywhere, or is refused in one line: covariates, classes, numbers."""

from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import torch

from ppl_vae import Program, check, data, evaluate, fit, load, open_run, posterior
from ppl_vae.api import resume
from ppl_vae.api.job import refuse_other_data
from ppl_vae.cli.page import contents
from ppl_vae.diagnostics.evidence import Scores, robust_mean
from ppl_vae.errors import DataError, PplVaeError, ProgramError, RunError, UsageError
from ppl_vae.options import Training
from ppl_vae.training import Loop

BACKENDS = ["pyro", "numpyro"]
REALS = np.random.default_rng(2).normal(size=(80, 3)).astype(np.float32)
SMALL = {"likelihood": "normal", "hidden": (8,), "z_dim": 2}


def counted(n=120):
    rng = np.random.default_rng(0)
    return {
        "x": rng.poisson(3, (n, 4)),
        "batch": np.arange(n) % 2,
        "size": rng.uniform(0.5, 2, n).astype(np.float32),
    }


@pytest.fixture(scope="module", params=BACKENDS)
def counts(request):
    program = load("counts", z_dim=2, hidden=(8,))
    return fit(program, data.of(counted()), backend=request.param, epochs=1, batch_size=32)


@pytest.mark.parametrize(
    ("covariates", "names"),
    [
        ({"batch": [0] * 6, "sizes": np.ones(6)}, ["sizes", "size"]),
        ({"batch": [0, 0, 0]}, ["batch", "3 rows", "6"]),
        ({"batch": [0] * 6, "size": np.ones(3)}, ["size", "3 rows"]),
        ({"batch": [7] * 6}, ["batch", "7", "0 to 1"]),
        ({"batch": [-1] * 6}, ["batch", "-1"]),
        ({"batch": [0.5] * 6}, ["batch", "whole"]),
        ({"batch": [0] * 6, "size": np.full(6, np.nan)}, ["size", "NaN"]),
        ({"batch": ["a"] * 6}, ["batch", "not numeric"]),
        ({"batch": np.zeros((6, 2), int)}, ["batch", "shape (2,)"]),
        ({"batch": [0] * 6, "x": np.zeros((6, 4), int)}, ["x is what is drawn"]),
        ([0] * 6, ["covariates", "dict"]),
    ],
)
def test_covariates_that_do_not_fit_are_refused_by_name(counts, covariates, names):
    latents = np.zeros((6, 2), np.float32)
    for verb in (
        lambda: counts.sample(6, covariates=covariates),
        lambda: counts.decode({"z": latents}, covariates=covariates),
    ):
        with pytest.raises(PplVaeError) as refused:
            verb()
        assert all(name in str(refused.value) for name in names), refused.value


def test_one_covariate_serves_all_rows_and_comes_back(counts):
    drawn = counts.sample(6, covariates={"batch": 1, "size": 2.0}, seed=3)
    written_out = counts.sample(6, covariates={"batch": [1.0] * 6, "size": np.full(6, 2.0)}, seed=3)
    framed = counts.sample(6, covariates=pd.DataFrame({"batch": [1] * 6, "size": 2.0}), seed=3)
    assert all(np.array_equal(drawn[name], framed[name]) for name in drawn)
    assert drawn["batch"].tolist() == [1] * 6 and drawn["size"].tolist() == [2.0] * 6
    assert drawn.keys() == written_out.keys()
    assert all(np.array_equal(drawn[name], written_out[name]) for name in drawn)


def test_covariates_have_the_types_of_training(counts):
    rows = {name: values[:6] for name, values in counted().items()}
    x, classes, size = rows["x"], rows["batch"], rows["size"]
    expected = counts.sample(6, covariates={"batch": classes, "size": size})
    right = counts.encode({"x": x, "batch": classes})["z"]
    for batch in (classes.astype(np.uint8), classes.tolist()):
        found = counts.sample(6, covariates={"batch": batch, "size": size.tolist()})
        np.testing.assert_array_equal(found["x_mean"], expected["x_mean"])
        z = counts.encode({"x": x.astype(np.float32), "batch": batch})["z"]
        np.testing.assert_array_equal(z, right)
        centres = counts.decode(z, covariates={"batch": batch})["x"]
        np.testing.assert_array_equal(centres, counts.decode(z, covariates={"batch": classes})["x"])
    with pytest.raises(DataError, match="size has 1 values that are NaN"):
        counts.sample(6, covariates={"batch": classes, "size": [1, 1, 1, 1, 1, np.nan]})


@pytest.mark.parametrize("verb", ["encode", "score", "reconstruct", "log_prob"])
def test_rows_of_a_class_that_was_not_trained_are_refused(counts, verb):
    rows = {name: values[:4] for name, values in counted().items()} | {"batch": np.full(4, 2)}
    with pytest.raises(DataError, match="batch is 2 in row 0: the run was trained on classes 0 to 1"):
        getattr(counts, verb)(rows)
    with pytest.raises(DataError, match="batch"):
        evaluate(counts, data=rows)


@pytest.mark.parametrize("backend", BACKENDS)
def test_texts_of_classes_have_the_codes_of_training(backend):
    table = pd.DataFrame(counted()["x"], columns=list("abcd"))
    table["site"] = ["north", "south"] * 60
    table.index = [f"r{i}" for i in range(120)]
    made = data.of(table, batch="site")
    run = fit(load("counts", z_dim=3, hidden=(8,)), made, backend=backend, epochs=1, batch_size=32)
    tree = posterior(run, table[:2], num_samples=1, predictive=False)["posterior"]
    assert tree["data"].values.tolist() == ["r0", "r1"]
    assert tree["effect_dim_0"].values.tolist() == ["north", "south"]
    assert tree["effect_dim_1"].values.tolist() == tree["dispersion_dim_0"].values.tolist() == list("abcd")
    south = table[table["site"] == "south"]  # alone, its code by the alphabet would be 0
    right = run.encode({"x": south[list("abcd")].to_numpy(), "batch": np.ones(len(south), int)})["z"]
    assert np.array_equal(run.encode(south)["z"], right)
    assert np.array_equal(run.encode({"x": south[list("abcd")], "batch": ["south"] * 60})["z"], right)
    assert np.array_equal(run.encode(south[["site", *"dcba"]])["z"], right)
    with pytest.raises(DataError, match="'east' is none of those trained on: 'north', 'south'"):
        run.encode(south.assign(site="east"))


WHOLE = np.random.default_rng(1).integers(0, 5, (60, 4))
KINDS = {
    "list": WHOLE.tolist(),
    "int8": WHOLE.astype(np.int8),
    "uint64": WHOLE.astype(np.uint64),
    "torch": torch.from_numpy(WHOLE),
    "DataFrame": pd.DataFrame(WHOLE),
    "nullable": pd.DataFrame(WHOLE).astype("Int64"),
    "sparse frame": pd.DataFrame(WHOLE).astype(pd.SparseDtype("int64", 0)),
    "sparse": scipy.sparse.csr_matrix(WHOLE),
    "sparse array": scipy.sparse.coo_array(WHOLE),
    "masked, nothing hidden": np.ma.MaskedArray(WHOLE),
    "series by field": {"x": pd.DataFrame(WHOLE, dtype="Int32")},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_counts_in_any_container(kind):
    made = data.of(KINDS[kind], valid=0, test=0)
    assert made.kind == "counts" and np.array_equal(made.raw("train")["x"], WHOLE)


IMAGES = np.random.default_rng(3).integers(0, 256, (40, 6, 5)).astype(np.uint8)
LAYOUTS = {
    "[N, H, W]": IMAGES,
    "[N, 1, H, W]": IMAGES[:, None],
    "[N, H, W, 1]": IMAGES[..., None],
    "[N, H, W, 3]": np.repeat(IMAGES[..., None], 3, -1),
    "16 bits": IMAGES.astype(np.uint16) * 257,
    "floats": IMAGES / 255,
    "nested lists": IMAGES.tolist(),
    "torch": torch.from_numpy(IMAGES),
    "bits": IMAGES > 127,
    "[N]": REALS[:, 0],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_what_fit_takes_means_the_same_to_every_verb(backend, layout):
    given = LAYOUTS[layout]
    run = fit(load("vae", **SMALL), given, backend=backend, epochs=1, batch_size=16)
    rows = data.of(given, valid=0, test=0).raw("train")["x"]  # as it was trained on
    right, score = run.encode(rows)["z"], run.score(rows, seed=1)
    assert np.array_equal(run.encode(given)["z"], right)
    assert np.array_equal(run.score(given, seed=1).elbo, score.elbo)
    assert np.array_equal(run.reconstruct(given)["x"], run.reconstruct(rows)["x"])
    assert np.array_equal(run.draws(given, 2).posterior["z"], run.draws(rows, 2).posterior["z"])
    few = run.score(rows[:8], seed=1).elbo.mean()
    assert evaluate(run, data=given[:8], seed=1)["elbo_nats"] == pytest.approx(few, rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_condition_that_is_missing_is_named(backend):
    @dataclass(frozen=True)
    class Shifted(Program):
        x_shape: tuple[int, ...] | None = None

        def networks(self, nn):
            return {"encoder": nn.NormalHead(3, (), 2), "decoder": nn.Linear(2, 3)}

        def model(self, ppl, net, shift, x=None):
            with ppl.minibatch(x, shift):
                z = ppl.sample("z", ppl.standard_normal(2))
                ppl.sample("x", ppl.dist.Normal(net.decoder(z) + shift, 1.0).to_event(1), obs=x)

        def guide(self, ppl, net, x):
            with ppl.minibatch(x):
                ppl.sample("z", ppl.dist.Normal(*net.encoder(x)).to_event(1))

    rows = data.of({"x": REALS, "shift": REALS})
    run = fit(Shifted(), rows, backend=backend, max_steps=1)
    for verb in (lambda: run.sample(2), lambda: run.decode({"z": np.zeros((2, 2))})):
        with pytest.raises(UsageError, match="given 'shift', which is missing: give it in covariates="):
            verb()
    assert run.sample(2, covariates={"shift": REALS[:1]})["x"].shape == (2, 3)


def test_rows_in_place_of_a_split_and_fields_that_are_not_by_row_are_refused(counts):
    with pytest.raises(UsageError, match="give rows as data="):
        evaluate(counts, REALS)
    with pytest.raises(DataError, match=r"x 80, axis 3: set aside .* ignore"):
        data.of({"x": REALS, "axis": np.arange(3)})
    assert list(data.of({"x": REALS, "axis": np.arange(3)}, ignore="axis").fields) == ["x"]


def test_sparse_files_are_read(tmp_path):
    scipy.sparse.save_npz(tmp_path / "counts.npz", scipy.sparse.csr_matrix(WHOLE))
    assert np.array_equal(data.load(tmp_path / "counts.npz", valid=0, test=0).raw("train")["x"], WHOLE)


def test_what_would_be_lost_is_refused_or_masked():
    hidden = np.ma.MaskedArray(WHOLE.astype(float), mask=WHOLE == 3)
    with pytest.raises(DataError, match="masked values"):
        data.of(hidden)
    rows = data.of(hidden, mask="nan", valid=0, test=0).raw("train")
    assert np.array_equal(rows["mask"], WHOLE != 3) and np.array_equal(
        rows["x"], np.where(WHOLE == 3, 0, WHOLE)
    )
    with pytest.raises(DataError, match="beyond 64 bits"):
        data.of(np.full((5, 2), 2**63, np.uint64))


@pytest.mark.parametrize("backend", BACKENDS)
def test_counts_beyond_32_bits_are_counts_or_refused(backend):
    given = counted() | {"x": np.full((120, 4), 2**32 + 3)}
    program = load("counts", z_dim=2, hidden=(8,))
    if backend == "numpyro":
        with pytest.raises(DataError, match="32 bits"):
            fit(program, given, backend=backend, max_steps=1, batch_size=32)
        return
    run = fit(program, given, backend=backend, max_steps=1, batch_size=32)
    assert run.data.raw("train")["x"].max() == 2**32 + 3


def test_a_program_without_a_mask_is_not_trained_on_what_stands_for_missing_numbers():
    x = np.where(WHOLE == 3, np.nan, WHOLE)
    with pytest.raises(UsageError, match="HVAE takes no mask"):
        check(load("hvae", likelihood="normal"), data.of(x, mask="nan"))
    with pytest.raises(UsageError, match="HVAE takes no mask"):
        fit(load("hvae", likelihood="normal"), data.of(x, mask="nan"), epochs=1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_weights_that_are_no_numbers_are_neither_chosen_nor_written(tmp_path, backend):
    made = data.of(REALS, valid=16, test=8)
    options = {"batch_size": 28, "backend": backend, "log_every": 1, "seed": 0, "out": tmp_path / "run"}
    fit(load("vae", **SMALL), made, epochs=2, **options)
    before = open_run(tmp_path / "run", data=made)
    with pytest.raises(RunError, match="lower lr="):
        resume(tmp_path / "run", data=made, epochs=9, lr=float("1e38"))
    after = open_run(tmp_path / "run", data=made)
    assert evaluate(after)["elbo_nats"] == evaluate(before)["elbo_nats"]
    assert all(np.isfinite(value).all() for value in after.bound.weights().values())
    lowered = resume(tmp_path / "run", data=made, epochs=3, lr=1e-4)
    assert lowered.steps > before.steps and lowered.config["training"]["lr"] == 1e-4


def test_a_run_whose_history_is_gone_does_not_go_on_as_if_it_had_none(tmp_path):
    made = data.of(REALS, valid=16, test=8)

    def lose(event, state):
        if event == "checkpoint":
            (tmp_path / "run" / "metrics.jsonl").unlink()
            raise LookupError

    options = {"epochs": 1, "batch_size": 28, "out": tmp_path / "run", "callbacks": [lose]}
    with pytest.raises(LookupError):  # a run that has a checkpoint stays
        fit(load("vae", **SMALL), made, **options)
    with pytest.raises(RunError, match=r"metrics\.jsonl is gone: restore it"):
        resume(tmp_path / "run", data=made, epochs=2)
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert resume(tmp_path / "run", data=made, epochs=2).history[0]["step"] > 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_diverged_run_has_no_bound(backend):
    run = fit(load("vae", **SMALL), data.of(REALS), epochs=1, batch_size=32, backend=backend)
    weights = {name: np.full_like(value, np.nan) for name, value in run.bound.weights().items()}
    run.bound.load_weights(weights)
    for verb in (lambda: evaluate(run), lambda: run.log_prob(REALS)):
        with pytest.raises(RunError, match="NaN in"):
            verb()


def test_a_rate_that_turns_negative_later_is_refused_before_training():
    with pytest.raises(UsageError, match="lr is -.* at step"):
        fit(load("vae", **SMALL), data.of(REALS), max_steps=50, batch_size=16, lr="linear:0.001:-0.001:40")


@dataclass(frozen=True)
class Masked(Program):
    """A standard normal of three numbers, some of which are missing."""

    by_handler: bool = False

    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x, mask):
            z = ppl.sample("z", ppl.standard_normal(1))
            normal = ppl.dist.Normal(0.0 * z + ppl.array(np.zeros(3, np.float32)), 1.0)
            if self.by_handler:
                with ppl.mask(mask[..., 0]):
                    ppl.sample("x", normal.to_event(1), obs=x)
            else:
                ppl.sample("x", (normal if mask is None else normal.mask(mask)).to_event(1), obs=x)

    def guide(self, ppl, net, x, mask=None):
        with ppl.minibatch(x, mask):
            ppl.sample("z", ppl.standard_normal(1))


@dataclass(frozen=True)
class Narrow(Program):
    """A decoder that ends in fewer numbers than the data has."""

    width: int = 1

    def networks(self, nn):
        return {"decoder": nn.MLP(1, (4,), (1, 6, self.width))}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(1))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 1.0).to_event(3), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.standard_normal(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [1, 4])
def test_a_decoder_that_does_not_end_in_the_shape_of_the_data_is_refused(backend, width):
    with pytest.raises(ProgramError, match=rf"site 'x'.*\(1, 6, {width}\) per row, the data \(1, 6, 5\)"):
        fit(Narrow(width), IMAGES / 255, backend=backend, max_steps=1, batch_size=16)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("by_handler", [False, True])
def test_bits_per_dimension_count_what_is_observed(backend, by_handler):
    mask = np.random.default_rng(4).random(REALS.shape) < 0.6
    mask = np.repeat(mask[:, :1], 3, 1) if by_handler else mask
    x = np.where(mask, REALS, 0).astype(np.float32)
    made = data.of({"x": x, "mask": mask}, valid=1, test=30)
    run = fit(Masked(by_handler), made, backend=backend, max_steps=1, batch_size=16, lr=0.0)
    rows = made.rows("test")
    nats = 0.5 * (rows["x"][rows["mask"]] ** 2 + np.log(2 * np.pi)).sum()
    assert evaluate(run)["bits_per_dim"] == pytest.approx(nats / rows["mask"].sum() / np.log(2), rel=1e-5)
    error = ((rows["x"] - run.reconstruct(rows)["x"])[rows["mask"]] ** 2).mean()
    assert evaluate(run)["mse"] == pytest.approx(error, rel=1e-5)
    assert -evaluate(run)["elbo_nats"] == pytest.approx(nats / len(rows["x"]), rel=1e-5)


def sited():
    table = pd.DataFrame(counted()["x"], columns=list("abcd"))
    table.insert(0, "barcode", [f"c{i}" for i in range(120)])
    table["site"] = ["north", "south"] * 60
    return table


@pytest.mark.parametrize("backend", BACKENDS)
def test_other_data_has_the_columns_codes_and_names_of_training(tmp_path, backend):
    table = sited()
    options = {"epochs": 1, "batch_size": 32, "backend": backend}
    run = fit(load("counts", z_dim=2, hidden=(8,)), data.of(table, batch="site"), **options)
    south = table[table["site"] == "south"]
    right = evaluate(run, data=south)["elbo_nats"]
    columns = ["site", "d", "barcode", "c", "b", "a"]
    whole = {"valid": 0, "test": 0}
    assert evaluate(run, split="train", data=data.of(south, batch="site", **whole))["elbo_nats"] == right
    turned = data.of(south[columns], batch="site", **whole)
    assert evaluate(run, split="train", data=turned)["elbo_nats"] == right
    south[columns].to_csv(tmp_path / "south.csv", index=False, sep=";")
    assert evaluate(run, data=tmp_path / "south.csv")["elbo_nats"] == right
    by_field = {"x": south[list("dcba")], "batch": pd.Series(["south"] * 60)}
    assert evaluate(run, data=by_field)["elbo_nats"] == right
    assert len(run.encode(table.iloc[:1])["z"]) == 1  # an only row is named by the column of training
    with pytest.raises(DataError, match="east"):
        evaluate(run, split="train", data=data.of(south.assign(site="east"), batch="site", **whole))


def test_what_is_said_of_other_data_goes_before_what_is_recorded(tmp_path):
    run = fit(
        load("counts", z_dim=2, hidden=(8,)), data.of(sited(), batch="site"), max_steps=1, batch_size=32
    )
    table = sited().rename(columns={"site": "place"})
    table[table["place"] == "south"][:1].to_csv(tmp_path / "one.csv", index=False)
    described = run.record.data
    one = data.load(tmp_path / "one.csv", batch="place", like=described, valid=0, test=0)
    assert one.raw("train")["batch"].tolist() == [1] and one.labels["train"].tolist() == ["c1"]
    of_frame = data.of(table[1:2], batch="place", like=described, valid=0, test=0)
    assert of_frame.raw("train")["batch"].tolist() == [1] and of_frame.labels["train"].tolist() == ["c1"]


def test_a_count_beyond_those_trained_on_is_no_class():
    @dataclass(frozen=True)
    class Visits(Masked):
        def model(self, ppl, net, x=None, visits=None):
            with ppl.minibatch(x, visits):
                z = ppl.sample("z", ppl.standard_normal(1))
                ppl.sample("x", ppl.dist.Normal(z, 1.0).to_event(1), obs=x)
                ppl.sample("visits", ppl.dist.Poisson(ppl.F.exp(z[..., 0])), obs=visits)

        def guide(self, ppl, net, x, visits=None):
            with ppl.minibatch(x, visits):
                ppl.sample("z", ppl.standard_normal(1))

    x = REALS[:, :1]
    parts = {"x_train": x, "visits_train": np.arange(80) % 4, "x_test": x[:2], "visits_test": [5, 9]}
    assert np.isfinite(evaluate(fit(Visits(), parts, max_steps=1))["elbo_nats"])


def test_the_mask_of_training_is_that_of_the_verbs():
    x = np.where(WHOLE == 3, np.nan, WHOLE)
    run = fit(Narrowless(), data.of({"x": x}, mask="nan"), max_steps=1)
    assert np.array_equal(run.score({"x": x}, seed=1).elbo, run.score(x, seed=1).elbo)
    complete = run.score(WHOLE, seed=1)
    assert np.array_equal(complete.elbo, run.score(WHOLE.astype(float), seed=1).elbo)
    assert run.score(x, seed=1).dims < complete.dims == 4


@dataclass(frozen=True)
class Narrowless(Masked):
    """Masked, of four numbers."""

    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x, mask):
            z = ppl.sample("z", ppl.standard_normal(1))
            normal = ppl.dist.Normal(0.0 * z + ppl.array(np.zeros(4, np.float32)), 1.0)
            ppl.sample("x", normal.mask(mask).to_event(1), obs=x)


def test_two_plain_functions_take_the_mask_too():
    def model(x):
        pass

    with pytest.raises(UsageError, match="takes no mask"):
        fit((model, model), data.of(np.where(WHOLE == 3, np.nan, WHOLE), mask="nan"), max_steps=1)


@pytest.mark.parametrize(
    "call",
    [
        lambda run: run.decode(np.zeros((6, 2)), covariates=[0] * 6),
        lambda run: run.decode({"z": 0.5}, covariates={"batch": 0}),
        lambda run: run.decode({"z": np.zeros((0, 2))}, covariates={"batch": []}),
        lambda run: run.sample(2, covariates={"batch": [[0], [1, 2]]}),
    ],
)
def test_latents_and_covariates_of_another_kind_are_refused_in_a_line(counts, call):
    with pytest.raises(PplVaeError):
        call(counts)


@pytest.mark.parametrize("mine", ["00ff" * 16, "ff00" * 16])
def test_processes_of_a_run_have_the_same_data(mine):
    other = int("0ff0" * 3, 16)

    def agree(number):
        return max(number, other if number > 0 else -other)

    refuse_other_data("0ff0" * 16, agree)
    with pytest.raises(DataError, match="different data"):
        refuse_other_data(mine, agree)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_only_update_to_infinity_is_an_error(backend):
    """The loss, computed before the update, is finite: the weights alone tell."""
    options = {"max_steps": 1, "batch_size": 32, "backend": backend, "optimizer": "adamw"}
    with pytest.raises(RunError, match="weights are no longer finite by step 1"):
        fit(load("vae", **SMALL), data.of(REALS), lr=1e30, weight_decay=1e30, **options)
    with pytest.raises(UsageError, match="lr is 1e\\+39 at step 0"):
        fit(load("vae", **SMALL), data.of(REALS), lr=1e39, **options)


NO_PLATEAU = SimpleNamespace(go_on=lambda states: None, validated=lambda bound: {})


def test_a_bound_that_is_not_finite_is_never_the_best():
    bounds = iter([np.nan, -np.inf, -3.0, np.nan, np.inf])
    engine = SimpleNamespace(scores=lambda: Scores(np.full(4, next(bounds)), {"z": np.zeros(4)}), select=list)
    loop = Loop(engine, [0], Training(epochs=5), NO_PLATEAU, lambda *told: None, lambda: False)
    for step in range(1, 6):
        loop.position.step = step
        loop._validate()
    assert (loop.position.best, loop.position.best_step) == (-3.0, 3)


def test_one_row_among_few_does_not_decide_alone_which_weights_are_best(caplog):
    """Median -2 and median deviation 1: row 4 counts as -12, so that the second bound is the better one."""
    first = np.array([-1.0, -2.0, -3.0, -1.0, -92.0, -3.0, -2.0, -1.0, -3.0])
    second = np.array([-1.1, -2.1, -3.1, -1.1, -2.1, -3.1, -2.1, -1.1, -3.1])
    third = np.array([9.0, 9.0, 9.0, 9.0, -200.0, 9.0, 9.0, 9.0, 9.0])  # without its outlier the best
    bounds, rows = iter([first, second, first, third]), []
    engine = SimpleNamespace(scores=lambda: Scores(next(bounds), {"z": np.zeros(9)}), select=list)
    told = lambda event, position, row: rows.append(row)  # noqa: E731
    loop = Loop(engine, [0], Training(epochs=4), NO_PLATEAU, told, lambda: False)
    with caplog.at_level("WARNING", logger="ppl_vae"):
        for step in range(1, 5):
            loop.position.step = step
            loop._validate()
    assert [row.get("elbo_robust_nats") for row in rows] == [-28 / 9, None, -28 / 9, 9.0]
    assert (loop.position.best, loop.position.best_step) == (9.0, 4)
    assert rows[0]["elbo_nats"] == first.mean() == -12
    (line,) = caplog.messages
    assert "validation row 4 has a bound of -92 nats, the 9 rows -12 +- 10 (standard error)" in line


@pytest.mark.parametrize("bound", [[-1.0, -92.0, -1.0, -2.0], np.random.default_rng(0).normal(size=20)])
def test_the_mean_of_rows_none_of_which_decides_alone_is_the_mean(bound):
    assert robust_mean(np.array(bound)) == (np.mean(bound), "")


def test_the_report_compares_counts_with_draws(counts):
    drawn = contents(counts).samples
    assert np.array_equal(drawn, np.round(drawn)) and drawn.shape[1:] == (4,)


@dataclass(frozen=True)
class Observes(Program):
    """A program without a field `likelihood`."""

    x_shape: tuple[int, ...] | None = None
    bits: bool = True

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (4,), 1), "decoder": nn.MLP(1, (4,), self.x_shape)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            out = net.decoder(ppl.sample("z", ppl.standard_normal(1)))
            given = ppl.dist.Bernoulli(logits=out) if self.bits else ppl.dist.Normal(out, 1.0)
            ppl.sample("x", given.to_event(len(self.x_shape)), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("bits", "rule"), [(True, "dynamic"), (False, "none")])
def test_grey_levels_become_bits_where_the_model_observes_bits(bits, rule, backend, caplog):
    with caplog.at_level("INFO", logger="ppl_vae"):
        run = fit(Observes(bits=bits), data.load("digits"), max_steps=1, backend=backend)
    assert run.record.data.binarize == rule
    assert any("chances of bits" in line for line in caplog.messages) == bits
