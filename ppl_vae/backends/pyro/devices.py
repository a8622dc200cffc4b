"""The devices of a run, as its engine sees them: one here, several in `several_devices`."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from torch import Tensor, nn

from ppl_vae.backends.common.tracing import Arrays
from ppl_vae.backends.pyro import launching
from ppl_vae.backends.pyro.arrays import find_device
from ppl_vae.backends.pyro.compiling import compiled
from ppl_vae.backends.pyro.step import Part, Share, Step
from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.options import Training


def devices_of(options: Training) -> "OneDevice":
    """Return the devices that a run asks for."""
    if options.devices == 1:
        launching.check_alone()
        return OneDevice(options)
    # Fabric takes as long to import as torch: for those who need it.
    from ppl_vae.backends.pyro.several_devices import SeveralDevices

    return SeveralDevices(options)


class OneDevice:
    """The device of a run in this process: the one of `rank` among the `count` of the run."""

    count = 1

    def __init__(self, options: Training):
        self.device, self.rank = find_device(options.device), launching.rank()
        self.one_pass = options.accumulate == 1

    def start(self) -> None:
        """Start the processes of the other devices and wait for them."""

    def together(self) -> AbstractContextManager[None]:
        """Turn the loss of another process into an error that says so."""
        return nullcontext()

    def agree(self, number: int) -> int:
        """Return the greatest of a number of each process."""
        return number

    def totals(self, values: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums of numbers of each process by name; a process may lack some of the names."""
        return values

    def shares(self, rows: Any, options: Training) -> tuple[Any, list[Share] | None]:
        """Return this device's rows of a batch, and the parts that they lie in."""
        return rows, None

    def compiled(self, loss: nn.Module, batch: Any, scalars: Any, rows: int, choice: str, steps: int) -> Any:
        """Return an objective compiled for the shares of parts of so many rows, if all devices can; see
        `ppl_vae.backends.pyro.compiling.compiled`.
        """
        replayed = self.device.type == "cuda" and self.one_pass
        return compiled(loss, batch, scalars, rows, choice, steps, replayed)

    def step(self, loss: Any, module: Any, parts: Sequence[Part], options: Training) -> Step:
        """Return the optimizer step of an objective that runs as `module`."""
        return Step(module, parts, options)

    def scored(self, rows: Arrays, seed: int, score: Callable[[Arrays, int], Scores]) -> Scores:
        """Return the scores of all rows, each device scoring its share of them."""
        return score(rows, seed)
