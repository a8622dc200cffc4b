"""Recurrent layers over sequences [..., T, C]."""

from torch import Tensor, nn


class GRU(nn.GRU):
    """A gated recurrent unit (Cho et al., arXiv:1406.1078), [..., T, inputs] to [..., T, hidden].

    Also returns the last state [..., hidden], which a later call takes as `state` (None: zeros).
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        start = None if state is None else _flat(state, x)
        out, last = super().forward(x.reshape(-1, *x.shape[-2:]), start)
        return out.reshape(*x.shape[:-1], -1), last.reshape(*x.shape[:-2], -1)


class LSTM(nn.LSTM):
    """A long short-term memory (Hochreiter & Schmidhuber 1997), [..., T, inputs] to [..., T, hidden].

    Also returns the last state, (output, cell) of [..., hidden] each, which a later call takes as `state`.
    """

    def __init__(self, inputs: int, hidden: int):
        super().__init__(inputs, hidden, batch_first=True)

    def forward(self, x: Tensor, state: tuple[Tensor, Tensor] | None = None):
        start = None if state is None else tuple(_flat(part, x) for part in state)
        out, last = super().forward(x.reshape(-1, *x.shape[-2:]), start)
        return out.reshape(*x.shape[:-1], -1), tuple(part.reshape(*x.shape[:-2], -1) for part in last)


def _flat(state: Tensor, x: Tensor) -> Tensor:
    return state.expand(*x.shape[:-2], -1).reshape(1, -1, state.shape[-1])
