"""Stochastic variational inference with NumPyro: chunks of steps as one compiled loop on the device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random

from ppl_vae.backends.numpyro.carry import STATE, Carry, Kept, copied, from_bytes, to_bytes
from ppl_vae.backends.numpyro.devices import Devices
from ppl_vae.backends.numpyro.evaluate import score
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.options import Training
from ppl_vae.training import Advance, OneProcess

TRAINING = 1  # the stream of training's noise, apart from those of weights and of scores
AT_ONCE = 100  # steps in one call: how long a stop request may wait


def make_optimizer(options: Training) -> optax.GradientTransformation:
    """Return the optimizer for a learning rate of 1, by torch's formulas.

    Weight decay is decoupled for adamw and part of the gradient for adam and adamax.
    """
    (b1, b2), eps = options.betas, options.eps
    decay = optax.add_decayed_weights(options.weight_decay) if options.weight_decay else optax.identity()
    if options.optimizer == "adamax":
        return optax.chain(decay, optax.scale_by_adamax(b1, b2, eps))
    moments = optax.scale_by_adam(b1, b2, eps)
    return optax.chain(moments, decay) if options.optimizer == "adamw" else optax.chain(decay, moments)


class Engine(OneProcess):
    """Optimizer steps on a bound program; see `ppl_vae.training.Engine` for what each method promises.

    Parameters
    ----------
    bound : Bound or PlainBound
    objective : objective of ppl_vae, numpyro.infer.ELBO or callable
    options : Training
    train : dict of arrays, or None
        Rows to train on, moved to the device at once. None: items are batches themselves.
    valid : dict of arrays, or None
        Rows to validate on.
    num_data : int
        Rows of the training set.
    dynamic : bool
        Draw new bits of `x` at every step.
    compile : str
        For Pyro: here every step is compiled.
    steps : int
        Steps to come; for Pyro.
    """

    def __init__(
        self,
        bound: Any,
        objective: Any,
        options: Training,
        *,
        train: Mapping[str, np.ndarray] | None = None,
        valid: Mapping[str, np.ndarray] | None = None,
        num_data: int,
        dynamic: bool = False,
        compile: str = "on",
        steps: int = 0,
    ):
        self.options, self.valid, self.dynamic, self.compile = options, valid, dynamic, compile
        self.devices = Devices(options.device, options.devices)
        if train is not None:
            self.devices.check_fits(options.batch_size)
        self.bound = bound.to(self.devices.first)
        bound.num_data = num_data
        self.autocast = jnp.bfloat16 if options.precision == "bf16-mixed" else None
        self.loss, self.optimizer = Objective(bound, objective, num_data), make_optimizer(options)
        self.data = train and self.devices.put({n: train[n] for n in bound.fields if n in train})
        self.carry: Carry | None = None
        self.best: Kept | None = None
        self._capacity = min(options.log_every, AT_ONCE)
        # A GPU asks the host before each step of a loop of unknown length. A CPU has nothing to ask, and is
        # spared the second compilation.
        self._scans = self.devices.first.platform != "cpu"
        self._pending: bytes | None = None
        self._inner = jax.jit(self._step)  # traced once, whatever it is part of
        self._many, self._one = (jax.jit(part, donate_argnums=0) for part in (self._steps, self._inner))

    def _prepare(self, batch: Mapping[str, Array]) -> None:
        """Before the first step: parameters exist after one run of the program, which is checked."""
        self.bound.eval()
        self.bound.ensure_parameters(batch)
        self.loss.check(batch)
        if self.data is None and self.options.accumulate > 1:  # a loader's batches have a size of their own
            self.options = replace(self.options, batch_size=len(next(iter(batch.values()))))
        params = self.bound.trainable()
        average = params if self.options.ema else None
        key = random.fold_in(random.key(self.options.seed), TRAINING)
        carry = Carry(params, self.optimizer.init(params), self.bound.state, average, key)
        self.carry = self.devices.put(copied(carry))
        if self._pending is not None:
            self._apply(self._pending)

    def batch(self, item: Any) -> dict[str, Array]:
        """Return the batch of row numbers, or of what a user's loader yields, on the devices."""
        if self.data is None:
            return self.devices.put_batch(self.bound.as_batch(item))
        return {name: array[item] for name, array in self.data.items()}

    def advance(
        self, items: Sequence[Any], lr: np.ndarray, weight: np.ndarray, stop: Callable[[], bool]
    ) -> Advance:
        if self.carry is None:
            first = jax.device_put(self.batch(items[0]), self.devices.first)
            self._prepare(first | {"x": jnp.round(first["x"])} if self.dynamic else first)
        self.bound.train()
        self.bound.autocast = self.autocast
        rates, weights = (np.asarray(values, np.float32) for values in (lr, weight))
        sums, done = None, 0
        try:
            while done < len(items) and not stop():
                count = self._alike(items, done)
                found = self._take(items[done : done + count], rates[done:], weights[done:])
                sums = found if sums is None else jax.tree.map(jnp.add, sums, found)
                done += count
        finally:
            self.bound.autocast = None  # bounds are computed in single precision
        self._show_present()
        return Advance(
            done, {name: float(value) / done for name, value in jax.device_get(sums or {}).items()}
        )

    def _alike(self, items: Sequence[Any], start: int) -> int:
        """Return how many items from `start` on run in one call: batches of one size."""
        if self.data is None:
            return 1
        most = min(len(items) - start, self._capacity)
        return next((n for n in range(1, most) if len(items[start + n]) != len(items[start])), most)

    def _take(self, items: Sequence[Any], lr: np.ndarray, weight: np.ndarray) -> dict[str, Array]:
        if self.data is None:
            self.carry, metrics = self._one(self.carry, self.batch(items[0]), lr[0], weight[0])
            return metrics
        # The tables have one length, so that one compilation serves chunks of any number of steps.
        count, size = len(items), (self._capacity,)
        index = np.zeros(size + items[0].shape, np.int32)
        rates, weights = np.zeros(size, np.float32), np.zeros(size, np.float32)
        index[:count], rates[:count], weights[:count] = np.stack(items), lr[:count], weight[:count]
        known = self._scans and count == self._capacity > 1
        steps = (index, rates, weights, None if known else count)
        self.carry, metrics = self._many(self.carry, self.data, *steps)
        return metrics

    def _steps(
        self, carry: Carry, data: Any, index: Array, lr: Array, weight: Array, count: Array | None
    ) -> tuple[Carry, dict[str, Array]]:
        """Take `count` steps (None: all) on rows `index` [capacity, batch]; return the sums of their metrics.

        All steps are one `lax.scan`; a count makes it a loop of any length.
        """

        def one(at: Array, loop: tuple[Carry, dict[str, Array]]) -> tuple[Carry, dict[str, Array]]:
            batch = {name: array[index[at]] for name, array in data.items()}
            carry, metrics = self._inner(loop[0], batch, lr[at], weight[at])
            return carry, jax.tree.map(jnp.add, loop[1], metrics)

        first = {name: array[index[0]] for name, array in data.items()}
        _, shapes = jax.eval_shape(self._inner, carry, first, lr[0], weight[0])
        length = len(index) if count is None else count
        return lax.fori_loop(0, length, one, (carry, jax.tree.map(jnp.zeros_like, shapes)))

    def _step(self, carry: Carry, batch: Any, lr: Array, weight: Array) -> tuple[Carry, dict[str, Array]]:
        key, bits, noise = random.split(carry.key, 3)
        batch = self._binarized(self.devices.batch(batch), bits)

        grads, state, metrics = self._gradient(carry, noise, batch, weight)
        updates, optimizer = self.optimizer.update(self._clipped(grads), carry.optimizer, carry.params)
        params = jax.tree.map(lambda p, u: p - lr * u, carry.params, updates)
        average = carry.average
        if self.options.ema:
            average = jax.tree.map(lambda a, p: a + (1 - self.options.ema) * (p - a), average, params)
        return self.devices.same((Carry(params, optimizer, state, average, key), metrics))

    def _gradient(self, carry: Carry, noise: Array, batch: Any, weight: Array) -> tuple[Any, Any, Any]:
        """Return gradient, statistics and metrics of a batch, taken in parts where the options say so."""
        parts, state, found = self._parts(batch), carry.state, []
        for number, (part, share) in enumerate(parts):
            key = noise if len(parts) == 1 else random.fold_in(noise, number)

            def objective(params: Any, state: Any = state, key: Array = key, part: Any = part) -> Any:
                loss = self.loss(params, state, key, part, weight)
                return loss.value, loss

            grads, loss = jax.grad(objective, has_aux=True)(carry.params)
            state, metrics = dict(state) | loss.state, loss.metrics | {"loss": loss.value}
            found.append(jax.tree.map(lambda v, s=share: s * v, (grads, _single(metrics))))
        grads, metrics = jax.tree.map(lambda *parts: sum(parts), *found)
        return grads, state, metrics

    def _parts(self, batch: dict[str, Array]) -> list[tuple[dict[str, Array], float]]:
        """Return the parts of a batch, and which share of its rows each has."""
        if self.options.accumulate == 1:
            return [(batch, 1.0)]
        rows, size = len(next(iter(batch.values()))), self.options.part_size
        return [
            (
                {name: array[start : start + size] for name, array in batch.items()},
                min(size, rows - start) / rows,
            )
            for start in range(0, rows, size)
        ]

    def _clipped(self, grads: Any) -> Any:
        if self.options.clip_norm is None:
            return grads
        norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))
        factor = jnp.minimum(1.0, self.options.clip_norm / (norm + 1e-6))
        return jax.tree.map(lambda g: g * factor, grads)

    def _binarized(self, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        if not self.dynamic:
            return batch
        x = batch["x"]
        return batch | {"x": (random.uniform(key, x.shape) < x).astype(x.dtype)}

    def _show(self, kept: Kept) -> None:
        self.bound.load_trainable(kept.params)
        self.bound.state = kept.state

    def _show_present(self) -> None:
        # A copy: the next step takes over the memory of the carry, whoever else looks at it.
        self._show(copied(self.devices.on_first(Kept(self.carry.params, self.carry.state))))

    def _present(self) -> Kept:
        """Return the weights to evaluate, which the next step overwrites."""
        return self.devices.on_first(Kept.of(self.carry))

    @contextmanager
    def _showing(self, kept: Kept) -> Iterator[None]:
        before = Kept(self.bound.trainable(), self.bound.state)
        self._show(kept)
        try:
            yield
        finally:
            self._show(before)

    def scores(self) -> Scores | None:
        if self.valid is None:
            return None
        with self._showing(self._present()):
            return score(self.bound, self.valid, seed=self.options.seed)

    def select(self) -> None:
        self.best = copied(self._present())

    def finish(self, selected: bool) -> None:
        if selected and self.best is not None:
            self._show(self.best)
        elif self.carry is not None:
            self._show(copied(self._present()))
        self.bound.eval()

    def kept(self) -> dict[str, np.ndarray]:
        """Return the weights that the run would end with now."""
        if self.carry is None:
            return self.bound.weights()
        selected = self.best is not None and self.options.keep == "best"
        with self._showing(self.best if selected else self._present()):
            return self.bound.weights()

    def state(self) -> dict[str, Any]:
        return {STATE: self._pending or b"" if self.carry is None else to_bytes(self.carry, self.best)}

    def restore(self, read: Callable[[str], bytes]) -> None:
        self._pending = read(STATE)
        if self.carry is not None:
            self._apply(self._pending)

    def _apply(self, content: bytes) -> None:
        if content:
            self.carry, self.best = from_bytes(content, self.carry, self._present())
            self._show_present()
        self._pending = None


def _single(metrics: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
