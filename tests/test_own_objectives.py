"""Objectives, schedules and parameter groups of a user's own, on both backends."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import exact
import numpy as np
import pytest
from command_line import SMALL, ok, refused

import ppl_vae
from ppl_vae import ELBO, Objective, Program, data, evaluate, fit, load, objectives, open_run, resume
from ppl_vae.api.record import RunRecord
from ppl_vae.api.settings import Settings
from ppl_vae.errors import ProgramError, RunError, UsageError
from ppl_vae.gallery import copy
from ppl_vae.objectives import Group, Loss, parse, scheduled
from ppl_vae.schedules import Linear
from ppl_vae.store import RunFolder

BACKENDS = ("pyro", "numpyro")
X = np.random.default_rng(0).normal(size=(60, 3)).astype("f")
FREE_BITS = '''
from dataclasses import dataclass
from ppl_vae import Objective

@dataclass(frozen=True)
class FreeBits(Objective):
    """At least `floor` nats per site."""

    floor: float = 0.5

    def loss(self, F, terms, scalars):
        rate = sum(F.clip(kl.mean(), self.floor) for kl in terms.kl.values())
        return terms.distortion + rate + terms.penalty
'''
OPTIONS = {"batch_size": 24, "lr": 1e-2, "log_every": 5, "device": "cpu", "compile": "off"}


def options(backend, **more):
    chosen = {"backend": backend} | OPTIONS | more
    return {k: v for k, v in chosen.items() if (k, backend) != ("compile", "numpyro")}


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(FREE_BITS)
    return path


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_objective_of_a_file_trains_is_recorded_and_resumes(backend, file, tmp_path):
    text = f"{file}:FreeBits(floor=0.25)"
    whole = fit("linear_gaussian", X, text, out=tmp_path / "whole", max_steps=10, **options(backend))
    fit("linear_gaussian", X, text, out=tmp_path / "part", max_steps=5, **options(backend))
    again = resume(tmp_path / "part", max_steps=10, data=X)
    for name, value in whole.bound.weights().items():
        np.testing.assert_array_equal(again.bound.weights()[name], value)
    record = open_run(tmp_path / "part").config
    assert record["objective"] == text
    assert (tmp_path / "part" / "objective.py").read_text() == FREE_BITS
    # The rate pays at least the floor, while the reported bound is the plain one.
    row = again.history[-2]
    assert row["loss"] == pytest.approx(row["distortion_nats"] + max(row["rate_nats"], 0.25), rel=0.05)
    file.write_text(FREE_BITS + "# another\n")
    with pytest.raises(RunError, match="has changed"):
        resume(tmp_path / "part", max_steps=12, data=X)
    resume(tmp_path / "part", max_steps=12, data=X, objective=f"{file}:FreeBits(floor=0.25)")


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("{}:FreeBit", ProgramError, "no class FreeBit"),
        ("{}:FreeBits(flor=1)", UsageError, "no option 'flor': did you mean floor. It takes floor"),
        ("{}:FreeBits(floor=x)", UsageError, "floor='x': give a number"),
        ("{}:FreeBits(floor=<Halving>)", UsageError, "floor was an object of Python, <Halving>: give"),
        ("{}.py:FreeBits", UsageError, "no objective file"),
        ("freebits", UsageError, r"unknown objective 'freebits': write elbo\(beta=1.0"),
    ],
)
def test_texts_that_name_no_objective_are_refused(text, error, message, file):
    with pytest.raises(error, match=message):
        parse(text.format(file))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("floor: float = 0.5", "floor: float", r"FreeBits needs floor: write FreeBits\(floor=...\)"),
        ("@dataclass(frozen=True)\n", "", r"mine.py: put @dataclass\(frozen=True\) above class FreeBits"),
        ("(frozen=True)", "", r"mine.py: class FreeBits must be @dataclass\(frozen=True\)"),
        ("def loss", "def lost", r"mine.py: class FreeBits has no loss\(self, F, terms, scalars\)"),
        (
            ", scalars)",
            ")",
            r"class FreeBits has loss\(self, F, terms\): write loss\(self, F, terms, scalars\)",
        ),
    ],
)
def test_a_class_of_a_file_that_is_no_objective_is_refused_when_it_is_loaded(old, new, message, file):
    file.write_text(FREE_BITS.replace(old, new))
    with pytest.raises((ProgramError, UsageError), match=message):
        parse(f"{file}:FreeBits")


class Undecorated(ELBO):
    gamma: float = 2.0


@dataclass(frozen=True)
class Needs(ELBO):
    gamma: float = field(kw_only=True)


def test_a_class_that_is_no_objective_is_refused_when_it_is_made():
    with pytest.raises(ProgramError, match=r"put @dataclass\(frozen=True\) above class Undecorated"):
        Undecorated()
    made = Settings.of(load("linear_gaussian"), ELBO).objective
    assert made == ELBO()
    with pytest.raises(UsageError, match="Needs needs gamma"):
        Settings.of(load("linear_gaussian"), Needs)
    with pytest.raises(UsageError, match=r"the objective Halving is a class: give an object, Halving\(\)"):
        Settings.of(load("linear_gaussian"), Halving)


class Halving:
    """A schedule of one's own, without a text."""

    def __call__(self, step):
        return 0.5**step

    def check_fits(self, max_steps):
        pass


