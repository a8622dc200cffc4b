"""Recurrent layers over sequences [..., T, C], with the names and the layout of torch's weights."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from ppl_vae.backends.numpyro.layers.arrays import within


class _Recurrent(nnx.Module):
    """Gates from input and state, one step after the other."""

    gates: int

    def __init__(self, inputs: int, hidden: int, *, rngs: nnx.Rngs):
        init, rows = within(hidden), self.gates * hidden
        shapes = {
            "weight_ih": (rows, inputs),
            "weight_hh": (rows, hidden),
            "bias_ih": (rows,),
            "bias_hh": (rows,),
        }
        self.hidden = hidden
        for name, shape in shapes.items():
            setattr(self, f"{name}_l0", nnx.Param(init(rngs.params(), shape)))

    def _run(self, x: Array, start: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Return all outputs and the last state; every part of the state is [..., hidden]."""
        inputs = x @ self.weight_ih_l0[...].T + self.bias_ih_l0[...]
        weight, bias = self.weight_hh_l0[...].T, self.bias_hh_l0[...]

        def step(state: tuple[Array, ...], given: Array) -> tuple[tuple[Array, ...], Array]:
            state = self._step(given, state[0] @ weight + bias, state)
            return state, state[0]

        start = tuple(
            jnp.broadcast_to(part, (*x.shape[:-2], self.hidden)).astype(inputs.dtype) for part in start
        )
        last, out = lax.scan(step, start, jnp.moveaxis(inputs, -2, 0))
        return jnp.moveaxis(out, 0, -2), last


class GRU(_Recurrent):
    """A gated recurrent unit (Cho et al., arXiv:1406.1078), [..., T, inputs] to [..., T, hidden].

    Also returns the last state [..., hidden], which a later call takes as `state` (None: zeros).
    """

    gates = 3

    def __call__(self, x: Array, state: Array | None = None) -> tuple[Array, Array]:
        out, (last,) = self._run(x, (jnp.zeros(self.hidden) if state is None else state,))
        return out, last

    def _step(self, given: Array, recurrent: Array, state: tuple[Array]) -> tuple[Array]:
        (reset_x, update_x, new_x), (reset_h, update_h, new_h) = (
            jnp.split(part, 3, -1) for part in (given, recurrent)
        )
        update = jax.nn.sigmoid(update_x + update_h)
        new = jnp.tanh(new_x + jax.nn.sigmoid(reset_x + reset_h) * new_h)
        return ((1 - update) * new + update * state[0],)


class LSTM(_Recurrent):
    """A long short-term memory (Hochreiter & Schmidhuber 1997), [..., T, inputs] to [..., T, hidden].

    Also returns the last state, (output, cell) of [..., hidden] each, which a later call takes as `state`.
    """

    gates = 4

    def __call__(
        self, x: Array, state: tuple[Array, Array] | None = None
    ) -> tuple[Array, tuple[Array, Array]]:
        return self._run(x, (jnp.zeros(self.hidden),) * 2 if state is None else state)

    def _step(self, given: Array, recurrent: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        enter, forget, new, leave = jnp.split(given + recurrent, 4, -1)
        cell = jax.nn.sigmoid(forget) * state[1] + jax.nn.sigmoid(enter) * jnp.tanh(new)
        return jax.nn.sigmoid(leave) * jnp.tanh(cell), cell
