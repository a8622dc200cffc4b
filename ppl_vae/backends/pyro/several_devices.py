"""Several devices with a process each, which share every batch: Lightning Fabric's DDP."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from inspect import signature
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from ppl_vae.backends.common.objective import rows_of
from ppl_vae.backends.common.tracing import Arrays
from ppl_vae.backends.pyro import across, launching
from ppl_vae.backends.pyro.arrays import find_device
from ppl_vae.backends.pyro.compiling import compiled
from ppl_vae.backends.pyro.step import Part, Share, Step, cut
from ppl_vae.diagnostics.evidence import Scores, joined, mean_of
from ppl_vae.errors import PplVaeError, ProgramError, RunError, UsageError
from ppl_vae.faults import Fault, cause_of
from ppl_vae.objectives import Loss
from ppl_vae.options import Training, stream

LOG = logging.getLogger(__name__)
# Of one exchange: longer than compiling, or a first device's checkpoint, may keep the others waiting.
PATIENCE = timedelta(minutes=30)


def make_fabric(device: str, count: int) -> Fabric:
    """Return a Fabric for a device (auto, cpu, cuda, cuda:1 ...) and those after it."""
    first = find_device(device)
    if first.type == "cuda" and first.index + count > torch.cuda.device_count():
        there = torch.cuda.device_count()
        raise UsageError(f"devices={count}: from {device!r} on this machine has {there - first.index}")
    most = max(4, os.cpu_count() or 1)  # a few for all, to try it out
    if first.type == "cpu" and count > most:
        raise UsageError(f"devices={count}: each is a process, of which this machine bears {most}")
    # Quiet: it tells its readers what they have asked for.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    launching.check(count)
    if first.type == "cuda":
        backend, devices = "nccl", list(range(first.index, first.index + count))
    else:
        backend, devices = "gloo", count
    # The rows of one device may use a network that those of another do not.
    # Buffers are the same everywhere already; newer versions of torch have another name for it.
    names = signature(DistributedDataParallel).parameters
    buffers = "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers"
    ddp = DDPStrategy(
        process_group_backend=backend, timeout=PATIENCE, find_unused_parameters=True, **{buffers: False}
    )
    under = TorchElasticEnvironment if TorchElasticEnvironment.detect() else LightningEnvironment
    return Fabric(
        accelerator=first.type, devices=devices, precision="32-true", strategy=ddp, plugins=[under()]
    )


class SeveralDevices:
    """The devices of a run, seen from the process of one of them; see
    `ppl_vae.backends.pyro.devices.OneDevice` for what each method promises.
    """

    def __init__(self, options: Training):
        self.fabric, self.count = make_fabric(options.device, options.devices), options.devices
        self.device, self.rank = self.fabric.device, self.fabric.local_rank
        self.place: across.Place | None = None  # until the processes have started

    def start(self) -> None:
        if self.place is not None:
            return
        launching.start(self.count)
        with self.together(), launching.ended_by_a_signal():
            launching.join("nccl" if self.device.type == "cuda" else "gloo", PATIENCE)
            self.fabric.launch()
            self.place = across.Place(
                self.rank, self.count, self.device, distributed.new_group(timeout=PATIENCE)
            )
            launching.watch_all()
        if self.rank:
            logging.getLogger("ppl_vae").setLevel(logging.ERROR)

    @contextmanager
    def together(self) -> Iterator[None]:
        try:
            with warnings.catch_warnings():
                # The layout of a compiled gradient, which costs less than it takes to say so.
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                yield
        except (RuntimeError, Fault) as fault:
            error = cause_of(fault)
            # gloo's own errors have no type.
            if not isinstance(error, distributed.DistError) and "gloo" not in str(error).lower():
                raise
            launching.lost()
            if self.rank:  # the first process tells it
                raise SystemExit(1) from None
            raise RunError(launching.loss_of_processes()) from error

    def agree(self, number: int) -> int:
        if self.place is None:
            return number
        with self.together():
            return int(self.fabric.all_reduce(torch.tensor(number, device=self.device), reduce_op="max"))

    def totals(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.place is None:
            return values
        with self.together():
            known: list[Any] = [None] * self.count
            distributed.all_gather_object(known, [*values])
            names = list(dict.fromkeys(name for one in known for name in one))
            zero = torch.zeros((), device=self.device)
            stacked = torch.stack([values.get(name, zero) for name in names])
            return dict(zip(names, self.fabric.all_reduce(stacked, reduce_op="sum"), strict=True))

    def shares(self, rows: Any, options: Training) -> tuple[Any, list[Share] | None]:
        # Parts of fewer rows than devices are worked on by all, and count on the first.
        indices, shares = [], []
        for part in cut(rows, options.part_size):
            if len(part) < self.count:
                own, counted = part, len(part) * (self.rank == 0)
            else:
                own = np.array_split(part, self.count)[self.rank]
                counted = len(own)
            indices.append(own)
            shares.append(Share(len(own), counted / len(rows), len(part) % self.count == 0))
        return np.concatenate(indices), shares

    def compiled(self, loss: nn.Module, batch: Any, scalars: Any, rows: int, choice: str, steps: int) -> Any:
        if rows % self.count and choice != "off":
            words = "the step runs uncompiled: %d rows make unequal shares on %d devices"
            LOG.warning(words, rows, self.count)
            return loss
        with self.together(), across.sharing(self.place):
            fast = compiled(loss, batch, scalars, rows // self.count, choice, steps)
        return loss if self.agree(int(fast is loss)) else fast

    def step(self, loss: Any, module: Any, parts: Sequence[Part], options: Training) -> Step:
        if len(parts) > 1:
            raise UsageError("devices: parameter groups train on one device with Pyro")
        if not any(part.parameters for part in parts):  # only statistics, which add up by themselves
            return SharedStep(self, Pair(loss, module), parts, options)
        with self.together():
            self._warned()
            shared = self.fabric.setup_module(Pair(loss, module))
        return SharedStep(self, shared, parts, options)

    def _warned(self) -> None:
        """Let torch say once, where nobody hears it, that looking for unused parameters takes time: it writes
        past Python's warnings.
        """
        try:
            kept = os.dup(2)
        except OSError:  # closed
            return
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        try:
            one = self.fabric.setup_module(nn.Linear(1, 1))
            one(torch.zeros(1, device=self.device)).sum().backward()
        finally:
            os.dup2(kept, 2)
            os.close(kept)

    def scored(self, rows: Arrays, seed: int, score: Callable[[Arrays, int], Scores]) -> Scores:
        if rows_of(rows) < self.count:
            return score(rows, seed)
        index = np.array_split(np.arange(rows_of(rows)), self.count)[self.rank]
        own = {name: values[index] for name, values in rows.items()}
        # Draws for other rows are other draws.
        parts: list[Any] = [None] * self.count
        try:
            mine: Any = score(own, stream(seed, f"valid/{self.rank}") if self.rank else seed)
        except PplVaeError as error:  # of rows that the others, the one that tells it too, do not see
            mine = str(error)
        with self.together():
            distributed.all_gather_object(parts, mine)
        if said := next((part for part in parts if isinstance(part, str)), None):
            raise ProgramError(said)
        return merged(parts)


class Pair(nn.Module):
    """An objective and its compiled form, whose code depends on the number of rows: that all devices run the
    same, shares of unequal size go through the objective.
    """

    def __init__(self, loss: nn.Module, fast: nn.Module):
        super().__init__()
        self.loss, self.fast = loss, fast

    def forward(self, batch: dict[str, Tensor], scalars: dict[str, Tensor], even: bool) -> Loss:
        loss = (self.fast if even else self.loss)(batch, scalars)
        # DDP takes what any output depends on for used.
        return loss._replace(metrics={name: value.detach() for name, value in loss.metrics.items()})


class SharedStep(Step):
    """A step whose gradient is that of the batch that all devices share."""

    def __init__(self, devices: SeveralDevices, shared: nn.Module, parts: Sequence[Part], options: Training):
        super().__init__(shared, parts, options)
        self.devices = devices

    def _pass(self, part: Any, scalars: Any, share: Share, last: bool) -> dict[str, Tensor]:
        place, fabric = self.devices.place, self.devices.fabric
        summed_later = bool(self.parameters) and not last
        with (
            across.sharing(place, counts=share.part > 0),
            fabric.no_backward_sync(self.loss) if summed_later else nullcontext(),
        ):
            outcome = self.loss(part, scalars, share.even)
            across.together()
            self._backward(outcome, share.part * place.count)  # the gradient is the mean over devices
        return outcome.metrics | {"loss": outcome.value.detach()}


def merged(parts: Sequence[Scores]) -> Scores:
    """Return the scores of rows from those of parts of them, in order."""
    rows = [len(part.log_likelihood) for part in parts]
    whole = {name: mean_of([getattr(part, name) for part in parts], rows) for name in ("dims", "dense")}
    whole |= {
        "log_likelihood": np.concatenate([part.log_likelihood for part in parts]),
        "kl": joined([part.kl for part in parts], rows),
    }
    return replace(parts[0], **whole)
