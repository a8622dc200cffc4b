"""The contract of programs that are two functions of a library."""

from dataclasses import dataclass

import plain_numpyro
import plain_pyro
import pytest
import torch
from flax import nnx
from numpyro.contrib.module import nnx_module
from toys import BITS, Toy

from ppl_vae import contract, fit
from ppl_vae.backends.numpyro.check import probe as numpyro_probe
from ppl_vae.backends.pyro.check import probe as pyro_probe
from ppl_vae.errors import ProgramError
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
    assert skipped["prior"] == "sample and decode do not apply: two functions need data"
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


FEATURES = {"pyro": {"in a dict": torch.nn.Linear(6, 6)}, "numpyro": nnx.Linear(6, 6, rngs=nnx.Rngs(0))}


def featured_guide(x):
    features = [FEATURES["pyro"][name] for name in ["in a dict"]]
    plain_pyro.guide(features[0](x))


def jax_featured_guide(x, features=FEATURES["numpyro"]):
    plain_numpyro.guide(features(x))


def test_a_network_that_nothing_registers_is_named():
    report = check("pyro", plain_pyro.model, featured_guide)
    assert failed(report) == ["parameters"]
    assert "nothing trains \"FEATURES['pyro']['in a dict']\"" in report["parameters"].message
    assert "pyro.module, or freeze it on purpose" in report["parameters"].message
    frozen = FEATURES["pyro"]["in a dict"].requires_grad_(False)
    assert check("pyro", plain_pyro.model, featured_guide).ok
    frozen.requires_grad_(True)


def test_a_module_of_flax_that_nothing_registers_is_named_and_one_that_is_registered_is_not():
    def registered(x):
        plain_numpyro.guide(nnx_module("features", FEATURES["numpyro"])(x))

    report = check("numpyro", plain_numpyro.model, jax_featured_guide)
    assert failed(report) == ["parameters"]
    assert "nothing trains 'jax_featured_guide'" in report["parameters"].message
    assert "register it with numpyro.contrib.module.nnx_module" in report["parameters"].message
    assert check("numpyro", plain_numpyro.model, registered).ok
    with pytest.raises(ProgramError, match="the run would not keep its weights"):
        fit(
            PlainProgram(plain_numpyro.model, jax_featured_guide, "mine", "numpyro"),
            BITS,
            max_steps=1,
            batch_size=8,
        )


@dataclass(frozen=True)
class Outside(Toy):
    """A network of the file beside those of the program."""

    backends = ("pyro", "numpyro")
    backend: str = "pyro"

    def guide(self, ppl, net, x):
        outside = FEATURES["pyro"]["in a dict"] if self.backend == "pyro" else FEATURES["numpyro"]
        super().guide(ppl, net, x + 0 * outside(ppl.F.zeros((6,), x)).sum())


@both
def test_a_network_outside_of_a_program_is_refused_by_name(backend):
    with pytest.raises(ProgramError, match=r"nothing trains .*FEATURES.*: return it from networks\(\)"):
        fit(Outside(backend=backend), BITS, backend=backend, max_steps=1, batch_size=8)


@both
def test_a_field_that_the_data_lacks_is_named(backend):
    report = check(backend, lambda x, y: None, PROGRAMS[backend].guide)
    assert failed(report) == ["fields"], str(report)
    assert "needs 'y'" in report["fields"].message
