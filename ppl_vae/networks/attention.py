"""Multi-head attention over sequences [..., T, C]."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from ppl_vae.networks.base import Network


class Memory(NamedTuple):
    """Keys and values of what was attended to so far, each [..., heads, T, C / heads]."""

    key: Any
    value: Any


@dataclass(frozen=True)
class Attention(Network):
    """softmax(q k' / sqrt(C / heads)) v in each of `heads` parts of the channels, between linear maps.

    Parameters
    ----------
    width : int
        Channels C of queries and of the output.
    heads : int
        C is a multiple of them.
    context : int or None
        Channels of what is attended to; None: `width`.
    causal : bool
        A query sees the keys up to its own place.

    References
    ----------
    Vaswani et al., arXiv:1706.03762, section 3.2.2.
    """

    width: int
    heads: int = 1
    context: int | None = None
    causal: bool = False

    def __post_init__(self):
        super().__post_init__()
        self.require(self.width % self.heads == 0, f"width={self.width} is no multiple of heads={self.heads}")

    def layers(self, nn):
        inputs = {"query": self.width, "key": self.context, "value": self.context, "out": self.width}
        return {name: nn.Linear(size or self.width, self.width) for name, size in inputs.items()}

    def apply(self, F, net, x, context=None, memory=None):
        """Attend from `x` [..., T, C] to `context` [..., S, context] (None: to `x` itself).

        With a `memory` (an empty tuple at first) return the output and a memory that holds the new keys and
        values too: a sequence may then be given piece by piece.
        """
        context = x if context is None else context
        query, key, value = (
            self._heads(F, net.query(x)),
            *(self._heads(F, f(context)) for f in (net.key, net.value)),
        )
        if memory:
            key, value = (F.concat([old, new], -2) for old, new in zip(memory, (key, value), strict=True))
        out = net.out(self._joined(F, F.attention(query, key, value, self.causal)))
        return out if memory is None else (out, Memory(key, value))

    def _heads(self, F: Any, x: Any) -> Any:
        """[..., T, C] to [..., heads, T, C / heads]."""
        return F.moveaxis(x.reshape(*x.shape[:-1], self.heads, self.width // self.heads), -2, -3)

    def _joined(self, F: Any, x: Any) -> Any:
        """[..., heads, T, C / heads] to [..., T, C]."""
        x = F.moveaxis(x, -3, -2)
        return x.reshape(*x.shape[:-2], self.width)
