"""Variational autoencoder (Kingma & Welling 2014, arXiv:1312.6114).

z ~ N(0, I);   x | z ~ likelihood(decoder(z));   q(z | x) = N(encoder(x)).
With a mask only numbers that were observed count; the encoder sees the others as 0.
"""

from dataclasses import dataclass
from typing import Literal

from ppl_vae import Program
from ppl_vae.functions import ActivationName


@dataclass(frozen=True)
class VAE(Program):
    x_shape: tuple[int, ...] | None = None  # filled in from the data
    z_dim: int = 50  # numbers of a latent
    hidden: tuple[int, ...] = (400,)  # widths of the encoder, backwards those of the decoder
    likelihood: str = "bernoulli"  # of x given z
    network: Literal["mlp", "conv"] = "mlp"  # conv: other networks, the same program
    activation: ActivationName = "relu"  # between layers

    def networks(self, nn):
        return {
            "encoder": nn.NormalHead(self.x_shape, self.hidden, self.z_dim, self.network, self.activation),
            "decoder": nn.Likelihood(
                self.likelihood, self.z_dim, self.hidden[::-1], self.x_shape, self.network, self.activation
            ),
        }

    def model(self, ppl, net, x=None, mask=None):
        with ppl.minibatch(x, mask):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z), mask), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            loc, scale = net.encoder(x)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))
