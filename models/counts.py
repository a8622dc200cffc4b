"""Latent variables of count tables (Lopez et al. 2018, doi:10.1038/s41592-018-0229-2).

effect_b ~ N(0, I) for each batch b and dispersion ~ LogNormal(0, 1), both global;
z ~ N(0, I);   x | z ~ NegativeBinomial(mean = size * exp(f(z) + effect_b), concentration = dispersion).
q(effect) and q(dispersion) are free;   q(z | x, b) = N(encoder(log(1 + x), b)).
"""

from dataclasses import dataclass
from typing import Literal

from ppl_vae import Program


@dataclass(frozen=True)
class Counts(Program):
    x_shape: tuple[int, ...] | None = None  # filled in from the data
    num_batches: int | None = None  # filled in from the data
    z_dim: int = 5  # numbers of a latent
    hidden: tuple[int, ...] = (64,)  # widths of the encoder
    decoder_hidden: tuple[int, ...] = (64,)  # (): a linear decoder, whose weights can be read
    likelihood: Literal["negative_binomial", "poisson"] = "negative_binomial"  # of x given z

    def adapted_to(self, data):
        program = super().adapted_to(data)
        return program.filled(num_batches=lambda: self.num_classes(data, "batch"))

    def networks(self, nn):
        return {
            "encoder": nn.CountEncoder(self.x_shape, self.num_batches, self.hidden, self.z_dim),
            "mean": nn.CountMean(self.z_dim, self.decoder_hidden, self.x_shape),
            "effect": nn.FreeNormal((self.num_batches, *self.x_shape)),
            "dispersion": nn.FreeNormal(self.x_shape),
        }

    def model(self, ppl, net, x=None, batch=None, size=None):
        (genes,) = self.x_shape
        effect = ppl.sample("effect", ppl.standard_normal((self.num_batches, genes)))
        dispersion = ppl.sample(
            "dispersion", ppl.dist.LogNormal(ppl.F.zeros((genes,), effect), ppl.array(1.0)).to_event(1)
        )
        with ppl.minibatch(x, batch, size):
            z = ppl.sample("z", ppl.standard_normal(self.z_dim))
            mean = net.mean(z, effect, batch, size)
            if self.likelihood == "poisson":
                counts = ppl.dist.Poisson(mean)
            else:
                counts = ppl.dist.NegativeBinomial2(mean, dispersion)
            ppl.sample("x", counts.to_event(1), obs=x)

    def guide(self, ppl, net, x, batch, size=None):
        effect, dispersion = net.effect(), net.dispersion()
        ppl.sample("effect", ppl.dist.Normal(effect.loc, effect.scale).to_event(2))
        ppl.sample("dispersion", ppl.dist.LogNormal(dispersion.loc, dispersion.scale).to_event(1))
        with ppl.minibatch(x, batch, size):
            loc, scale = net.encoder(x, batch)
            ppl.sample("z", ppl.dist.Normal(loc, scale).to_event(1))
