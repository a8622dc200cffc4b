"""Programs as pairs of functions of Pyro."""

import pyro
import torch

ENCODER = torch.nn.Sequential(torch.nn.BatchNorm1d(6), torch.nn.Linear(6, 6))
DECODER = torch.nn.Sequential(torch.nn.Linear(3, 6), torch.nn.Dropout(0.5))


def model(x):
    pyro.module("decoder", DECODER)
    scale = pyro.param("scale", torch.ones(3), constraint=pyro.distributions.constraints.positive)
    with pyro.plate("data", len(x)):
        z = pyro.sample("z", pyro.distributions.Normal(torch.zeros(3), scale).to_event(1))
        pyro.sample("x", pyro.distributions.Bernoulli(logits=DECODER[0](z)).to_event(1), obs=x)


def guide(x):
    pyro.module("encoder", ENCODER)
    with pyro.plate("data", len(x)):
        loc, raw = ENCODER(x).chunk(2, -1)
        pyro.sample("z", pyro.distributions.Normal(loc, raw.exp()).to_event(1))


def leaky_guide(x):
    pyro.module("encoder", ENCODER)
    with pyro.plate("data", len(x)):
        loc, raw = ENCODER(x - x.mean(0)).chunk(2, -1)
        pyro.sample("z", pyro.distributions.Normal(loc, raw.exp()).to_event(1))


def dead_guide(x):
    pyro.param("unused", torch.zeros(2))
    guide(x)


class Owner(torch.nn.Module):
    """Pyro's own example keeps model and guide as methods."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = torch.nn.Linear(6, 6), torch.nn.Linear(3, 6)

    def model(self, x):
        pyro.module("decoder", self.decoder)
        with pyro.plate("data", x.shape[0]):
            z = pyro.sample("latent", pyro.distributions.Normal(torch.zeros(3), 1.0).to_event(1))
            pyro.sample("obs", pyro.distributions.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("encoder", self.encoder)
        with pyro.plate("data", x.shape[0]):
            loc, raw = self.encoder(x).chunk(2, -1)
            pyro.sample("latent", pyro.distributions.Normal(loc, raw.exp()).to_event(1))
