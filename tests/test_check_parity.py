"""The rule of parity: one program, the same densities on both backends."""

import pytest
from toys import BITS, COUNTS, Toy

from ppl_vae import contract
from ppl_vae.backends.numpyro.check import probe
from ppl_vae.backends.pyro.check import probe as pyro_probe

BOTH = {"numpyro": probe, "pyro": pyro_probe}


def failed(report):
    return [finding.name for finding in report.failed]


class Twins(Toy):
    backends = ("pyro", "numpyro")


class OtherActivation(Twins):
    def networks(self, nn):
        activation = "tanh" if hasattr(nn, "rngs") else "relu"
        return super().networks(nn) | {
            "encoder": nn.NormalHead(self.x_shape, 8, self.z_dim, "mlp", activation)
        }


class OtherLayers(Twins):
    def networks(self, nn):
        hidden = (8, 8) if hasattr(nn, "rngs") else (8,)
        return super().networks(nn) | {"encoder": nn.NormalHead(self.x_shape, hidden, self.z_dim)}


class OneSided(Twins):
    def networks(self, nn):
        head = nn.Missing if hasattr(nn, "rngs") else nn.NormalHead
        return super().networks(nn) | {"encoder": head(self.x_shape, 8, self.z_dim)}


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (OtherActivation, "site 'z' of the guide differs by up to"),
        (OtherLayers, "the weights do not fit the program"),
    ],
)
def test_twins_that_differ_are_caught(kind, words):
    report = contract.check(kind(), BITS, BOTH, "pyro")
    assert failed(report) == ["parity"], str(report)
    assert words in report["parity"].message


def test_a_program_that_fails_on_its_twin_is_caught():
    report = contract.check(OneSided(), BITS, BOTH, "pyro")
    assert failed(report) == ["parity"], str(report)
    message = report["parity"].message
    assert (
        message.startswith("on numpyro: the method networks fails")
        and "there is no layer or network 'Missing'" in message
    )
    assert 'backends = ("pyro",)' in message


def test_sites_that_only_one_twin_has_are_named():
    class Named(Twins):
        def guide(self, ppl, net, x):
            with ppl.minibatch(x):
                loc, scale = net.encoder(x)
                ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))
                if "numpyro" in type(ppl).__module__:
                    ppl.factor("penalty", 0 * loc.sum(-1))

    report = contract.check(Named(), BITS, BOTH, "pyro")
    assert failed(report) == ["parity"], str(report)
    message = report["parity"].message
    assert "site 'penalty' of the guide is missing on one side" in message
    assert message.endswith(": use networks that both have")


def test_without_the_twin_parity_is_skipped():
    report = contract.check(Twins(), BITS, {"pyro": pyro_probe}, "pyro")
    assert report["parity"].message == "numpyro is not installed: pip install 'ppl-vae[numpyro]'"
    assert report.ok


@pytest.mark.parametrize("backend", BOTH)
def test_data_outside_the_support_explain_a_gap(backend):
    """There the two backends may extrapolate differently."""
    report = contract.check(Twins(), COUNTS, BOTH, backend)
    assert failed(report) == ["support"]
    assert report["parity"].message in ("needs 'support'", "needs 'seeds'")