@dataclass(frozen=True)
class Several(ELBO):
    weights: tuple[float, ...] = (1.0,)
    word: str = "plain"


def test_the_text_of_an_objective_gives_its_options_or_names_their_class():
    text = objectives.objective_text
    assert text(ELBO(beta=Linear(0, 1, 10), particles=2)) == "elbo(beta=linear:0:1:10,particles=2)"
    assert text(Several(word="two")) == "Several(word=two)"
    assert text(Several(beta=Halving(), weights=(1.0, 2.0), word="2")) == (
        "Several(beta=<Halving>,weights=<tuple>,word=<str>)"
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_own_schedule_trains(backend):
    run = fit("linear_gaussian", X, ELBO(beta=Halving()), max_steps=2, **options(backend, log_every=1))
    assert [row["beta"] for row in run.history if row["split"] == "train"] == [1.0, 0.5]


@dataclass(frozen=True)
class Wrong(Objective):
    def loss(self, F, terms, scalars):
        return terms.log_likelihood


@dataclass(frozen=True)
class Missing(Objective):
    def loss(self, F, terms, scalars):
        return terms.distortion + scalars["beta"] * terms.rate


@dataclass(frozen=True)
class Misspelt(ELBO):
    def loss(self, F, terms, scalars):
        return terms.distortion + scalars["bta"] * terms.rate


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_loss_that_is_no_number_is_refused(backend):
    with pytest.raises(ProgramError, match="Wrong.loss returns .*: take the mean over rows"):
        fit("linear_gaussian", X, Wrong(), max_steps=2, **options(backend))
    with pytest.raises(ProgramError, match="no scalar 'bta': the step has beta"):
        fit("linear_gaussian", X, Misspelt(), max_steps=2, **options(backend))
    with pytest.raises(RunError, match="'Missing' was defined in a session"):
        program = load("linear_gaussian", x_shape=(3,))
        record = RunRecord.of(program, data.of(X), Settings.of(program, Missing(), backend))
        record.made_objective(Path())


@dataclass(frozen=True)
class Annealed(Program):
    """x ~ N(z, temperature), where the temperature falls with the step."""

    x_shape: tuple[int, ...] | None = None
    temperature: Any = "linear:2:1:10"

    def schedules(self):
        return {"temperature": self.temperature}

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (4,), 3)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(3))
            ppl.sample("x", ppl.dist.Normal(z, ppl.scalar("temperature")).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


@pytest.mark.parametrize(
    ("backend", "compile"),
    [("pyro", "off"), ("numpyro", "off"), pytest.param("pyro", "on", marks=pytest.mark.slow)],
)
def test_a_program_reads_its_scalars_by_name(backend, compile, tmp_path):
    chosen = options(backend, compile=compile, log_every=1, keep="last", max_steps=12)
    run = fit(Annealed(), X, out=tmp_path / "run", **chosen)
    rows = [row for row in run.history if row["split"] == "train"]
    assert [row["temperature"] for row in rows[:3]] == pytest.approx([2.0, 1.9, 1.8])
    assert rows[-1]["temperature"] == 1.0 and {"lr", "beta"} <= set(rows[-1])
    # Evaluation sees the value of the step that made the weights, in a run that was opened too.
    assert run.bound.scalars == {"temperature": 1.0}
    early = fit(Annealed(temperature="linear:2:1:4"), X, **options(backend, max_steps=4, keep="last"))
    assert early.bound.scalars["temperature"] == pytest.approx(1.25)
    assert Annealed(temperature=1.5).schedules() == {"temperature": 1.5}


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_opened_run_has_the_scalars_of_its_weights(backend, tmp_path):
    path = tmp_path / "annealed.py"
    lines = ["from dataclasses import dataclass", "from typing import Any", "from ppl_vae import Program"]
    import inspect

    path.write_text("\n".join(lines) + "\n" + inspect.getsource(Annealed))
    run = fit(path, X, out=tmp_path / "run", **options(backend, max_steps=10, keep="last"))
    opened = open_run(tmp_path / "run", data=X)
    assert opened.bound.scalars == run.bound.scalars == {"temperature": pytest.approx(1.1)}
    found = [evaluate(one, "valid")["elbo_nats"] for one in (run, opened)]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_scalars_that_clash_or_are_unknown_are_refused(backend):
    @dataclass(frozen=True)
    class Clash(Annealed):
        def schedules(self):
            return {"beta": 1.0}

    with pytest.raises(UsageError, match="schedules 'beta', which the run does too"):
        fit(Clash(), X, max_steps=2, **options(backend))

    @dataclass(frozen=True)
    class Unknown(Annealed):
        def schedules(self):
            return {}

    with pytest.raises(ProgramError, match="no scalar 'temperature': its schedules\\(\\) give none"):
        fit(Unknown(), X, max_steps=2, **options(backend))

    @dataclass(frozen=True)
    class Listed(Annealed):
        def schedules(self):
            return self.temperature

    for given, message in (
        ([], r"Listed.schedules\(\) returns \[?\]?.*: return a dict"),
        (None, "returns None"),
    ):
        with pytest.raises(ProgramError, match=message):
            fit(Listed(temperature=given), X, max_steps=2, **options(backend))

    @dataclass(frozen=True)
    class ReadsBeta(Annealed):
        def model(self, ppl, net, x=None):
            ppl.scalar("beta")

    # Beta is the objective's: evaluation would not know it.
    with pytest.raises(ProgramError, match="no scalar 'beta': its .* give temperature .*for the loss alone"):
        fit(ReadsBeta(), X, max_steps=20, **options(backend))
    with pytest.raises(UsageError, match="longer than the run"):
        fit(Annealed(), X, max_steps=2, **options(backend))


@dataclass(frozen=True)
class TwoParts(Program):
    """x ~ N(z + offset, 1), with an encoder and an offset that belong to groups of their own."""

    x_shape: tuple[int, ...] | None = None

    def networks(self, nn):
        return {"encoder": nn.NormalHead(self.x_shape, (4,), 3), "offset": nn.Parameter((3,), 0.5)}

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(3))
            ppl.sample("x", ppl.dist.Normal(z + net.offset(), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))


