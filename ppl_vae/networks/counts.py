"""Networks for tables of counts with a batch covariate and a size factor."""

from dataclasses import dataclass

from ppl_vae.networks.base import Network
from ppl_vae.networks.dense import MLP
from ppl_vae.networks.heads import NormalHead
from ppl_vae.shapes import Shape, as_shape, vector_shape


@dataclass(frozen=True)
class CountEncoder(Network):
    """log(1 + counts) [..., x_dim] and the batch [...] to a diagonal normal over [..., z_dim]."""

    x_shape: Shape
    num_batches: int
    hidden: Shape
    z_dim: int

    def layers(self, nn):
        (x_dim,) = vector_shape(self.x_shape)
        return {"head": NormalHead(x_dim + self.num_batches, self.hidden, self.z_dim)}

    def apply(self, F, net, x, batch):
        return net.head(F.concat([F.log1p(x), F.one_hot(batch, self.num_batches, x)], -1))


@dataclass(frozen=True)
class CountMean(Network):
    """Mean counts size * exp(f(z) + effect[batch]), [..., x_dim].

    The effect has shape [..., num_batches, x_dim]. Without a batch the first one is meant, without a size
    factor 1.
    """

    z_dim: int
    hidden: Shape
    x_shape: Shape

    def layers(self, nn):
        return {"body": MLP(self.z_dim, self.hidden, self.x_shape)}

    def start(self, rows):
        if "x" not in rows or rows["x"].shape[1:] != as_shape(self.x_shape):
            return {}
        from ppl_vae.likelihoods import starts  # NumPy and SciPy, which declarations do without

        size = rows["size"].mean() if "size" in rows else 1.0
        biases = MLP(self.z_dim, self.hidden, self.x_shape).biases(
            starts.log_mean(rows["x"]) - starts.log(size)
        )
        return {f"body.{name}": values for name, values in biases.items()}

    def apply(self, F, net, z, effect, batch=None, size=None):
        if batch is None:
            shift = effect[..., 0, :]
        else:
            # A matrix product, so that leading axes of the effect (particles) broadcast against rows.
            chosen = F.one_hot(batch, effect.shape[-2], effect)
            shift = (chosen[..., None, :] @ effect).squeeze(-2)
        mean = F.exp(net.body(z) + shift)
        return mean if size is None else mean * size[..., None]
