"""The network whose output is the parameters of a named likelihood."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ppl_vae import likelihoods
from ppl_vae.networks.base import Network
from ppl_vae.networks.convolutional import ConvUp
from ppl_vae.networks.dense import MLP
from ppl_vae.networks.heads import check_body, positive
from ppl_vae.shapes import Shape, as_shape

BODIES = {"mlp": MLP, "conv": ConvUp}


class LikelihoodParameters(NamedTuple):
    """The parameters of a likelihood, each [..., *x_shape] (class logits: [..., *x_shape, K]), and how many
    axes an observation has.
    """

    values: tuple[Any, ...]
    event_dim: int


@dataclass(frozen=True)
class Likelihood(Network):
    """[..., z_dim] to the parameters of a named likelihood over [..., *x_shape]; owns shared sigmas.

    `body_kind` is mlp or conv.
    """

    likelihood: str
    z_dim: Shape
    hidden: Shape
    x_shape: Shape
    body_kind: str = "mlp"
    activation: str = "relu"

    def __post_init__(self):
        super().__post_init__()
        likelihoods.parse(self.likelihood)
        check_body(self, self.body_kind, BODIES)

    @property
    def kind(self) -> likelihoods.Likelihood:
        """The likelihood's name and number."""
        return likelihoods.parse(self.likelihood)

    @property
    def outputs(self) -> int:
        """How many numbers the body gives for each of the observation's."""
        if self.kind.name == "categorical":
            return self.kind.count
        return {"normal_predicted": 2, "discretized_logistic": 2}.get(self.kind.name, 1)

    def layers(self, nn):
        x_shape = as_shape(self.x_shape)
        out_shape = (self.outputs * x_shape[0], *x_shape[1:])
        free = {"normal": (), "normal_per_dim": x_shape, "negative_binomial": x_shape}.get(self.kind.name)
        body = BODIES[self.body_kind](self.z_dim, self.hidden, out_shape, self.activation)
        return {"body": body} | ({} if free is None else {"raw": nn.Parameter(free)})

    def apply(self, F, net, z):
        flat, axes = net.body(z), len(as_shape(self.x_shape))
        out = flat.reshape(*flat.shape[: flat.ndim - axes], self.outputs, *as_shape(self.x_shape))
        return LikelihoodParameters(self._values(F, net, F.moveaxis(out, -1 - axes, 0)), axes)

    def _values(self, F: Any, net: Any, out: Any) -> tuple[Any, ...]:
        name = self.kind.name
        if name in ("normal", "normal_per_dim"):
            return out[0], F.broadcast_to(positive(F, net.raw), out[0].shape)
        if name == "normal_fixed":
            return out[0], F.full(out[0].shape, self.kind.number, out[0])
        if name == "normal_predicted":
            return out[0], positive(F, out[1])
        if name == "discretized_logistic":
            # The logistic scale starts near 0.1, a tenth of the range of grey levels.
            return F.sigmoid(out[0]), positive(F, out[1] - 2.0)
        if name == "negative_binomial":
            return F.exp(out[0]), F.broadcast_to(positive(F, net.raw), out[0].shape)
        if name == "poisson":
            return (F.exp(out[0]),)
        if name == "categorical":
            return (F.moveaxis(out, 0, -1),)
        return (out[0],)
