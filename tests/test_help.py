"""What objects, help texts and hints say."""

import copy
import inspect
import re
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pytest
from command_line import cli, refused

from ppl_vae import ELBO, IWAE, Program, annotations, data, evaluate, fit, gallery, likelihoods, load, resume
from ppl_vae.api.record import CHANGES
from ppl_vae.cli import wording
from ppl_vae.contract.report import CheckReport, Finding
from ppl_vae.errors import UsageError
from ppl_vae.options import Training
from ppl_vae.summaries import with_error


@pytest.fixture(scope="module")
def run():
    """A small run, in memory."""
    digits = data.load("digits")
    return fit(load("vae", z_dim=2, hidden=(8,)), digits, max_steps=4, batch_size=500, progress=False)


# repr


def test_a_run_and_its_evaluation_show_numbers_with_errors_and_units(run):
    row = [one for one in run.history if one["split"] == "valid"][-1]
    title, elbo = repr(run).splitlines()
    assert title == "Run of vae on digits (pyro), 4 steps"
    bound = with_error(row["elbo_nats"], row["elbo_stderr"])
    assert elbo.split(None, 1) == ["ELBO", f"{bound} nats per row, on validation rows at step 4"]
    found = evaluate(run, importance_samples=3)
    assert isinstance(found, dict) and found["n"] == 180 and len(found["per_row"]["iw"]) == 180
    lines = repr(found).splitlines()
    assert lines[0] == "vae on digits (pyro, 4 steps): 180 test rows" and len(lines) < 10
    bound = with_error(found["elbo_nats"], found["elbo_stderr"])
    assert " ".join(lines[1].split()) == f"ELBO {bound} nats per row"
    assert any(line.split()[-1] == "bits" for line in lines)
    page = found._repr_html_()
    assert page.startswith("<table>") and page.count("<tr>") == len(lines) - 1 and "nats per row" in page


def test_everything_that_is_handed_out_is_short(run):
    digits = data.load("digits")
    assert repr(digits).splitlines()[0] == "Data 'digits': image, 17 levels, binarize='auto'"
    assert "train 1,437, valid 180, test 180" in repr(digits) and "1 x 8 x 8, uint8" in repr(digits)
    rows = digits.raw("test")["x"][:5]
    report = CheckReport("vae", "<digits>", "pyro", (Finding("rows", "failed", "row 1 leaks"),))
    assert repr(report) == "vae on <digits> (pyro): 0 ok, 1 failed, 0 skipped\n  failed  rows  row 1 leaks"
    assert "&lt;digits&gt;" in report._repr_html_()
    wide = data.Data("wide", {"train": {"x": np.zeros((2, 100_000), np.float32)}}, "vector")
    for one in (run, digits, wide, report, run.score(rows), run.draws(rows, 2)):
        assert len(repr(one).splitlines()) <= 6 and len(repr(one)) < 600
        assert one._repr_html_().startswith("<table>")


# help

DOCUMENTED = '''    """One of mine.

    Attributes
    ----------
    z_dim, hidden : int
        Sizes that I
        chose.
    """

'''


def test_the_signature_of_fit_has_every_option_with_its_default():
    shown = inspect.signature(fit).parameters
    for field in fields(Training):
        assert shown[field.name].default == field.default and shown[field.name].kind.name == "KEYWORD_ONLY"
        default = re.escape(repr(field.default))
        assert re.search(rf"^    {field.name} : .*, default {default}\n +\S", fit.__doc__, re.M)
    assert not [one for one in shown.values() if one.kind is one.VAR_KEYWORD] and "**" not in fit.__doc__
    assert shown["objective"].default is None and max(map(len, fit.__doc__.splitlines())) <= 110


def test_the_signature_of_resume_has_what_may_change():
    shown = inspect.signature(resume).parameters
    assert {*CHANGES, "log_every"} < set(shown) and "batch_size" not in shown
    assert repr(shown["epochs"].default) == "as recorded" and "**" not in resume.__doc__
    assert re.search(r"^    epochs : .*, default as recorded\n +Length of the run", resume.__doc__, re.M)


@pytest.mark.parametrize("name", ["vae", "hvae", "topdown", "vqvae", "counts", "linear_gaussian"])
def test_every_field_of_the_gallery_has_a_help_text(name):
    source = gallery.source(name)
    texts = annotations.described(type(load(name)), source.text)
    assert not [field.name for field in fields(load(name)) if not texts.get(field.name)]


