"""A declared program whose `model` and `guide` are ordinary functions of the backend's library."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ppl_vae.backends.common.bound import Bound
from ppl_vae.backends.common.calls import Calls, NetworkCall, Networks
from ppl_vae.backends.common.primitives import Primitives
from ppl_vae.errors import ProgramError
from ppl_vae.program import Program, data_fields, taken


class DeclaredBound(Bound):
    """A Program bound to a backend.

    `model(x, ..., n=None)` and `guide(x, ...)` take the data fields that the program declares, by position or
    by name, and may be given to any tool of the library.

    Attributes
    ----------
    num_data : int or None
        Rows of the whole data set: `model` and `guide` scale a batch up to them, as stock ELBOs want it.
        Within `unscaled()` each row counts once, as NUTS and other samplers want it.
    parts : dict of str to network, or nested lists of them
        The networks, as the backend holds them.
    calls : Calls
        How networks are called now.
    written : set of str
        Networks that the guide has called.
    """

    declared = True
    parts: Mapping[str, Any]

    def __init__(self, program: Program, num_data: int | None = None):
        super().__init__(program, data_fields(program), num_data)
        self.calls, self.written, self._scaled = Calls(), set(), True
        self._taken = {role: taken(program, role) for role in ("model", "guide")}

    def network_call(self, part: Any, frozen: bool) -> NetworkCall:
        """Return a network as a function, for one run of guide or model.

        Parameters
        ----------
        part : network
            One of `parts`.
        frozen : bool
            Statistics and codebooks stay as they are.
        """
        raise NotImplementedError

    def primitives(self, draws: int | None, num_data: int | None) -> Primitives:
        """Return what guide or model gets as `ppl`."""
        raise NotImplementedError

    def model(self, *args: Any, n: int | None = None, **data: Any) -> Any:
        """Run the model: with data it scores, without it draws `n` rows."""
        return self._run("model", args, data, n)

    def guide(self, *args: Any, n: int | None = None, **data: Any) -> Any:
        """Run the guide on data."""
        return self._run("guide", args, data, n)

    def _run(self, role: str, args: tuple, data: dict[str, Any], n: int | None) -> Any:
        batch = self._named(role, args, data)
        ppl = self.primitives(n, self.num_data if self._scaled else None)
        net = Networks(self, writes=role == "guide")
        return getattr(self.program, role)(ppl, net, **self.taken(role, batch))

    def taken(self, role: str, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Return the part of a batch that `model` or `guide` declares."""
        return {name: batch[name] for name in self._taken[role] if name in batch}

    def _named(self, role: str, args: tuple, data: dict[str, Any]) -> dict[str, Any]:
        known = ", ".join(self.fields) or "no fields"
        if len(args) > len(self.fields):
            raise ProgramError(f"{role} got {len(args)} arrays, the program declares {known}")
        batch = dict(zip(self.fields, args, strict=False)) | data
        unknown = set(batch) - set(self.fields)
        if unknown:
            raise ProgramError(f"{role} got {', '.join(sorted(unknown))}: the program declares {known}")
        return batch

    @contextmanager
    def unscaled(self) -> Iterator[None]:
        """Run guide and model with scale 1, as the project's own objectives do."""
        before, self._scaled = self._scaled, False
        try:
            yield
        finally:
            self._scaled = before

    @contextmanager
    def calling(self, calls: Calls) -> Iterator[None]:
        """Run guide and model with scale 1, with networks called as asked."""
        before, self.calls = self.calls, calls
        try:
            with self.unscaled():
                yield
        finally:
            self.calls = before

    def ensure_parameters(self, batch: Mapping[str, Any]) -> None:
        """Do nothing: a declared program has its parameters from the start."""

    def as_batch(self, item: Any) -> dict[str, Any]:
        """Return a batch of a `data.loader.Loader` of the program's fields on the device."""
        return {name: self._array(item[name]) for name in self.fields if name in item}
