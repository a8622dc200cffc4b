"""What a report says of a run: the bound that was printed, and how far it is from independent columns."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
from scipy import stats

from ppl_vae import Program, data, evaluate, fit, load, open_run
from ppl_vae.backends.common.posterior import draws
from ppl_vae.cli import findings, page
from ppl_vae.cli.output import npz, write_evaluation
from ppl_vae.cli.training import validation
from ppl_vae.diagnostics.reconstruction import with_gaps
from ppl_vae.errors import DataError

RNG = np.random.default_rng(5)
OPTIONS = {"max_steps": 3, "batch_size": 20, "progress": False}
X = RNG.normal([0, 3, -1], [1, 2, 0.5], (100, 3)).astype(np.float32)
SPLITS = {"train": X[:60], "valid": X[60:80], "test": X[80:]}


def normal_columns(train, rows):
    """Return log densities [N] under a normal distribution a column, of own scales or one for all."""
    common = train.var(0).mean()
    own = (train.var(0) * len(train) + common) / (len(train) + 1)
    each = stats.norm.logpdf(rows, train.mean(0), np.sqrt(own)).sum(1)
    one = stats.norm.logpdf(rows, train.mean(0), np.sqrt(common)).sum(1)
    return max(each, one, key=np.mean)


@pytest.fixture(scope="module", params=["pyro", "numpyro"])
def run(request, tmp_path_factory):
    given = data.of({split: {"x": x, "y": np.arange(len(x)) % 3} for split, x in SPLITS.items()})
    program = load("vae", likelihood="normal", hidden=(8,), z_dim=2)
    out = tmp_path_factory.mktemp("findings") / "run"
    return fit(program, given, backend=request.param, out=out, **OPTIONS)


def test_the_bound_is_that_of_training_and_its_distance_is_exact(run):
    about = page.contents(run)
    best = validation(run)
    found = about.finding
    assert (found.split, found.n, found.k) == ("valid", 20, None)
    assert (found.nats, found.stderr) == (best["elbo_nats"], best["elbo_stderr"])
    assert found.bits_per_dim is None
    bound = run.score({"x": SPLITS["valid"]}).elbo
    base = normal_columns(SPLITS["train"].astype(float), SPLITS["valid"])
    compared = found.comparison
    assert compared.nats == pytest.approx(base.mean(), rel=1e-5)
    assert compared.better == pytest.approx((bound - base).mean(), rel=1e-4)
    assert compared.stderr == pytest.approx(stats.sem(bound - base), rel=1e-4)
    assert (compared.n, compared.fitted, compared.columns) == (20, 60, 3)
    assert [row.number for row in about.worst] == list(np.argsort(bound)[:8])
    assert [row.nats for row in about.worst] == pytest.approx(sorted(bound)[:8], rel=1e-5)
    for row in about.worst:
        np.testing.assert_array_equal(row.original, SPLITS["valid"][row.number])
        assert row.label == f"y {row.number % 3}"
    assert about.latents["z"].shape == (20, 2) and about.labels.field == "y"
    assert about.missing == []


def test_an_evaluation_of_these_weights_on_the_own_data_goes_first(run):
    result = evaluate(run, "test", 5)
    per_row = result.pop("per_row")
    result |= {"data_sha256": run.record.data.sha256}
    write_evaluation(run, result, per_row, None, "")
    again = open_run(run.folder.path, data=run.data)
    about = page.contents(again)
    found = about.finding
    assert (found.split, found.k, found.nats, found.stderr) == (
        "test",
        5,
        result["iw_nats"],
        result["iw_stderr"],
    )
    base = normal_columns(SPLITS["train"].astype(float), SPLITS["test"])
    assert found.comparison.better == pytest.approx((per_row["iw"] - base).mean(), rel=1e-4)
    assert [row.number for row in about.worst] == list(np.argsort(per_row["iw"])[:8])
    for changes in ({"data_sha256": "other"}, {"steps": 99}):
        other = json.dumps(result | changes | {"k": 9, "iw_nats": 1e6}).encode()
        fresh = {"evaluation-other.json": other, "evaluation-other.npz": npz(per_row)}
        assert page.contents(again, fresh).finding.nats == result["iw_nats"]
    foreign = [b"{", b"[1]", b'{"split": "test"}', json.dumps(result | {"split": "no"}).encode()]
    foreign += [json.dumps(result | {name: "x"}).encode() for name in ("n", "k", "iw_nats")]
    for content in foreign:
        other = page.contents(again, {"evaluation-b.json": content})
        assert other.finding.nats == result["iw_nats"] and "evaluation-b" in other.details["All results"]
    short = {
        "evaluation-z.json": json.dumps(result | {"k": 9}).encode(),
        "evaluation-z.npz": npz({"iw": np.zeros(3)}),
    }
    assert page.contents(again, short).judged == 20
    fresh = {"evaluation-z.json": json.dumps(result | {"k": 9}).encode(), "evaluation-z.npz": npz(per_row)}
    assert page.contents(again, fresh).finding.k == 9


@dataclass(frozen=True)
class Masked(Program):
    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (4,), 2), "decoder": nn.MLP(2, (4,), self.x_shape)}

    def model(self, ppl, net, x=None, mask=True):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 1.0).mask(mask).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(*net.encoder(x)).to_event(1))


@pytest.mark.parametrize(("backend", "columns"), [("pyro", 3), ("numpyro", 3), ("pyro", 1), ("numpyro", 1)])
def test_masked_numbers_count_on_neither_side(backend, columns):
    kept = RNG.random((len(X), columns)) < 0.7  # of one column: it masks whole rows
    given = data.of({"x": np.where(kept, X, 0), "mask": kept})
    trained = fit(Masked(), given, backend=backend, **OPTIONS)
    about = page.contents(trained)
    x, held = (given.rows("valid")[name] for name in ("x", "mask"))
    for bad, words in ((np.ones((len(x), 7), bool), r"mask has shape \(7,\) per row"), (held * 2, "0 or 1")):
        with pytest.raises(DataError, match=words):
            trained.score({"x": x, "mask": bad})
    old, mask = (np.broadcast_to(given.rows(s)["mask"], given.rows(s)["x"].shape) for s in ("train", "valid"))
    np.testing.assert_array_equal(np.isnan(about.originals), ~mask)
    base = findings.independent(given.rows("train")["x"], x, False, train_mask=old, mask=mask).log_prob
    scores = trained.score(given.rows("valid"))
    gain = scores.elbo - base
    assert about.finding.comparison.better == pytest.approx(gain.mean(), rel=1e-4)
    assert scores.masked == ("x",) and scores.dims == pytest.approx(mask.sum() / len(mask))
    found = evaluate(trained, "valid")
    error = np.square(x - trained.reconstruct(given.rows("valid"))["x"])[mask].mean()
    assert found["mse"] == pytest.approx(error, rel=1e-5)
    assert found["bits_per_dim"] == pytest.approx(-scores.elbo.sum() / mask.sum() / np.log(2), rel=1e-6)
    gaps = draws(trained.bound, given.rows("valid"), 2, predictive=False).observed_data["x"]
    np.testing.assert_array_equal(np.isnan(gaps), ~mask)


def test_steps_that_are_masked_are_missing_in_every_channel():
    x, mask = RNG.normal(size=(6, 4, 2)), np.arange(4) < RNG.integers(1, 5, (6, 1))
    gaps = with_gaps({"x": x}, {"x": x, "mask": mask}, masked=True)["x"]
    np.testing.assert_array_equal(np.isnan(gaps), np.repeat(~mask[..., None], 2, -1))


@dataclass(frozen=True)
class Half(Masked):
    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(2))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 1.0).to_event(1), obs=x)
            ppl.sample("w", ppl.dist.Normal(0.0, 1.0), obs=None if x is None else x[..., 0])


def test_what_cannot_be_compared_says_why():
    found = page.contents(fit(Half(), data.of(X), **OPTIONS)).finding
    assert found.comparison == "the likelihood is of 4 numbers per row, x has 3"
    few = fit(
        load("vae", likelihood="normal", hidden=(4,), z_dim=2), data.of(X[:6]), batch_size=2, max_steps=2
    )
    assert page.contents(few).finding.comparison == "the training rows are fewer than 10"


@pytest.mark.parametrize(
    ("likelihood", "x", "family"),
    [
        ("bernoulli", (RNG.random((60, 6, 6)) < 0.3).astype(np.float32), "Bernoulli"),
        ("poisson", RNG.poisson(3, (60, 4)), "negative binomial"),
        ("bernoulli", RNG.integers(0, 256, (60, 4, 4), np.uint8), "Bernoulli"),
        ("grey_levels:16", RNG.integers(0, 16, (60, 4, 4), np.uint8), "histogram of 16 levels"),
    ],
)
def test_the_columns_have_a_distribution_of_the_kind_of_the_likelihood(likelihood, x, family):
    given = data.of(x, levels=16) if "16" in likelihood else data.of(x)
    trained = fit(load("vae", likelihood=likelihood, hidden=(4,), z_dim=2), given, **OPTIONS)
    found = page.contents(trained).finding
    assert found.comparison.family.startswith(family)
    assert found.bits_per_dim == validation(trained)["bits_per_dim"]


def test_a_bound_far_below_that_of_independent_columns_is_told(run, capsys):
    scores = run.score(X[80:])
    assert findings.finding(run, None, "test", {"x": X[80:]}, scores) is not None
    assert capsys.readouterr().err == ""
    findings.finding(
        run, None, "test", {"x": X[80:]}, replace(scores, log_likelihood=scores.log_likelihood - 1e9)
    )
    (line,) = capsys.readouterr().err.splitlines()
    assert "the bound is 1e+09 nats per row below that of a model of independent columns" in line


def test_a_run_whose_data_is_gone_has_a_page(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.save("x.npy", X)
    trained = fit(
        load("vae", likelihood="normal", hidden=(4,), z_dim=2), data.load("x.npy"), out="run", **OPTIONS
    )
    (tmp_path / "x.npy").unlink()
    about = page.contents(open_run("run"))
    assert about.finding.nats == validation(trained)["elbo_nats"] and about.originals is None
    assert about.samples.shape == (64, 3) and "x.npy" in about.missing[0]
    assert about.finding.comparison == "the rows are not at hand"
