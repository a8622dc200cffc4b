"""The network whose output is the parameters of a named likelihood."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ppl_vae import likelihoods
from ppl_vae.functions import ActivationName
from ppl_vae.networks.base import Network
from ppl_vae.networks.convolutional import ConvUp
from ppl_vae.networks.dense import MLP
from ppl_vae.networks.heads import Body
from ppl_vae.shapes import Shape, as_shape

BODIES = {"mlp": MLP, "conv": ConvUp}


class LikelihoodParameters(NamedTuple):
    """The parameters of a likelihood, each [..., *x_shape] (class logits: [..., *x_shape, K]), how many axes
    an observation has, and the network that gave them.
    """

    values: tuple[Any, ...]
    event_dim: int
    network: Any = None


@dataclass(frozen=True)
class Likelihood(Network):
    """[..., z_dim] to the parameters of a named likelihood over [..., *x_shape]; owns shared sigmas."""

    likelihood: str | likelihoods.Likelihood
    z_dim: Shape
    hidden: Shape
    x_shape: Shape
    body_kind: Body = "mlp"
    activation: ActivationName = "relu"

    def __post_init__(self):
        super().__post_init__()
        likelihoods.parse(self.likelihood)

    @property
    def kind(self) -> likelihoods.Likelihood:
        """The likelihood itself."""
        return likelihoods.parse(self.likelihood)

    @property
    def body(self) -> Network:
        """What gives the outputs, those of a number of an observation side by side in its first axis."""
        first, *others = as_shape(self.x_shape)
        out_shape = (self.kind.outputs * first, *others)
        return BODIES[self.body_kind](self.z_dim, self.hidden, out_shape, self.activation)

    def layers(self, nn):
        free = self.kind.free(as_shape(self.x_shape))
        return {"body": self.body} | ({} if free is None else {"raw": nn.Parameter(free)})

    def start(self, rows):
        x_shape = as_shape(self.x_shape)
        scored = [values for values in rows.values() if values.shape[-len(x_shape) :] == x_shape]
        if not scored:
            return {}
        from ppl_vae.likelihoods import starts  # NumPy and SciPy, which declarations do without

        found = self.kind.start(starts, scored[0].reshape(-1, *x_shape))
        if found is None:
            return {}
        biases = self.body.biases(found.outputs.reshape(self.body.out_shape))
        return {f"body.{name}": values for name, values in biases.items()} | (
            {} if found.free is None else {"raw": found.free}
        )

    def apply(self, F, net, z):
        kind, x_shape = self.kind, as_shape(self.x_shape)
        flat, axes = net.body(z), len(x_shape)
        out = flat.reshape(*flat.shape[: flat.ndim - axes], kind.outputs, *x_shape)
        outputs = F.to_single(F.moveaxis(out, -1 - axes, 0))
        free = None if kind.free(x_shape) is None else net.raw
        return LikelihoodParameters(kind.parameters(F, outputs, free), axes, self)
