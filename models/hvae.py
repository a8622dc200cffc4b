"""Hierarchical variational autoencoder with a ladder guide (Sonderby et al. 2016, arXiv:1602.02282).

z_L ~ N(0, I);   z_l | z_(l+1) ~ N(prior_l(z_(l+1)));   x | z_1 ~ likelihood(decoder(z_1)).
q(z_L | x) = N(up_L);   q(z_l | z_(l+1), x) is proportional to N(up_l) N(prior_l(z_(l+1))).
Guide and model share the way down.
"""

from dataclasses import dataclass

from ppl_vae import Program
from ppl_vae.functions import ActivationName


@dataclass(frozen=True)
class HVAE(Program):
    x_shape: tuple[int, ...] | None = None  # filled in from the data
    z_dims: tuple[int, ...] = (64, 32)  # from the data upwards; any number of layers
    hidden: tuple[int, ...] = (512, 256)  # width of the networks of each layer
    likelihood: str = "bernoulli"  # of x given z_1
    activation: ActivationName = "relu"  # between layers

    def __post_init__(self):
        super().__post_init__()
        layers = len(self.z_dims) == len(self.hidden) > 0
        self.require(layers, f"z_dims={self.z_dims} and hidden={self.hidden} need one number for each layer")

    def networks(self, nn):
        below = (self.x_shape, *self.hidden[:-1])
        layers = range(len(self.z_dims) - 1)
        return {
            "up": [nn.MLP(b, (h,), h, self.activation) for b, h in zip(below, self.hidden, strict=True)],
            "posterior": [nn.MergedNormal(h, z) for h, z in zip(self.hidden, self.z_dims, strict=True)],
            "prior": [
                nn.NormalHead(
                    self.z_dims[i + 1], (self.hidden[i + 1],) * 2, self.z_dims[i], "mlp", self.activation
                )
                for i in layers
            ],
            "decoder": nn.Likelihood(
                self.likelihood, self.z_dims[0], (self.hidden[0],) * 2, self.x_shape, "mlp", self.activation
            ),
        }

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample(f"z_{len(self.z_dims)}", ppl.standard_normal(self.z_dims[-1]))
            for layer in reversed(range(len(self.z_dims) - 1)):
                loc, scale = net.prior[layer](z)
                z = ppl.sample(f"z_{layer + 1}", ppl.dist.Normal(loc, scale).to_event(1))
            ppl.sample("x", ppl.likelihood(self.likelihood, net.decoder(z)), obs=x)

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            path, h = [], x
            for up in net.up:
                h = up(h)
                path.append(h)
            down = None
            for layer in reversed(range(len(self.z_dims))):
                loc, scale = net.posterior[layer](path[layer], down)
                z = ppl.sample(f"z_{layer + 1}", ppl.dist.Normal(loc, scale).to_event(1))
                down = net.prior[layer - 1](z) if layer else None
