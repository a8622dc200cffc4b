"""Stochastic variational inference with NumPyro: chunks of steps as one compiled loop on the device."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax, random
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ppl_vae.backends.numpyro.bound import find_device
from ppl_vae.backends.numpyro.evaluate import score
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.errors import RunError
from ppl_vae.options import Training
from ppl_vae.training import Advance

STATE = "state.safetensors"
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


class Carry(NamedTuple):
    """What one step hands on to the next."""

    params: Any
    optimizer: Any
    state: Any
    average: Any
    key: Array


class Kept(NamedTuple):
    """Weights that a run may end with."""

    params: Any
    state: Any


class Engine:
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
    compile : bool
        For Pyro: here every step is compiled.
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
        compile: bool = True,
    ):
        self.options, self.valid, self.dynamic = options, valid, dynamic
        self.device = find_device(options.device)
        self.bound = bound.to(self.device)
        bound.num_data = num_data
        self.autocast = jnp.bfloat16 if options.precision == "bf16-mixed" else None
        self.loss, self.optimizer = Objective(bound, objective, num_data), make_optimizer(options)
        self.data = train and jax.device_put({n: train[n] for n in bound.fields if n in train}, self.device)
        self.carry: Carry | None = None
        self.best: Kept | None = None
        self._capacity = min(options.log_every, AT_ONCE)
        self._pending: bytes | None = None
        self._many, self._one = jax.jit(self._steps), jax.jit(self._step)

    def _prepare(self, batch: Mapping[str, Array]) -> None:
        """Before the first step: parameters exist after one run of the program, which is checked."""
        self.bound.eval()
        self.bound.ensure_parameters(batch)
        self.loss.check(batch)
        params = self.bound.trainable()
        average = params if self.options.ema else None
        key = random.fold_in(random.key(self.options.seed), TRAINING)
        carry = Carry(params, self.optimizer.init(params), self.bound.state, average, key)
        self.carry = jax.device_put(jax.tree.map(jnp.asarray, carry), self.device)
        if self._pending is not None:
            self._apply(self._pending)

    def batch(self, item: Any) -> dict[str, Array]:
        """Return the batch of row numbers, or of what a user's loader yields, on the device."""
        if self.data is None:
            return jax.device_put(self.bound.as_batch(item), self.device)
        return {name: array[item] for name, array in self.data.items()}

    def advance(
        self, items: Sequence[Any], lr: np.ndarray, weight: np.ndarray, stop: Callable[[], bool]
    ) -> Advance:
        if self.carry is None:
            first = self.batch(items[0])
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
        self._show(Kept(self.carry.params, self.carry.state))
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
        self.carry, metrics = self._many(self.carry, self.data, index, rates, weights, count)
        return metrics

    def _steps(self, carry: Carry, data: Any, index: Array, lr: Array, weight: Array, count: Array) -> Any:
        """Take `count` steps on rows `index` [capacity, batch]; return the sums of their metrics."""

        def one(at: Array, loop: tuple[Carry, dict[str, Array]]) -> tuple[Carry, dict[str, Array]]:
            batch = {name: array[index[at]] for name, array in data.items()}
            carry, metrics = self._one(loop[0], batch, lr[at], weight[at])
            return carry, jax.tree.map(jnp.add, loop[1], metrics)

        first = {name: array[index[0]] for name, array in data.items()}
        _, shapes = jax.eval_shape(self._one, carry, first, lr[0], weight[0])
        return lax.fori_loop(0, count, one, (carry, jax.tree.map(jnp.zeros_like, shapes)))

    def _step(self, carry: Carry, batch: Any, lr: Array, weight: Array) -> tuple[Carry, dict[str, Array]]:
        key, bits, noise = random.split(carry.key, 3)
        batch = self._binarized(batch, bits)

        def objective(params: Any) -> Any:
            loss = self.loss(params, carry.state, noise, batch, weight)
            return loss.value, loss

        grads, loss = jax.grad(objective, has_aux=True)(carry.params)
        updates, optimizer = self.optimizer.update(self._clipped(grads), carry.optimizer, carry.params)
        params = jax.tree.map(lambda p, u: p - lr * u, carry.params, updates)
        average = carry.average
        if self.options.ema:
            average = jax.tree.map(lambda a, p: a + (1 - self.options.ema) * (p - a), average, params)
        state = dict(carry.state) | loss.state
        metrics = {
            name: jnp.asarray(v, jnp.float32) for name, v in (loss.metrics | {"loss": loss.value}).items()
        }
        return Carry(params, optimizer, state, average, key), metrics

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

    def _present(self) -> Kept:
        """Return the weights to evaluate: the averaged ones where there are any."""
        carry = self.carry
        return Kept(carry.params if carry.average is None else carry.average, carry.state)

    def scores(self) -> Scores | None:
        if self.valid is None:
            return None
        self._show(self._present())
        try:
            return score(self.bound, self.valid, seed=self.options.seed)
        finally:
            self._show(Kept(self.carry.params, self.carry.state))

    def select(self) -> None:
        self.best = self._present()

    def finish(self, selected: bool) -> None:
        if selected and self.best is not None:
            self._show(self.best)
        elif self.carry is not None:
            self._show(self._present())
        self.bound.eval()

    def kept(self) -> dict[str, np.ndarray]:
        """Return the weights that the run would end with now."""
        if self.carry is None:
            return self.bound.weights()
        chosen = self.best if self.best is not None and self.options.keep == "best" else self._present()
        self._show(chosen)
        try:
            return self.bound.weights()
        finally:
            self._show(Kept(self.carry.params, self.carry.state))

    def state(self) -> dict[str, Any]:
        if self.carry is None:
            return {STATE: self._pending or b""}
        leaves = _named({"carry": self.carry} | ({"best": self.best} if self.best else {}))
        return {STATE: save_tensors({name: _plain(value) for name, value in leaves.items()})}

    def restore(self, read: Callable[[str], bytes]) -> None:
        self._pending = read(STATE)
        if self.carry is not None:
            self._apply(self._pending)

    def _apply(self, content: bytes) -> None:
        if content:
            try:
                found = load_tensors(content)
            except SafetensorError as error:
                raise RunError(
                    f"{STATE} cannot be read ({error}): restore it from a copy of the run"
                ) from None
            template = {"carry": self.carry}
            if any(name.startswith("['best']") for name in found):
                template["best"] = self._present()
            if set(_named(template)) != set(found):
                raise RunError(
                    f"{STATE} is of another program or optimizer: go on with the run's own settings"
                )
            filled = jax.tree_util.tree_map_with_path(
                lambda path, old: _filled(found[_key(path)], old), template
            )
            self.carry, self.best = filled["carry"], filled.get("best")
            self._show(Kept(self.carry.params, self.carry.state))
        self._pending = None


_key = jax.tree_util.keystr


def _named(tree: Any) -> dict[str, Array]:
    return {_key(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _is_key(value: Array) -> bool:
    return jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _plain(value: Array) -> np.ndarray:
    return np.asarray(random.key_data(value) if _is_key(value) else value)


def _filled(value: np.ndarray, old: Array) -> Array:
    new = random.wrap_key_data(jnp.asarray(value)) if _is_key(old) else jnp.asarray(value, old.dtype)
    return jax.device_put(new, old.sharding)
