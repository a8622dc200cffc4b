"""The contract of a program: sound programs pass, and each broken one is caught by exactly one rule."""

import json

import numpy as np
import pytest
import torch
from toys import BITS, COUNTS, GREY, REALS, Linear, OnCounts, Toy, broken, broken_programs

from ppl_vae import contract, data, load
from ppl_vae.backends.numpyro.check import probe as numpyro_probe
from ppl_vae.backends.pyro.check import probe as pyro_probe
from ppl_vae.contract.case import differ
from ppl_vae.contract.probe import BrokenRule
from ppl_vae.contract.values import above_elbo
from ppl_vae.errors import ProgramError, UsageError

RNG = np.random.default_rng(5)
IMAGES = data.of(RNG.integers(0, 2, (40, 1, 8, 8)).astype(np.uint8), name="images")
COLOUR = data.of(RNG.integers(0, 256, (40, 3, 8, 8)).astype(np.uint8), name="colour")
TABLE = data.of(
    {"x": RNG.poisson(3, (40, 6)), "batch": RNG.integers(0, 3, 40), "size": RNG.random(40) + 0.5},
    name="table",
)
PROBES = {"pyro": pyro_probe, "numpyro": numpyro_probe}
RULES = tuple(rule.name for rule in contract.RULES)
GALLERY = {
    "vae": (load("vae", z_dim=3, hidden=(8,)), IMAGES),
    "linear_gaussian": (load("linear_gaussian"), REALS),
    "hvae": (load("hvae", z_dims=(4, 3), hidden=(16, 8)), IMAGES),
    "topdown": (load("topdown", latents=3, z_channels=2, width=4, inner=3), IMAGES),
    "counts": (load("counts", z_dim=3, hidden=(8,)), TABLE),
    "vqvae": (load("vqvae", codes=12, code_dim=3, hidden=8), COLOUR),
}
SOUND = GALLERY | {
    "vae, convolutional": (load("vae", z_dim=3, hidden=(16,), network="conv"), IMAGES),
    "vae, grey": (load("vae", z_dim=3, hidden=(8,), likelihood="discretized_logistic"), COLOUR),
    "vqvae, gradient": (load("vqvae", codes=12, code_dim=3, hidden=8, learning="gradient"), COLOUR),
    "toy": (Toy(), BITS),
    "linear": (Linear(), BITS),
}


def check(program, rows=BITS, seed=0, backend="pyro"):
    return contract.check(program, rows, {backend: PROBES[backend]}, backend, seed)


def on(backend, kind):
    """Return a class of programs for one backend."""
    return type(kind.__name__, (kind,), {"backends": (backend,)})


def failed(report):
    return [finding.name for finding in report.failed]


@pytest.mark.parametrize("name", SOUND)
def test_sound_programs_pass(name):
    report = check(*SOUND[name])
    assert report.ok, str(report)
    assert [finding.name for finding in report] == list(RULES)
    assert {finding.name for finding in report if finding.status == "skipped"} <= {"parity"}


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=() if name == "vae" else pytest.mark.slow) for name in GALLERY],
)
def test_the_gallery_passes_every_rule_with_numpyro_and_is_equal_to_pyro(name):
    report = contract.check(*GALLERY[name], PROBES, "numpyro")
    assert report.ok, str(report)
    assert all(finding.status == "ok" for finding in report), str(report)
    assert report["parity"].message.startswith("equal to pyro in ")


CASES = [
    pytest.param(backend, case, id=f"{backend}-{case.rule}-{case.kind.__name__}")
    for backend in PROBES
    for case in broken_programs(backend)
]
# How the libraries are called in messages.
NUMPYRO = {"pyro.infer": "numpyro.infer", "torch.nn.Module": "flax.nnx.Module"}


@pytest.mark.parametrize(("backend", "case"), CASES)
def test_a_broken_program_is_caught_by_exactly_its_rule(backend, case):
    report = check(on(backend, case.kind)(**case.fields), case.rows, backend=backend)
    assert failed(report) == [case.rule], str(report)
    message = report[case.rule].message
    for words in case.words:
        for ours, theirs in NUMPYRO.items() if backend == "numpyro" else ():
            words = words.replace(ours, theirs)
        assert words in message
    assert "\n" not in message
    assert report.failed[0].status == "failed" and not report.ok


