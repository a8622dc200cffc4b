"""Two functions of a library, bound to its backend as they are."""

from collections.abc import Mapping
from typing import Any

from ppl_vae.backends.common.bound import Bound
from ppl_vae.data.loader import positional
from ppl_vae.faults import told
from ppl_vae.program import Arguments, PlainProgram, arguments


class PlainBound(Bound):
    """`model` and `guide` as the user wrote them; their parameters come to exist when they first run on data.

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
        return self._run("model", args, batch)

    def guide(self, *args: Any, **batch: Any) -> Any:
        """Run the user's guide."""
        return self._run("guide", args, batch)

    def _run(self, role: str, args: tuple, batch: Mapping[str, Any]) -> Any:
        # JAX sorts a dict by its keys, so the order of the arguments is not that of the dict.
        positional = [name for name in self.arguments.positional if name in batch] or sorted(batch)
        named = {name: batch[name] for name in self.arguments.named if name in batch}
        given = [*args, *(batch[name] for name in positional if name not in named)]
        with told(f"the {role}", self.broken_plate):
            return getattr(self.program, role)(*given, **named)

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return what a loader yields as the positional arguments of model and guide."""
        return {name: self._array(part) for name, part in positional(item).items()}

    def among(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        return super().among(rows) if self.fields else dict(rows)
