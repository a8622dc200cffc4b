"""Probabilistic PCA as a variational autoencoder, all in closed form (Tipping & Bishop 1999).

z ~ N(0, I);   x | z ~ N(W z + b, sigma^2 I);   q(z | x) = N(A x + a, L L').
Then x ~ N(b, W W' + sigma^2 I), and the guide can be the exact posterior.
"""

from dataclasses import dataclass

from ppl_vae import Program


@dataclass(frozen=True)
class LinearGaussian(Program):
    x_shape: tuple[int, ...] | None = None  # filled in from the data
    z_dim: int = 2  # numbers of a latent
    sigma: float = 0.5  # of the noise, fixed

    def __post_init__(self):
        super().__post_init__()
        self.require(self.sigma > 0, f"sigma={self.sigma}: a standard deviation is above 0")

    def networks(self, nn):
        return {
            "encoder": nn.MLP(self.x_shape, (), self.z_dim),
            "scale_tril": nn.ScaleTril(self.z_dim),
            "decoder": nn.MLP(self.z_dim, (), self.x_shape),
        }

    def model(self, ppl, net, x=None):
        with ppl.minibatch(x):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            ppl.sample(
                "x", ppl.dist.Normal(net.decoder(z), ppl.array(self.sigma)).to_event(len(self.x_shape)), obs=x
            )

    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", ppl.dist.MultivariateNormal(net.encoder(x), scale_tril=net.scale_tril()))