@dataclass(frozen=True)
class Opposed(Objective):
    """The ELBO for all parameters, but the offset is driven to 2 by a loss of its own."""

    groups: ClassVar = (Group("shift", ("offset",), lr=0.1, betas=(0.0, 0.9)),)

    def loss(self, F, terms, scalars):
        offset = terms.model["x"].fn.mean - terms.guide["z"].value
        value = terms.distortion + terms.rate
        return Loss(value, {"offset": offset.mean()}, {"shift": F.square(offset - 2.0).mean()})


@dataclass(frozen=True)
class Frozen(ELBO):
    groups: ClassVar = (Group("still", ("offset",), frozen=True),)


@pytest.mark.parametrize(("backend", "compile"), [("pyro", "off"), ("pyro", "on"), ("numpyro", "off")])
def test_each_group_of_parameters_follows_a_loss_of_its_own(backend, compile):
    chosen = options(backend, max_steps=60, clip_norm=5.0, ema=0.5, log_every=1, compile=compile)
    run = fit(TwoParts(), data.of(X, valid=0, test=0), Opposed(), **chosen)
    assert backend == "numpyro" or run.config["compile"] == compile
    rows = run.history
    assert rows[0]["offset"] == pytest.approx(0.5) and rows[-1]["offset"] == pytest.approx(2.0, abs=0.05)
    assert rows[-1]["loss/shift"] < 1e-2
    assert rows[0]["lr/shift"] == 0.1 and rows[0]["lr"] == 1e-2
    # The encoder learns the posterior under that offset: q(z | x) = N((x - 2) / 2, 1/2).
    assert rows[-1]["elbo_nats"] > rows[0]["elbo_nats"] - 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_frozen_group_stays_to_the_bit(backend):
    run = fit(TwoParts(), X, Frozen(), max_steps=5, weight_decay=0.1, **options(backend))
    np.testing.assert_array_equal(run.bound.weights()["offset.value"], np.full(3, 0.5, "f"))


