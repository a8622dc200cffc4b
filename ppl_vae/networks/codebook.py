"""The codebook of a VQ-VAE, learned by moving averages or by gradients."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

from ppl_vae.distributions.codebook import nearest
from ppl_vae.networks.base import Network


class Codes(NamedTuple):
    """What a codebook answers.

    Attributes
    ----------
    vectors : [K, D]
        The codebook that the codes refer to.
    logits : [K]
        Unnormalised log prior of the codes.
    index : [...] or None
        The nearest code of every vector that was asked for.
    """

    vectors: Any
    logits: Any
    index: Any


@dataclass(frozen=True)
class CodebookState(Network):
    """K vectors of D dimensions and a factorised prior over them.

    With `learning="ema"` the vectors are buffers, moved in train mode by the points that chose them; the
    first batch (the one that several devices share) places them on points of its own. With
    `learning="gradient"` they are parameters. A code whose moving average of use falls below a share `revive`
    of the mean use begins anew on a point of the batch; parameters get there by an offset of their own, a
    buffer, so that averages of weights follow, and what an optimizer remembers of them has died away
    meanwhile: a step of Adam is at most some three learning rates. Distances and vectors are always single
    precision or better.

    Parameters
    ----------
    size, dim : int
        K and D.
    decay : float
        Of the moving averages.
    learned_prior : bool
        Learn one categorical prior for all positions; else it is uniform.
    revive : float
        Share of the mean use below which a code is dead (0: none ever is).

    References
    ----------
    van den Oord et al., arXiv:1711.00937 (moving averages: appendix A.1); Dhariwal et al.,
    arXiv:2005.00341, section 3.1 (codes that begin anew).
    """

    single_precision: ClassVar[bool] = True

    size: int
    dim: int
    learning: Literal["ema", "gradient"] = "ema"
    decay: float = 0.99
    learned_prior: bool = False
    revive: float = 0.01

    def layers(self, nn):
        shape = (self.size, self.dim)
        vectors = nn.normal(shape)
        if self.learning == "ema":
            learned = {
                "vectors": nn.Buffer(shape, vectors),
                "sums": nn.Buffer(shape, vectors),
                "counts": nn.Buffer(self.size, 1.0),
            }
        else:
            learned = {
                "vectors": nn.Parameter(shape, vectors / self.size),
                "moved": nn.Buffer(shape),
                "counts": nn.Buffer(self.size, 1.0),
            }
        logits = (nn.Parameter if self.learned_prior else nn.Buffer)(self.size)
        return {"placed": nn.Buffer(())} | learned | {"logits": logits}

    @property
    def added(self):
        return ("moved", "counts") if self.learning == "gradient" else ()

    def apply(self, F, net, points=None):
        averaged = self.learning == "ema"
        vectors = net.vectors if averaged else net.vectors + net.moved
        if points is None:
            return Codes(vectors, net.logits, None)
        flat = F.astype(F.stop_gradient(points).reshape(-1, self.dim), vectors)
        if net.learns:
            fresh = F.spread(flat, self.size)
            vectors = F.where(net.placed > 0, vectors, fresh) if averaged else vectors
        index = nearest(F, F.stop_gradient(vectors), flat)
        if net.learns:
            learn = self._learn if averaged else self._revive
            learn(F, net, flat, F.one_hot(index, self.size, flat), vectors, fresh)
        return Codes(vectors, net.logits, index.reshape(points.shape[:-1]))

    def _learn(self, F: Any, net: Any, flat: Any, chosen: Any, vectors: Any, fresh: Any) -> None:
        before = F.where(net.placed > 0, net.sums, vectors)
        number, total = F.totals(chosen.sum(0), chosen.mT @ flat)
        dead, counts = self._use(F, net, number)
        sums = F.lerp(total, before, self.decay)
        sums = F.where(dead[..., None], counts[..., None] * fresh, sums)
        means = sums / F.clip(counts, low=1e-5)[..., None]
        net.keep(counts=counts, sums=sums, vectors=means, placed=F.ones((), counts))

    def _revive(self, F: Any, net: Any, flat: Any, chosen: Any, vectors: Any, fresh: Any) -> None:
        (number,) = F.totals(chosen.sum(0))
        dead, counts = self._use(F, net, number)
        there = net.moved + F.stop_gradient(fresh - vectors)
        net.keep(counts=counts, moved=F.where(dead[..., None], there, net.moved))

    def _use(self, F: Any, net: Any, number: Any) -> tuple[Any, Any]:
        """Return which codes are dead, and the moving averages of use; of a dead one the mean."""
        counts = F.lerp(number, net.counts, self.decay)
        dead = counts < self.revive * counts.mean()
        return dead, F.where(dead, counts.mean(), counts)
