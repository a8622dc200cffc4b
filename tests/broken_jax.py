"""Programs that are broken in the words of JAX and NumPyro."""

from dataclasses import dataclass

import numpyro
import numpyro.distributions as dist
from toys import Function, Linear, breaks


@breaks("seeds", ["another seed gives the same draws"], backends=("numpyro",))
class OwnKey(Linear):
    def guide(self, ppl, net, x):
        with numpyro.handlers.seed(rng_seed=0):
            super().guide(ppl, net, x)


@breaks(
    "batch", ["network 'decoder' (called by the model) fails in broken_jax.py, line"], backends=("numpyro",)
)
class Undecided(Linear):
    def decoder(self):
        return Function(self.z_dim, 6, lambda F, layer, z: layer(z) if z.sum() > 0 else layer(-z))


class Shifted(dist.Normal):
    def log_prob(self, value):
        return super().log_prob(value) + 5.0


@breaks("bound", ["its KL, log_prob or sampler is wrong"], backends=("numpyro",))
@dataclass(frozen=True)
class WrongDensity(Linear):
    def guide(self, ppl, net, x):
        with ppl.minibatch(x):
            ppl.sample("z", Shifted(*net.encoder(x)).to_event(1))