@dataclass(frozen=True)
class OwnRate(ELBO):
    """Groups that differ from the rest by their learning rates alone follow the common loss."""

    groups: ClassVar = (Group("shift", ("offset",), lr=1e-2), Group("rest", ("encoder",), lr=1e-2))


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_without_a_loss_follow_the_common_one(backend):
    chosen = options(backend, max_steps=6, lr=1e-2)
    grouped, plain = (fit(TwoParts(), X, one, **chosen).bound.weights() for one in (OwnRate(), ELBO()))
    for name, value in plain.items():
        np.testing.assert_allclose(grouped[name], value, rtol=1e-5, atol=1e-6)
    assert abs(plain["offset.value"] - 0.5).min() > 1e-2


@dataclass(frozen=True)
class Answers(Objective):
    """Gives what a test asks for."""

    given: str = "metrics"
    name: str = "half"
    groups: ClassVar = (Group("shift", ("offset",)),)

    def loss(self, F, terms, scalars):
        value = terms.distortion + terms.rate
        extra = {"half": 0.5, "rows": terms.log_likelihood}.get(self.name, terms.rate)
        return Loss(value, **{self.given: {self.name: extra}})


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_a_loss_gives_beside_its_value_is_checked(backend):
    for given, name, message in (
        ("metrics", "step", "a metric 'step', which the history holds already"),
        ("metrics", "elbo_nats", "a metric 'elbo_nats', which the history holds already"),
        ("metrics", "rows", "gives 'rows' as .*: take the mean over rows"),
        ("others", "shft", "a loss of the group 'shft': its groups are shift"),
    ):
        with pytest.raises(ProgramError, match=message):
            fit(TwoParts(), X, Answers(given, name), max_steps=2, **options(backend))
    run = fit(TwoParts(), X, Answers(), max_steps=2, **options(backend, log_every=1))
    assert run.history[0]["half"] == 0.5


@dataclass(frozen=True)
class TakesRate(Missing):
    lr: Any = scheduled(5.0)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ((Group("one", ("offset",)), Group("one", ("encoder",))), "names of their own, got 'one', 'one'"),
        ((Group("one", ("offset",), lr=-0.1),), "lr/one is -0.1 at step 0"),
        ((Group("one", ("offset",), betas=(0.9, 1.5)),), "betas"),
    ],
)
@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_that_make_no_sense_are_refused(groups, message, backend):
    kind = dataclass(frozen=True)(type("Grouped", (ELBO,), {"groups": groups}))
    with pytest.raises(UsageError, match=message):
        fit(TwoParts(), X, kind(), max_steps=2, **options(backend))


def test_an_objective_schedules_no_learning_rate():
    with pytest.raises(UsageError, match="the objective schedules 'lr'"):
        fit("linear_gaussian", X, TakesRate(), max_steps=2, **options("pyro"))


def test_a_run_goes_on_with_its_own_objective_alone(tmp_path):
    fit("linear_gaussian", X, "elbo(beta=0.5)", out=tmp_path / "run", max_steps=2, **options("pyro"))
    with pytest.raises(UsageError, match=r"trained with the objective elbo\(beta=0.5\), not iwae\(k=7\)"):
        resume(tmp_path / "run", data=X, max_steps=4, objective="iwae(k=7)")
    assert resume(tmp_path / "run", data=X, max_steps=4, objective=ELBO(beta=0.5)).steps == 4


def test_the_command_line_names_an_objective_that_moved_or_changed(file, tmp_path):
    run, moved = tmp_path / "run", tmp_path / "moved.py"
    objective = "{}:FreeBits(floor=0.25)".format
    ok("train", "vae", *SMALL, "--objective", objective(file), "--max-steps", 2, "--out", run)
    again = ("train", "--resume", "--out", run, "--max-steps", 4)
    file.rename(moved)
    message = refused(1, *again)
    assert f"objective file {file} is gone: name the file with --objective" in message
    assert str(run / "objective.py") in message
    message = refused(2, *again, "--objective", objective(moved).replace("0.25", "0.75"))
    assert "floor=0.25" in message and "floor=0.75" in message
    assert ok(*again, "--objective", objective(moved))["steps"] == 4
    assert ok(*again[:-1], 6)["steps"] == 6  # the run records where the file lies now
    record = RunRecord.open(RunFolder.open(run))
    assert record.objective == objective(moved) and record.objective_file["path"] == str(moved)


