"""The contract of programs that are two functions of a library."""

import plain_numpyro
import plain_pyro
import pytest
from toys import BITS

from ppl_vae import contract
from ppl_vae.backends.numpyro.check import probe as numpyro_probe
from ppl_vae.backends.pyro.check import probe as pyro_probe
from ppl_vae.program import PlainProgram

PROBES = {"pyro": pyro_probe, "numpyro": numpyro_probe}
PROGRAMS = {"pyro": plain_pyro, "numpyro": plain_numpyro}
both = pytest.mark.parametrize("backend", PROBES)


def check(backend, model, guide):
    program = PlainProgram(model, guide, "mine", backend)
    return contract.check(program, BITS, {backend: PROBES[backend]}, backend)


def failed(report):
    return [finding.name for finding in report.failed]


@both
def test_a_plain_program_is_checked_by_the_rules_that_apply(backend):
    functions = PROGRAMS[backend]
    report = check(backend, functions.model, functions.guide)
    assert report.ok, str(report)
    skipped = {finding.name: finding.message for finding in report if finding.status == "skipped"}
    assert set(skipped) == {"networks", "independence", "particles", "prior", "decoding", "parity"}
    assert "how to draw" in skipped["prior"]
    assert skipped["parity"] == f"the program runs on {backend} only"
    count = {"pyro": 7, "numpyro": 3}[backend]
    assert report["parameters"].message == f"gradients reach all {count} trainable parameters"
    assert report.program == "mine"


def test_methods_of_a_module_are_checked():
    owner = plain_pyro.Owner()
    report = check("pyro", owner.model, owner.guide)
    assert report.ok, str(report)
    assert report["sites"].message == "latent latent; observed obs"


@both
@pytest.mark.parametrize(
    ("guide", "rule", "words"),
    [
        ("leaky_guide", "rows", "site 'z' of the guide mixes rows"),
        ("dead_guide", "parameters", "no gradient reaches network 'unused'"),
        ("none", "sites", "site 'z' of the model is not in the guide"),
    ],
)
def test_broken_guides_are_caught(backend, guide, rule, words):
    report = check(backend, PROGRAMS[backend].model, getattr(PROGRAMS[backend], guide, lambda x: None))
    assert failed(report) == [rule], str(report)
    assert words in report[rule].message


@both
def test_a_field_that_the_data_lacks_is_named(backend):
    report = check(backend, lambda x, y: None, PROGRAMS[backend].guide)
    assert failed(report) == ["fields"], str(report)
    assert "needs 'y'" in report["fields"].message
