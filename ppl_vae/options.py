"""How a run trains: everything that `fit` and `ppl-vae train` take besides program, data and objective."""

import re
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np

from ppl_vae import annotations, checks
from ppl_vae.errors import UsageError

OPTIMIZERS = ("adam", "adamw", "adamax")
COMPILE = ("auto", "on", "off")
PRECISIONS = ("32", "bf16-mixed")


def stream(seed: int, name: str) -> int:
    """Return the seed of one stream of noise of a run: streams of one seed are independent of each other."""
    return int(np.random.SeedSequence([seed, *name.encode()]).generate_state(1, np.uint64)[0])


@dataclass(frozen=True)
class Training:
    """Training options, the same on both backends.

    Attributes
    ----------
    epochs, max_steps : int or None
        Length of the run; the shorter one counts. Neither: 10 epochs.
    batch_size : int
        Rows per step; the odd last batch of an epoch counts.
    accumulate : int
        Parts that a batch is computed in, one after the other, to need less memory. Gradients add up to that
        of the batch; statistics (codebooks, batch normalization) move with every part.
    optimizer : str
        adam, adamw or adamax.
    lr : float, str or schedule
        Learning rate, or a schedule of it over the steps (`plateau:...`: over the validation bounds).
    weight_decay, eps : float
        Of the optimizer.
    betas : tuple of float
        Decay of the optimizer's two moments.
    clip_norm : float or None
        Greatest norm of the gradient of the loss, which is in nats per row.
    ema : float or None
        Decay of an average of the weights, which is then evaluated and saved.
    valid_every : int
        Epochs between two bounds on the validation rows.
    patience : int or None
        Stop after so many validations without a better bound. None: never.
    keep : str
        Which weights a run ends with: "best" by the mean bound of the validation rows (the last where there
        are none) or "last". A row that alone would decide that mean is warned of and counts as ten median
        absolute deviations from the median.
    log_every : int
        Steps that one row of the history sums up.
    checkpoint_every : float
        Seconds between two checkpoints of a run folder.
    seed : int
        Of weights, order and noise.
    device : str
        auto, cpu, cuda, cuda:1 ...
    devices : int
        Devices to train on, each with its share of every batch.
    precision : str
        "32", or "bf16-mixed": networks in bfloat16, probabilities in single precision.
    """

    epochs: int | None = None
    max_steps: int | None = None
    batch_size: int = 128
    accumulate: int = 1
    optimizer: str = "adam"
    lr: Any = 1e-3
    weight_decay: float = 0.0
    eps: float = 1e-8
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = None
    ema: float | None = None
    valid_every: int = 1
    patience: int | None = None
    keep: str = "best"
    log_every: int = 50
    checkpoint_every: float = 60.0
    seed: int = 0
    device: str = "auto"
    devices: int = 1
    precision: str = "32"

    def __post_init__(self) -> None:
        if isinstance(self.betas, list):
            object.__setattr__(self, "betas", tuple(self.betas))
        for name, kind in annotations.types(Training).items():
            if int in (kind, *get_args(kind)) and name != "seed" and getattr(self, name) is not None:
                checks.whole_number(name, getattr(self, name))
        checks.seed(self.seed)
        annotations.check(self)
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS), ("keep", ("best", "last"))):
            checks.one_of(name, getattr(self, name), known)
        if self.devices > self.batch_size:
            raise UsageError(
                f"devices={self.devices}: more than the rows of a batch, batch_size={self.batch_size}"
            )
        self._check_numbers()

    def _check_numbers(self) -> None:
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise UsageError(f"unknown device {self.device!r}: choose auto, cpu, cuda or cuda:N")
        for name in ("clip_norm", "eps"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise UsageError(f"{name}={value!r}: must be above 0")
        if self.ema is not None and not 0 < self.ema < 1:
            raise UsageError(f"ema={self.ema!r}: the decay of the average lies between 0 and 1")
        if self.weight_decay < 0 or self.checkpoint_every < 0:
            raise UsageError("weight_decay and checkpoint_every must not be negative")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise UsageError(f"betas={self.betas!r}: give two decays in [0, 1)")

    @property
    def part_size(self) -> int:
        """Rows that one pass of the objective takes of a whole batch."""
        return -(-self.batch_size // self.accumulate)

    def total_steps(self, batches: int) -> int:
        """Return the length of the run for epochs of so many batches."""
        epochs = self.epochs if self.epochs or self.max_steps else 10
        by_epochs = epochs * batches if epochs else None
        return min(steps for steps in (by_epochs, self.max_steps) if steps is not None)
