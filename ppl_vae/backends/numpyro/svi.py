"""Stochastic variational inference with NumPyro: chunks of steps as one compiled loop on the device."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax, random
from jax.extend.core import jaxprs_in_params

from ppl_vae.backends.common import engine as common
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.objective import check_groups, rows_of
from ppl_vae.backends.numpyro.carry import STATE, Carry, Kept, copied, from_bytes, to_bytes
from ppl_vae.backends.numpyro.devices import Devices, narrow
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.backends.numpyro.step import Step
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.scalars import for_loss
from ppl_vae.stopping import SAID, compiling
from ppl_vae.training import Advance

LOG = logging.getLogger(__name__)
SECONDS_PER_EQUATION = 0.003  # of a step's program, to compile it on two cores of a server CPU, about
TRAINING = 1  # the stream of training's noise, apart from those of weights and of scores
AT_ONCE = 100  # steps in one call: how long a stop request may wait


class Engine(common.Engine):
    """See `ppl_vae.backends.common.engine.Engine`."""

    def _set_up(self, objective: Any, train: Mapping[str, np.ndarray] | None) -> None:
        options = self.options
        self.devices = Devices(options.device, options.devices)
        if train is not None:
            self.devices.check_fits(options.batch_size)
        self.bound = self.bound.to(self.devices.first)
        self.autocast = jnp.bfloat16 if options.precision == "bf16-mixed" else None
        self.loss = Objective(self.bound, objective, self.num_data)
        check_groups(getattr(objective, "groups", ()), self.bound)
        self.step = Step(self.loss, options, self.devices, self.dynamic)
        self.data = train and self.devices.put(narrow(dict(train)))
        self.carry: Carry | None = None
        self.best: Kept | None = None
        # A GPU asks the host before each step of a loop of unknown length. A CPU has nothing to ask: it is
        # spared the second compilation, and has one for any `log_every`, so that a resumed run may take
        # another and keep its bits.
        self._scans = self.devices.first.platform != "cpu"
        self._capacity = min(options.log_every, AT_ONCE) if self._scans else AT_ONCE
        self._pending: bytes | None = None
        self._compiled: set[Any] = set()  # the kinds of calls that were compiled
        self._scored = False
        self._inner = jax.jit(self.step)  # traced once, whatever it is part of
        self._many, self._one = (jax.jit(part, donate_argnums=0) for part in (self._steps, self._inner))

    def _prepare(self, batch: Mapping[str, Array], scalars: Mapping[str, float]) -> None:
        """Before the first step: parameters exist after one run of the program, which is checked."""
        self.bound.eval()
        self._shapes = common.shapes_of(batch)
        self.bound.ensure_parameters(batch)
        if self._pending is None:
            self._refuse_unkept()
        self.loss.check(batch, scalars, self._refuse_rows)
        if self.data is None and self.options.accumulate > 1:  # a loader's batches have a size of their own
            self.options = self.step.options = replace(self.options, batch_size=rows_of(batch))
        params = self.bound.trainable()
        average = params if self.options.ema else None
        key = random.fold_in(random.key(self.options.seed), TRAINING)
        carry = Carry(params, self.step.optimizer.init(params), self.bound.state, average, key)
        self.carry = self.devices.put(copied(carry))
        if self._pending is not None:
            self._apply(self._pending)

    def batch(self, item: Any) -> dict[str, Array]:
        """Return the batch of row numbers, or of what a user's loader yields, on the devices."""
        if self.data is None:
            return self.devices.put_batch(self.bound.as_batch(item))
        return {name: array[item] for name, array in self.data.items()}

    def advance(
        self, items: Sequence[Any], scalars: Mapping[str, np.ndarray], stop: Callable[[], bool]
    ) -> Advance:
        tables = {name: np.asarray(values, np.float32) for name, values in scalars.items()}
        if self.carry is None:
            first = jax.device_put(self.batch(items[0]), self.devices.first)
            first |= {"x": jnp.round(first["x"])} if self.dynamic else {}
            self._prepare(first, for_loss({name: float(values[0]) for name, values in tables.items()}))
        self.bound.train()
        self.bound.autocast = self.autocast
        sums, done = None, 0
        try:
            while done < len(items) and not stop():
                count = self._alike(items, done)
                part = {name: values[done : done + count] for name, values in tables.items()}
                totals = self._take(items[done : done + count], part)
                sums = totals if sums is None else jax.tree.map(jnp.add, sums, totals)
                done += count
        finally:
            self.bound.autocast = None  # bounds are computed in single precision
        if done:
            self.bound.hold({name: values[done - 1] for name, values in scalars.items()})
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

    def _take(self, items: Sequence[Any], scalars: Mapping[str, np.ndarray]) -> dict[str, Array]:
        if self.data is None:
            present = {name: values[0] for name, values in scalars.items()}
            batch = self.batch(items[0])
            with self._compiling(batch, present):
                self.carry, metrics = self._one(self.carry, batch, present)
            return metrics
        # The tables have one length, so that one compilation serves chunks of any number of steps.
        count, size = len(items), self._capacity
        index = np.zeros((size, *items[0].shape), np.int32)
        index[:count] = np.stack(items)
        tables = {name: np.zeros(size, np.float32) for name in scalars}
        for name, values in scalars.items():
            tables[name][:count] = values
        known = self._scans and count == size > 1
        first = {
            name: jax.ShapeDtypeStruct((index.shape[1], *a.shape[1:]), a.dtype)
            for name, a in self.data.items()
        }
        with self._compiling(first, {name: np.float32(0) for name in tables}, known):
            self.carry, metrics = self._many(self.carry, self.data, index, tables, None if known else count)
        return metrics

    def _compiling(self, batch: Mapping[str, Any], scalars: Mapping[str, Any], *more: Any) -> Any:
        """Note that a call compiles, if it is the first of its kind, and say how long a long one takes."""
        kind = (*(value.shape for value in batch.values()), *more)
        new = kind not in self._compiled
        if new:
            self._compiled.add(kind)
            count = equations(self._inner.trace(self.carry, dict(batch), dict(scalars)).jaxpr.jaxpr)
            if (expected := SECONDS_PER_EQUATION * count) > SAID:
                LOG.info("compiling %d operations, which takes about %.0f s", count, expected)
        return compiling(new)

    def _steps(
        self, carry: Carry, data: Any, index: Array, scalars: Any, count: Array | None
    ) -> tuple[Carry, dict[str, Array]]:
        """Take `count` steps (None: all) on rows `index` [capacity, batch]; return the sums of their metrics.

        All steps are one `lax.scan`; a count makes it a loop of any length.
        """

        def one(at: Array, loop: tuple[Carry, dict[str, Array]]) -> tuple[Carry, dict[str, Array]]:
            batch = {name: array[index[at]] for name, array in data.items()}
            present = {name: values[at] for name, values in scalars.items()}
            carry, metrics = self._inner(loop[0], batch, present)
            return carry, jax.tree.map(jnp.add, loop[1], metrics)

        first = {name: array[index[0]] for name, array in data.items()}
        _, shapes = jax.eval_shape(self._inner, carry, first, {n: v[0] for n, v in scalars.items()})
        length = len(index) if count is None else count
        return lax.fori_loop(0, length, one, (carry, jax.tree.map(jnp.zeros_like, shapes)))

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

    def finite(self) -> bool:
        return self.carry is None or bool(_all_finite((self.carry.params, self.carry.state)))

    def scores(self) -> Scores | None:
        if self.valid is None:
            return None
        with self._showing(self._present()), compiling(not self._scored):
            scores = score(self.bound, self.valid, seed=self.options.seed)
        self._scored = True
        return scores

    def select(self) -> None:
        self.best = copied(self._present())

    def finish(self, selected: bool) -> None:
        if selected and self.best is not None:
            self._show(self.best)
        elif self.carry is not None:
            self._show(copied(self._present()))
        self.bound.eval()

    def chosen(self) -> dict[str, np.ndarray]:
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
            self.carry, self.best = from_bytes(content, self.carry, self._present(), self.bound.added)
            self._show_present()
        self._pending = None


def equations(jaxpr: Any) -> int:
    """Return how many operations a program has, those of its parts included."""
    return sum(1 + sum(map(equations, jaxprs_in_params(one.params))) for one in jaxpr.eqns)


@jax.jit
def _all_finite(tree: Any) -> Array:
    kinds = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return jnp.all(jnp.array([jnp.isfinite(leaf).all() for leaf in kinds] or [True]))
