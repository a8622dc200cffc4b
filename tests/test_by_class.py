"""A global latent by class: how its entries are picked, and what is said of a way that makes another axis."""

from dataclasses import dataclass

import numpy as np
import pytest

from ppl_vae import Program, bind, check, data
from ppl_vae.backends import backend as backend_named
from ppl_vae.errors import ProgramError

X = np.random.default_rng(0).normal(size=(24, 5)).astype("f")
Y = np.arange(24) % 3


@dataclass(frozen=True)
class ByClass(Program):
    """z ~ N(means[y], I), x ~ N(decoder(z), 1), means ~ N(0, I)."""

    how: str = "weights"

    def networks(self, nn):
        return {
            "encoder": nn.NormalHead(5, (), 2),
            "decoder": nn.Linear(2, 5),
            "q": nn.FreeNormal((3, 2)),
        }

    def model(self, ppl, net, y, x=None):
        F = ppl.F
        a = ppl.sample("means", ppl.standard_normal((3, 2)))
        with ppl.minibatch(x, y):
            if self.how == "weights":
                loc = F.sum(F.one_hot(y, 3, a)[..., None] * a, -2)
            else:
                loc = a[..., y, :] if self.how == "index" else F.one_hot(y, 3, a) @ a
            z = ppl.sample("z", ppl.dist.Normal(loc, 1.0).to_event(1))
            ppl.sample("x", ppl.dist.Normal(net.decoder(z), 1.0).to_event(1), obs=x)

    def guide(self, ppl, net, x, y):
        q = net.q()
        ppl.sample("means", ppl.dist.Normal(q.loc, q.scale).to_event(2))
        with ppl.minibatch(x, y):
            ppl.sample("z", ppl.dist.Normal(*net.encoder(x)).to_event(1))


def drawn(how, backend):
    verbs = backend_named(backend)
    return verbs.draws(bind(ByClass(how), backend, num_data=24), {"x": X[:4], "y": Y[:4]}, 600)


@pytest.mark.parametrize("backend", ["pyro", "numpyro"])
def test_entries_picked_by_weights_belong_to_their_draws(backend):
    found = drawn("weights", backend)
    assert found.posterior["means"].shape == (600, 3, 2) and found.posterior["z"].shape == (600, 4, 2)
    gap = found.prior["z"] - found.prior["means"][:, Y[:4]]
    assert abs(gap.mean()) < 4.5 / np.sqrt(gap.size) and abs(gap.std() - 1) < 4.5 / np.sqrt(2 * gap.size)


@pytest.mark.parametrize("how", ["index", "product"])
def test_a_way_that_makes_an_axis_of_the_particles_is_told_the_other(how):
    with pytest.raises(ProgramError, match=r"site 'z' has batch shape .*global latent.*F.one_hot"):
        drawn(how, "pyro")


def test_the_check_tells_it_too():
    finding = check(ByClass("index"), data.of({"x": X, "y": Y}), backend="pyro")["particles"]
    assert finding.status == "failed"
    assert "densities of shape" in finding.message and "F.one_hot" in finding.message