def test_every_rule_has_a_program_that_breaks_it():
    assert {case.rule for case in broken_programs()} | {"parity"} == set(RULES)


def test_rules_that_mean_nothing_without_a_broken_one_are_skipped():
    case = next(case for case in broken_programs() if case.rule == "sites")
    report = check(case.kind(), case.rows)
    skipped = {finding.name: finding.message for finding in report if finding.status == "skipped"}
    assert skipped["plate"] == "needs 'sites'" and skipped["rows"] == "needs 'seeds'"
    assert report["prior"].status == "skipped" and report["networks"].status == "ok"


@pytest.mark.parametrize("seed", range(3))
def test_the_verdict_does_not_hang_on_the_seed(seed):
    assert check(*SOUND["vae"], seed=seed).ok
    assert failed(check(broken("SmallKL"), seed=seed)) == ["bound"]


def test_numpyro_names_the_site_whose_axes_do_not_fit_the_plate():
    report = check(on("numpyro", type(broken("TooFewEventDims")))(), backend="numpyro")
    message = report["shapes"].message
    assert message.startswith("site 'z' has batch shape (7, 3) in the plate 'data' of size 7")


# -- what is allowed


class ZeroLast(Linear):
    def decoder(self):
        layers = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 6))
        torch.nn.init.zeros_(layers[2].weight)
        return layers


class FrozenDecoder(Linear):
    def decoder(self):
        return torch.nn.Linear(3, 6).requires_grad_(False)


class Normalized(Linear):
    def networks(self, nn):
        norm = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm(5), nn.Linear(5, 6))
        return {"encoder": nn.NormalHead(self.x_shape, 8, self.z_dim), "decoder": norm}


class Sloped(Linear):
    """The slope of its root at a pixel of 0 is infinite: its gradient by other rows is 0 times infinity."""

    def posterior(self, ppl, net, x):
        loc, scale = net.encoder(x.sqrt())
        return ppl.dist.Normal(loc, scale).to_event(1)


class Bare(Toy):
    """No networks, nothing to train."""

    def networks(self, nn):
        return {}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(6))
            ppl.sample("x", ppl.dist.Bernoulli(logits=z).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.Normal(x - 0.5, 0.5).to_event(1))


class Mixture(Toy):
    def prior(self, ppl):
        weights = ppl.dist.Categorical(ppl.array([0.5, 0.5]))
        parts = ppl.dist.Normal(ppl.array([[-1.0] * 3, [1.0] * 3]), 0.5).to_event(1)
        return ppl.dist.MixtureSameFamily(weights, parts)


class Masked(Linear):
    """Values that are masked away may lie anywhere."""

    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x, mask):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            likelihood = ppl.dist.Bernoulli(logits=net.decoder(z))
            if mask is not None:
                likelihood = likelihood.mask(mask)
            ppl.sample("x", likelihood.to_event(1), obs=x)


MASK = RNG.random((40, 6)) < 0.7
HOLES = data.of({"x": np.where(MASK, RNG.integers(0, 2, (40, 6)), -9.0), "mask": MASK}, name="holes")


@pytest.mark.parametrize(
    ("kind", "rows"),
    [
        (ZeroLast, BITS),
        (FrozenDecoder, BITS),
        (Normalized, BITS),
        (Sloped, BITS),
        (Mixture, BITS),
        (Bare, BITS),
        (Masked, HOLES),
    ],
)
def test_what_the_contract_allows(kind, rows):
    report = check(kind(), rows)
    assert report.ok, str(report)


class Scanned(Linear):
    """A network within a scan, whose calls cannot be recorded."""

    def model(self, ppl, net, x=None):
        from jax import lax

        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            _, logits = lax.scan(lambda carry, _: (carry, net.decoder(z)), 0.0, None, length=2)
            ppl.sample("x", ppl.dist.Bernoulli(logits=logits.mean(0)).to_event(1), obs=x)