def test_a_run_holds_the_objective_that_was_executed(file, tmp_path):
    objective = parse(f"{file}:FreeBits")
    file.write_text(FREE_BITS + "# edited since\n")
    fit("linear_gaussian", X, objective, out=tmp_path / "run", max_steps=2, **options("pyro"))
    assert (tmp_path / "run" / "objective.py").read_text() == FREE_BITS
    with pytest.raises(RunError, match="has changed"):
        resume(tmp_path / "run", data=X, max_steps=4)
    resume(tmp_path / "run", data=X, max_steps=4, objective=f"{file}:FreeBits")
    assert (tmp_path / "run" / "objective.py").read_text() == file.read_text()
    assert resume(tmp_path / "run", data=X, max_steps=6).steps == 6


def test_a_run_records_where_its_model_file_lies_now(tmp_path):
    before, now = tmp_path / "before.py", tmp_path / "now.py"
    copy("linear_gaussian", before)
    fit(str(before), X, out=tmp_path / "run", max_steps=2, **options("pyro"))
    now.write_text(before.read_text() + "# edited\n")
    before.unlink()
    with pytest.raises(RunError, match="before.py is gone"):
        resume(tmp_path / "run", data=X, max_steps=4)
    resume(tmp_path / "run", data=X, max_steps=4, model_file=now)
    assert (tmp_path / "run" / "model.py").read_text() == now.read_text()
    assert open_run(tmp_path / "run").config["program"]["path"] == str(now)
    assert resume(tmp_path / "run", data=X, max_steps=6).steps == 6


@pytest.mark.parametrize("backend", BACKENDS)
def test_groups_resume_bit_by_bit(backend, tmp_path):
    chosen = options(backend)
    whole = fit(TwoParts(), X, Opposed(), out=tmp_path / "whole", max_steps=8, **chosen)
    fit(TwoParts(), X, Opposed(), out=tmp_path / "part", max_steps=4, **chosen)
    part = fit(TwoParts(), X, Opposed(), out=tmp_path / "part", resume=True, max_steps=8, **chosen)
    for name, value in whole.bound.weights().items():
        np.testing.assert_array_equal(part.bound.weights()[name], value)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("networks", "message"),
    [(("ofset",), "no network 'ofset': it has"), (("offset", "offset"), "two parameter groups")],
)
def test_groups_of_unknown_networks_are_refused(networks, message, backend):
    @dataclass(frozen=True)
    class Named(ELBO):
        groups: ClassVar = (Group("one", networks),)

    with pytest.raises(UsageError, match=message):
        fit(TwoParts(), X, Named(), max_steps=2, **options(backend))


DOCS = Path(ppl_vae.__file__).parent.parent / "docs"


def documented(page, heading, name):
    """Return what the first Python block under a heading of a page of the docs declares."""
    space, text = {"__name__": __name__}, (DOCS / page).read_text()
    exec(re.search("```python\n(.*?)```", text.partition(f"## {heading}\n")[2], re.DOTALL)[1], space)
    return space[name]


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_documented_objective_pays_its_floor(backend):
    kind = documented("objectives.md", "An objective of your own", "FreeBits")
    run = fit(
        "linear_gaussian",
        X,
        kind(floor=50.0, beta="linear:0:1:4"),
        max_steps=4,
        **options(backend, log_every=1),
    )
    rows = [row for row in run.history if row["split"] == "train"]
    assert [row["beta"] for row in rows] == [0.0, 0.25, 0.5, 0.75]
    for row in rows:
        assert row["loss"] == pytest.approx(row["distortion_nats"] + row["beta"] * 50, rel=1e-5)
    with pytest.raises(UsageError, match="beta=-1: beta must not start below 0"):
        kind(beta=-1)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_documented_diagnostic_finds_the_evidence(backend):
    w, b = exact.decoder()
    x = exact.draw(5, w, b)
    run = fit(exact.program(), x, backend=backend, max_steps=1, batch_size=2, device="cpu")
    run.bound.load_weights(exact.weights(w, b, shift=0.1, inflate=1.2))
    found = documented("posterior.md", "A diagnostic of your own", "log_evidence")(run, x)
    # A guide near the posterior: the weights of 1,000 draws vary by some per cent.
    np.testing.assert_allclose(np.asarray(found), exact.evidence(x, w, b), atol=0.1)
