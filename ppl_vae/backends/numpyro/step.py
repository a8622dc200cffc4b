"""One optimizer step on NumPyro: a pure function of what the last one left."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array, random

from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.numpyro.carry import Carry
from ppl_vae.backends.numpyro.devices import Devices
from ppl_vae.backends.numpyro.objectives import Objective
from ppl_vae.objectives import Group
from ppl_vae.options import Training
from ppl_vae.scalars import AVERAGE, RATE, for_loss, rate_of


def make_optimizer(options: Training, groups: Sequence[Group] = ()) -> optax.GradientTransformation:
    """Return the optimizer for a learning rate of 1, by torch's formulas.

    Weight decay is decoupled for adamw and part of the gradient for adam and adamax. Parameters of groups
    have settings of their own; those of frozen ones stay as they are.
    """
    if not groups:
        return _one_optimizer(options)
    made = {group.name: _one_optimizer(replace(options, **group.settings())) for group in groups}
    made |= {group.name: optax.set_to_zero() for group in groups if group.frozen}
    return optax.multi_transform({"": _one_optimizer(options)} | made, lambda tree: labels(tree, groups))


def labels(params: Mapping[str, Any], groups: Sequence[Group]) -> dict[str, str]:
    """Return the parameter group of each site of parameters; "" where it belongs to none."""
    owners = {network: group.name for group in groups for network in group.networks}
    return {site: owners.get(site.removesuffix("$params").partition(".")[0], "") for site in params}


def _one_optimizer(options: Training) -> optax.GradientTransformation:
    (b1, b2), eps = options.betas, options.eps
    decay = optax.add_decayed_weights(options.weight_decay) if options.weight_decay else optax.identity()
    if options.optimizer == "adamax":
        return optax.chain(decay, optax.scale_by_adamax(b1, b2, eps))
    moments = optax.scale_by_adam(b1, b2, eps)
    return optax.chain(moments, decay) if options.optimizer == "adamw" else optax.chain(decay, moments)


class Step:
    """What a training step does.

    Parameters
    ----------
    loss : Objective
    options : Training
    devices : Devices
    dynamic : bool
        Draw new bits of `x`.
    """

    def __init__(self, loss: Objective, options: Training, devices: Devices, dynamic: bool):
        self.loss, self.options, self.devices, self.dynamic = loss, options, devices, dynamic
        self.groups: Sequence[Group] = getattr(loss.objective, "groups", ())
        self.optimizer = make_optimizer(options, self.groups)

    def __call__(
        self, carry: Carry, batch: Any, scalars: Mapping[str, Array]
    ) -> tuple[Carry, dict[str, Array]]:
        """Take a step; return what the next one goes on from, and metrics: means over the rows."""
        key, bits, noise = random.split(carry.key, 3)
        batch = self._binarized(self.devices.batch(batch), bits)

        grads, state, metrics = self._gradient(carry, noise, batch, for_loss(scalars))
        updates, optimizer = self.optimizer.update(self._clipped(grads), carry.optimizer, carry.params)
        params = self._moved(carry.params, updates, scalars)
        average = carry.average
        if self.options.ema:
            average = jax.tree.map(lambda a, p: a + scalars[AVERAGE] * (p - a), average, params)
        return self.devices.same((Carry(params, optimizer, state, average, key), metrics))

    def _moved(self, params: Any, updates: Any, scalars: Mapping[str, Array]) -> Any:
        """Return the parameters after a step at their groups' learning rates."""
        if not self.groups:
            return jax.tree.map(lambda p, u: p - scalars[RATE] * u, params, updates)
        frozen = {group.name for group in self.groups if group.frozen}
        moved = dict(params)
        for site, name in labels(params, self.groups).items():
            if name not in frozen:
                rate = scalars[rate_of(name)]
                moved[site] = jax.tree.map(lambda p, u, r=rate: p - r * u, params[site], updates[site])
        return moved

    def _gradient(self, carry: Carry, noise: Array, batch: Any, scalars: Any) -> tuple[Any, Any, Any]:
        """Return gradient, statistics and metrics of a batch, taken in parts where the options say so."""
        parts, state, weighted = self._parts(batch), carry.state, []
        for number, (part, share) in enumerate(parts):
            key = noise if len(parts) == 1 else random.fold_in(noise, number)

            def objective(params: Any, state: Any = state, key: Array = key, part: Any = part) -> Any:
                loss = self.loss(params, state, key, part, scalars)
                return (loss.value, loss.others), loss

            grads, loss = self._gradients(objective, carry.params)
            state, metrics = dict(state) | loss.state, loss.metrics | {"loss": loss.value}
            weighted.append(jax.tree.map(lambda v, s=share: s * v, (grads, _single(metrics))))
        grads, metrics = jax.tree.map(lambda *parts: sum(parts), *weighted)
        return grads, state, metrics

    def _gradients(self, objective: Callable[..., Any], params: Any) -> tuple[Any, Any]:
        """Return the gradient of each group's loss, or else of the common one, by its own parameters, and the
        whole loss.
        """
        (value, others), pull, loss = jax.vjp(objective, params, has_aux=True)
        by_group = {}
        for name in {"": value} | others:
            seeds = {other: jnp.full_like(one, other == name) for other, one in others.items()}
            by_group[name] = pull((jnp.full_like(value, not name), seeds))[0]
        if not self.groups:
            return by_group[""], loss
        owners = labels(params, self.groups)
        return {site: by_group.get(owners[site], by_group[""])[site] for site in params}, loss

    def _parts(self, batch: dict[str, Array]) -> list[tuple[dict[str, Array], float]]:
        """Return the parts of a batch, and which share of its rows each has."""
        if self.options.accumulate == 1:
            return [(batch, 1.0)]
        rows, size = rows_of(batch), self.options.part_size
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
        if not self.groups:
            return _within(grads, self.options.clip_norm)
        owners, clipped = labels(grads, self.groups), {}
        for name in set(owners.values()):
            part = {site: grads[site] for site, owner in owners.items() if owner == name}
            clipped |= _within(part, self.options.clip_norm)
        return clipped

    def _binarized(self, batch: dict[str, Array], key: Array) -> dict[str, Array]:
        if not self.dynamic:
            return batch
        x = batch["x"]
        return batch | {"x": (random.uniform(key, x.shape) < x).astype(x.dtype)}


def _within(grads: Any, most: float) -> Any:
    """Return gradients scaled down to a norm of at most `most`."""
    norm = jnp.sqrt(sum(jnp.square(g).sum() for g in jax.tree.leaves(grads)))
    factor = jnp.minimum(1.0, most / (norm + 1e-6))
    return jax.tree.map(lambda g: g * factor, grads)


def _single(metrics: Mapping[str, Any]) -> dict[str, Array]:
    return {name: jnp.asarray(value, jnp.float32) for name, value in metrics.items()}