def test_networks_within_a_scan_are_allowed():
    report = check(on("numpyro", Scanned)(), backend="numpyro")
    assert report.ok, str(report)


def test_a_normalization_layer_in_train_mode_is_reported_not_refused():
    assert "in train mode rows meet" in check(Normalized())["rows"].message
    assert "train" not in check(Linear())["rows"].message


def test_unused_and_missing_fields_are_named():
    labelled = data.of({"x": BITS.splits["train"]["x"], "y": np.arange(len(BITS.splits["train"]["x"])) % 3})
    assert check(Toy(), labelled)["fields"].message == "uses x; not y"
    assert check(Masked(), BITS)["batch"].message == "guide and model run on 7 rows without mask"


@pytest.mark.parametrize("count", [3, 5])
def test_few_rows_suffice(count):
    few = data.of({"train": {"x": RNG.integers(0, 2, (count, 6)).astype(np.uint8)}})
    assert check(Toy(), few).ok
    assert failed(check(broken("AveragingDecoder"), few)) == ["rows"]


def test_binarized_grey_levels_pass():
    assert check(Toy(), data.of(GREY, binarize="dynamic")).ok
    assert check(Toy(likelihood="discretized_logistic:17"), GREY).ok


def test_the_bound_is_compared_beyond_its_noise():
    elbo = np.array([-10.0, -12.0, -11.0])
    above_elbo(elbo, elbo + np.array([0.5, -0.4, 0.3]), 8)
    above_elbo(elbo[:1], elbo[:1] + 0.1, 8)
    with pytest.raises(BrokenRule, match="8 importance samples, -12 nats, lies below the ELBO, -11"):
        above_elbo(elbo, elbo - np.array([1.0, 1.1, 0.9]), 8)


@pytest.mark.parametrize(
    ("a", "b", "dims", "far"),
    [
        (100.0, 100.0009, 1, False),
        (100.0, 100.0011, 1, True),
        (0.0, 0.0009, 100, False),
        (0.0, 0.0011, 100, True),
        (np.nan, np.nan, 1, True),
        (-np.inf, -np.inf, 1, False),
        (-np.inf, 0.0, 1, True),
    ],
)
def test_the_tolerance_is_relative_to_the_value_and_the_dims(a, b, dims, far):
    assert differ(np.array([1.0, a]), np.array([1.0, b]), dims) is far
    assert differ(np.ones(2), np.ones(3)) and differ(None, np.ones(3))


# -- the report


def test_the_report_reads_well():
    report = check(Toy(), GREY)
    lines = str(report).splitlines()
    assert len(lines) == len(RULES) + 1
    assert lines[0] == "ok      fields        uses x"
    assert [line for line in lines if line.startswith("failed  support       site 'x': ")]
    assert lines[-1] == f"Toy on grey (pyro): {len(RULES) - 2} ok, 1 failed, 1 skipped"
    plain = json.loads(json.dumps(report.to_dict()))
    assert {key: plain[key] for key in ("ok", "program", "data", "backend")} == {
        "ok": False, "program": "Toy", "data": "grey", "backend": "pyro",
    }  # fmt: skip
    assert plain["findings"][0] == {"name": "fields", "status": "ok", "message": "uses x"}
    with pytest.raises(ProgramError, match=r"^Toy breaks the contract on grey \(pyro\): support: site 'x'"):
        report.raise_if_failed()
    with pytest.raises(KeyError, match="no rule 'speed'"):
        report["speed"]
    check(Toy()).raise_if_failed()


def test_a_backend_without_a_maker_is_refused():
    with pytest.raises(UsageError, match="the backend 'numpyro' is not among pyro"):
        contract.check(Toy(), BITS, {"pyro": pyro_probe}, "numpyro")


def test_unequal_counts_of_integers_are_compared_by_replaced_rows():
    report = check(OnCounts(), COUNTS)
    assert report.ok, str(report)
