"""Stochastic variational inference with Pyro: optimizer steps for the training loop, on any device."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor, nn

from ppl_vae.backends.common import engine as common
from ppl_vae.backends.common.evaluate import score
from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.pyro.arrays import noise_kept, put, seed_noise
from ppl_vae.backends.pyro.denormals import flushed
from ppl_vae.backends.pyro.devices import devices_of
from ppl_vae.backends.pyro.objectives import Objective, takes_gradients
from ppl_vae.backends.pyro.step import Step, by_step, parts_of_program
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.faults import Fault
from ppl_vae.options import stream
from ppl_vae.scalars import for_loss
from ppl_vae.training import Advance

STATE = "state.pt"


class Engine(common.Engine):
    """See `ppl_vae.backends.common.engine.Engine`."""

    def _set_up(self, objective: Any, train: Mapping[str, np.ndarray] | None) -> None:
        options = self.options
        self.devices = devices_of(options)
        if self.devices.count > 1:
            _check_fits(self.bound, train, objective)
        self.rank, self.start, self.agree = self.devices.rank, self.devices.start, self.devices.agree
        self.device = self.devices.device
        self._cuda = self.device.type == "cuda"
        self.autocast = torch.bfloat16 if options.precision == "bf16-mixed" else None
        self.loss = Objective(self.bound, objective, self.num_data).to(self.device)
        self.data = train and put(dict(train), self.device)
        self.best: dict[str, Tensor] | None = None
        self.step: Step | None = None  # once there are parameters
        self.taken = 0  # steps, over all sessions of the run
        self._pending: dict[str, Any] | None = None
        self._seed(options.seed)

    def _prepare(self, batch: dict[str, Tensor], scalars: dict[str, Tensor]) -> None:
        """Before the first step: parameters exist after one run of the program, which is checked with
        validation on; noise is unchanged.
        """
        with noise_kept(self.device), pyro.validation_enabled(True):
            self.bound.eval()
            batch = self._binarized(batch)
            self._shapes = common.shapes_of(batch)
            # An optimizer must see every parameter, and plain Pyro makes its own at the first call.
            self.bound.ensure_parameters(batch)
            if self._pending is None:
                self._refuse_unkept()
            self.loss.check(batch, scalars, self._refuse_rows)
        if self.data is None:  # a loader's batches have a size of their own
            self.options = replace(self.options, batch_size=rows_of(batch))
        self._try_one_row(batch, scalars)
        made = self.bound.trainable()
        self._made = len(made)
        module = self._compiled(batch, scalars)
        parts = parts_of_program(self.bound, getattr(self.loss.objective, "groups", ()))
        self.step = self.devices.step(self.loss, module, parts, self.options)
        if self._pending is not None:
            self._apply(self._pending)

    def _try_one_row(self, batch: dict[str, Tensor], scalars: dict[str, Tensor]) -> None:
        """Refuse a program that fails on a single row in train mode, as torch's batch normalization does,
        where an epoch has such a batch.
        """
        rows, part = self.num_data, self.options.part_size
        size = min(self.options.batch_size, rows)
        last = rows % size if self.steps >= -(-rows // size) else 0
        if self.data is None or not any(one % part == 1 or one * part == 1 for one in (size, last)):
            return
        before = {name: value.clone() for name, value in self.bound.tensors().items()}
        self.bound.train()
        try:
            with noise_kept(self.device), torch.no_grad(), pyro.validation_enabled(False):
                self.loss({name: value[:1] for name, value in batch.items()}, scalars)
        except Fault as fault:
            raise ProgramError(
                f"{rows} rows in batches of {size} leave a batch of one row, on which {fault}: choose "
                "another batch_size, or nn.BatchNorm for torch's, which takes one row"
            ) from fault
        finally:
            self.bound.load_tensors(before)

    def _compiled(self, batch: dict[str, Tensor], scalars: dict[str, Tensor]) -> nn.Module:
        self.bound.train()
        self.bound.autocast = self.autocast
        rows = min(self.options.batch_size, self.num_data, self.options.part_size)
        loss = self.devices.compiled(self.loss, batch, scalars, rows, self.compile, self.steps)
        self.compile = "off" if loss is self.loss else "on"
        return loss

    def batch(self, item: Any) -> dict[str, Tensor]:
        """Return the batch of row numbers, or of what a user's loader yields, on the device."""
        if self.data is None:
            return self.bound.as_batch(item)
        index = torch.as_tensor(item, device=self.device)
        return {name: array.index_select(0, index) for name, array in self.data.items()}

    def advance(
        self, items: Sequence[Any], scalars: Mapping[str, np.ndarray], stop: Callable[[], bool]
    ) -> Advance:
        steps = by_step(scalars, self.device)
        if self.step is None:
            self._prepare(self.batch(items[0]), for_loss(steps[0]))
        self.bound.train()
        self.bound.autocast = self.autocast
        sums: dict[str, Tensor] = {}
        done = 0
        try:
            with (
                flushed(),
                pyro.validation_enabled(False),
                noise_kept(self.device),
                self.devices.together(),
            ):
                self._set_rng()
                # Several devices decide together, which takes too long to do at each step.
                ends = self.devices.count > 1 and stop()
                for item, values in zip(self._on_device(items), steps, strict=True):
                    if ends or (self.devices.count == 1 and stop()):
                        break
                    if self.devices.count > 1:
                        self._seed_step(self.taken + done)
                    rows, shares = self.devices.shares(item, self.options)
                    metrics = self.step(self._binarized(self.batch(rows)), values, shares)
                    sums = _added(sums, metrics)
                    done += 1
                self._get_rng()
        finally:
            self.bound.autocast = None  # bounds are computed in single precision
        if len(self.bound.trainable()) > self._made:
            raise ProgramError(
                f"{self.bound.program.name} made a parameter after its first batch, too late to train it: "
                "make each one whenever model or guide runs"
            )
        self.taken += done
        if done:
            self.bound.hold({name: values[done - 1] for name, values in scalars.items()})
        return Advance(done, self._means(sums, done))

    def _on_device(self, items: Sequence[Any]) -> Sequence[Any]:
        """Return row numbers on the device, all in one transfer: a step that copied its own would wait for
        those before it.
        """
        if self.data is None or self.devices.count > 1:
            return items
        sizes = [len(item) for item in items]
        return torch.from_numpy(np.concatenate(items)).to(self.device).split(sizes)

    def _binarized(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        if not self.dynamic:
            return batch
        return batch | {"x": (torch.rand_like(batch["x"]) < batch["x"]).to(batch["x"].dtype)}

    def _means(self, sums: dict[str, Tensor], count: int) -> dict[str, float]:
        if not sums:
            return {}
        # One transfer from the device for all metrics.
        totals = self.devices.totals({name: v.detach().float().reshape(()) for name, v in sums.items()})
        values = torch.stack([*totals.values()]).div(count)
        return dict(zip(totals, values.tolist(), strict=True))

    def _set_rng(self) -> None:
        if self.devices.count > 1:
            return
        torch.random.set_rng_state(self.rng)
        if self.cuda_rng is not None and self._cuda:
            torch.cuda.set_rng_state(self.cuda_rng, self.device)

    def _seed_step(self, step: int) -> None:
        """Each of several devices has noise of its own at each step: none of it needs to be saved."""
        seed_noise(stream(self.options.seed, f"training/{self.rank}/{step}"), self.device)

    def _get_rng(self) -> None:
        if self.devices.count > 1:
            return
        self.rng = torch.random.get_rng_state()
        self.cuda_rng = torch.cuda.get_rng_state(self.device) if self._cuda else None

    def _seed(self, seed: int) -> None:
        with noise_kept(self.device):
            seed_noise(stream(seed, "training"), self.device)
            self.rng = torch.random.get_rng_state()
            self.cuda_rng = torch.cuda.get_rng_state(self.device) if self._cuda else None

    def finite(self) -> bool:
        tensors = [t for t in self.bound.tensors().values() if t.is_floating_point() and t.numel()]
        return not tensors or bool(torch.stack(torch._foreach_norm(tensors, torch.inf)).isfinite().all())

    def scores(self) -> Scores | None:
        if self.valid is None:
            return None
        with self._averages():
            return self.devices.scored(
                self.valid, self.options.seed, lambda rows, seed: score(self.bound, rows, seed=seed)
            )

    def _averages(self) -> Any:
        return nullcontext() if self.step is None else self.step.averages()

    def _tensors(self) -> dict[str, Tensor]:
        with self._averages():
            return {name: value.detach().clone() for name, value in self.bound.tensors().items()}

    def select(self) -> None:
        self.best = self._tensors()

    def finish(self, selected: bool) -> None:
        if selected and self.best is not None:
            self.bound.load_tensors(self.best)
        elif self.step is not None:
            self.step.use(self.step.averaged)
        self.bound.eval()

    def chosen(self) -> dict[str, np.ndarray]:
        chosen = self.best if self.best is not None and self.options.keep == "best" else self._tensors()
        return {name: value.cpu().numpy() for name, value in chosen.items()}

    def state(self) -> dict[str, Any]:
        content = {
            "tensors": self.bound.tensors(),
            "best": self.best,
            "rng": self.rng,
            "cuda_rng": self.cuda_rng,
            "taken": self.taken,
        } | (self.step.state() if self.step is not None else {"optimizer": None, "averaged": None})
        buffer = io.BytesIO()
        torch.save(content, buffer)
        return {STATE: buffer.getvalue()}

    def restore(self, read: Callable[[str], bytes]) -> None:
        with common.understood(STATE):
            content = torch.load(io.BytesIO(read(STATE)), map_location="cpu", weights_only=True)
            torch.Generator().set_state(content["rng"])
            self.rng, self.best = content["rng"], content["best"]
            if content["cuda_rng"] is not None:  # None: a run that was on the CPU has the seed's noise here
                self.cuda_rng = content["cuda_rng"]
            self.taken, self._pending = int(content.get("taken", 0)), content
        if self.step is not None:
            self._apply(content)

    def _apply(self, content: dict[str, Any]) -> None:
        with common.understood(STATE):
            self.bound.load_tensors(content["tensors"])
            present = {name: value.shape for name, value in self.bound.tensors().items()}
            if self.best is not None:
                self.best = self.bound.completed(self.best, self.bound.tensors)
                if {name: tensor.shape for name, tensor in self.best.items()} != present:
                    raise ValueError("its best weights are not the program's")
            self.step.restore(content)
        self._pending = None


def _added(sums: dict[str, Tensor], metrics: dict[str, Tensor]) -> dict[str, Tensor]:
    if sums.keys() != metrics.keys():
        # What a batch does not use reports nothing.
        return sums | {name: sums.get(name, 0) + value for name, value in metrics.items()}
    torch._foreach_add_(list(sums.values()), [metrics[name] for name in sums])
    return sums


def _check_fits(bound: nn.Module, train: Any, objective: Any) -> None:
    """Refuse what several processes would each do in their own way."""
    if train is None or not bound.declared:
        what = "a loader" if train is None else "a pair of functions"
        raise UsageError(f"devices: {what} trains on one device with Pyro; use arrays and a Program")
    if takes_gradients(objective):
        kind = type(objective).__name__
        raise UsageError(
            f"devices: {kind} computes its gradients itself, on one device; use another objective"
        )
    if any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in bound.modules()):
        raise UsageError("devices: torch's batch normalization differs on each device; use nn.BatchNorm")
