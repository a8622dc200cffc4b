"""Normalization by statistics of the batch."""

from dataclasses import dataclass
from typing import Any, ClassVar

from ppl_vae.networks.base import Network


@dataclass(frozen=True)
class BatchNorm(Network):
    """Batch normalization of the last axis, or of channels with `spatial` axes behind them: 2 for images.

    The running variance is the biased one, so that weights carry over between backends. Statistics are
    written in train mode only, and only by the guide: a network that the model calls too normalizes there
    without writing. On several devices they are those of the batch that the devices share.
    """

    from_zero: ClassVar[tuple[str, ...]] = ("spatial",)

    features: int
    spatial: int = 0
    momentum: float = 0.1
    epsilon: float = 1e-5

    def layers(self, nn):
        return {
            "weight": nn.Parameter(self.features, 1.0),
            "bias": nn.Parameter(self.features),
            "mean": nn.Buffer(self.features),
            "var": nn.Buffer(self.features, 1.0),
        }

    def apply(self, F, net, x):
        mean, var = running = net.mean, net.var
        if net.training:
            mean, var = F.moments(
                x, tuple(axis for axis in range(x.ndim) if axis != x.ndim - 1 - self.spatial)
            )
        if net.learns:
            mean_now, var_now = (self._moved(F, *pair) for pair in zip(running, (mean, var), strict=True))
            net.keep(mean=mean_now, var=var_now)
        gain, tail = net.weight * F.rsqrt(var + self.epsilon), (1,) * self.spatial
        return x * gain.reshape(-1, *tail) + (net.bias - mean * gain).reshape(-1, *tail)

    def _moved(self, F: Any, old: Any, new: Any) -> Any:
        return F.lerp(old, F.astype(new, old), self.momentum)
