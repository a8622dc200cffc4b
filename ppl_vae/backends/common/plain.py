"""Two functions of the backend's library as a bound program."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ppl_vae.backends.common.bound import Bound, listed
from ppl_vae.backends.common.calls import Calls
from ppl_vae.program import Arguments, PlainProgram, arguments


class PlainBound(Bound):
    """`model` and `guide` as they are; their parameters come to exist when they first run on data.

    Parameters
    ----------
    program : PlainProgram
    fields : tuple of str, or None
        The data's fields; None where a loader's batches are passed on whole.
    num_data : int or None
    seed : int
        Of the first parameters.
    device : str
    """

    declared = False

    def __init__(
        self,
        program: PlainProgram,
        fields: tuple[str, ...] | None = None,
        num_data: int | None = None,
        seed: int = 0,
        device: str = "cpu",
    ):
        self.arguments = arguments(program, fields) if fields else Arguments()
        super().__init__(program, self.arguments.positional + self.arguments.named, num_data)
        self._seed = seed
        self._loaded: Mapping[str, Any] | None = None  # until there are parameters
        self._set_up(device)

    def _set_up(self, device: str) -> None:
        """Make what holds the parameters, on a device."""
        raise NotImplementedError

    def model(self, *args: Any, **batch: Any) -> Any:
        """Run the user's model."""
        return self._run(self.program.model, args, batch)

    def guide(self, *args: Any, **batch: Any) -> Any:
        """Run the user's guide."""
        return self._run(self.program.guide, args, batch)

    def _run(self, function: Any, args: tuple, batch: Mapping[str, Any]) -> Any:
        # JAX sorts a dict by its keys, so the order of the arguments is not that of the dict.
        positional = [name for name in self.arguments.positional if name in batch] or sorted(batch)
        named = {name: batch[name] for name in self.arguments.named if name in batch}
        return function(*args, *(batch[name] for name in positional if name not in named), **named)

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Do nothing: a plain program scales its sites itself."""
        yield

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        """Run as it is: networks are called by the functions themselves."""
        yield

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return what a loader yields as the positional arguments of model and guide."""
        return {f"argument {number:03}": self._array(part) for number, part in enumerate(listed(item))}