def test_fields_are_shown_with_text_choices_and_default(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    shown = " ".join(cli("train", "vae", "--help").out.split())
    assert "--model.z_dim Z_DIM numbers of a latent (type: int, default: 50)" in shown
    assert "--model.network {mlp,conv}" in shown
    assert "of x given z: bernoulli, normal, normal_fixed" in shown and "default: bernoulli" in shown
    path = tmp_path / "mine.py"
    head = "class VAE(Program):\n"
    path.write_text(gallery.find("vae").read_text().replace(head, head + DOCUMENTED))
    shown = " ".join(cli("train", path, "--help").out.split())
    assert "Z_DIM Sizes that I chose (type: int, default: 50)" in shown and "relu,tanh" in shown
    line = refused(2, "train", "vae", "--model.network", "x")
    assert line.endswith("--model.network: unknown network 'x': choose one of mlp, conv")


def test_texts_of_fields_come_from_docstrings_of_bases_and_from_comments():
    @dataclass(frozen=True)
    class One(Program):
        """One.

        Attributes
        ----------
        width : int
            Of the network ...
        """

        width: int = 1

    @dataclass(frozen=True)
    class Two(One):
        depth: int = 2

    source = 'class Two:\n    depth: int = (\n        2\n    )  # of "#" it\n    width: str = "#no"  # lost\n'
    found = annotations.described(Two, source)
    assert (found["width"], found["depth"]) == ("Of the network ...", 'of "#" it')


# hints

HINTS = {
    "train --likelihood normal": "--likelihood: did you mean --model.likelihood?",
    "train vae --likelihod normal": "--likelihod: did you mean --model.likelihood?",
    "train vae --z-dim 3": "--z-dim: did you mean --model.z_dim?",
    "train vqvae --code-dim=3": "--code-dim: did you mean --model.code_dim?",
    "check vae --model.zdim 3": "--model.zdim: did you mean --model.z_dim?",
    "train vae --model.lr 1": "--model.lr: did you mean --lr?",
    "train vae --training.batch_size 1": "--training.batch_size: did you mean --batch-size?",
    "train vae --k 5": "--k: did you mean --objective 'iwae(k=...)'?",
    "train vae --particle 5": "--particle: did you mean --objective 'elbo(particles=...)'?",
    "train vae --objective iwae(kk=5)": "iwae has no option 'kk': did you mean k? It takes k",
    "evaluate run --importance_samples 5": "did you mean --importance-samples?",
    "train vae --nothing-like-it 5": "unknown option --nothing-like-it",
}


@pytest.mark.parametrize("words", HINTS)
def test_an_option_without_its_group_is_hinted_at(words):
    assert refused(2, *words.split()).endswith(HINTS[words])


def test_keys_of_config_files_are_hinted_at(folder):
    Path("mine.yaml").write_text("program: vae\nlikelihood: normal\n")
    assert "key 'likelihood': did you mean model.likelihood?" in refused(2, "train", "--config", "mine.yaml")


@pytest.mark.parametrize("option", ["likelihood", "beta", "k"])
def test_fit_says_where_an_option_belongs_and_it_does(option):
    x = np.zeros((6, 4), np.float32)
    value = {"likelihood": "normal"}.get(option, 2)
    with pytest.raises(UsageError, match="did you mean") as caught:
        fit("vae", {"x": x}, **{option: value})
    written = re.search(r"did you mean (.*?)\?", str(caught.value))[1].replace("...", repr(value))
    made = eval(written, {"load": load, "ELBO": ELBO, "IWAE": IWAE})
    assert getattr(made, option) == value


MEANT = {  # what is called, with a run; what was meant
    "data of fit": (lambda run: fit("vae", X, vald=4), "data.of(..., valid=...)"),
    "attribute": (lambda run: run.sampel(3), "sample"),
    "function": (lambda run: run.evaluate(), "ppl_vae.evaluate(run)"),
    "option of a verb": (lambda run: run.sample(3, sead=1), "seed"),
    "option of a function": (lambda run: evaluate(run, importance_sample=3), "importance_samples"),
    "option of an objective": (lambda run: ELBO(betaa=2), "beta"),
    "option of a text": (lambda run: fit("vae", X, "iwae(kk=3)"), "k"),
    "objective": (lambda run: fit("vae", X, "iwea(k=3)"), "iwae"),
    "option of a stock objective": (lambda run: fit("vae", X, "Trace_ELBO(num_particle=2)"), "num_particles"),
    "stock objective": (lambda run: fit("vae", X, "TraceGraf_ELBO"), "TraceGraph_ELBO"),
    "field": (lambda run: type(load("vae"))(zdim=3), "z_dim"),
    "choice": (lambda run: fit("vae", X, optimizer="adm"), "adam"),
    "likelihood": (lambda run: likelihoods.parse("normall"), "normal"),
}
X = np.zeros((6, 4), np.float32)


@pytest.mark.parametrize("case", MEANT)
def test_what_was_meant_is_named(case, run):
    call, meant = MEANT[case]
    with pytest.raises((UsageError, AttributeError)) as caught:
        call(run)
    assert f"did you mean {meant}? " in str(caught.value)


def test_a_run_without_a_name_that_is_near_tells_all_and_can_be_copied(run):
    with pytest.raises(AttributeError, match="a Run has no 'xyzzy': it has backend, bound"):
        _ = run.xyzzy
    assert not hasattr(run, "_repr_latex_") and copy.copy(run).steps == run.steps


def test_messages_name_options_as_the_command_at_hand_does(folder, monkeypatch):
    np.save("rows.npy", np.eye(20, dtype=np.float32) * 3)
    line = refused(2, "train", "vae", "--data", "rows.npy", "--binarize", "static")
    assert line.endswith("scale it, or use --binarize none")
    np.save("rows.npy", np.eye(20, dtype=np.float32))
    line = refused(2, "train", "vae", "--data", "rows.npy", "--patience", 3, "--valid", 0)
    assert line.endswith("hold some out with --valid of the data, or leave it away")
    # What the command does not have, and what is given in a call, stays as Python writes it.
    monkeypatch.setattr(wording.Command, "options", {"data", "beta"})
    said = "give {}, or out=..., ELBO(beta=...)".format
    assert wording.in_options(said("data=...")) == said("--data")
