"""The primitives that a model or a guide gets as `ppl`: the library's own, with the differences smoothed
over.
"""

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any

from ppl_vae import checks, likelihoods
from ppl_vae.backends.common.site import under
from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.functions import Functions

DATA = "data"


class Primitives:
    """The primitives of one run of guide or model.

    Parameters
    ----------
    like : array
        Gives device and dtype to arrays that a program makes.
    draws : int or None
        Size of the plate "data" where no data is given.
    num_data : int or None
        Rows of the whole data set: stock ELBOs see a scale of num_data / batch. None: scale 1.
    scalars : dict of str to number, optional
        What changes with the step.

    Attributes
    ----------
    sample, plate, deterministic : callable
        The library's own; `deterministic` takes the axes right of the plates as the value's event.
    factor : callable
        Takes a name and a number to add to the log density, in nats. In a guide it counts as log q: the
        objective subtracts it, reported bounds leave it out.
    mask : callable
        Returns a context in which sites count only where a mask is true.
    dist : module
        The library's distributions and the project's.
    F : Functions
    """

    sample: Callable[..., Any]
    plate: Callable[..., Any]
    deterministic: Callable[[str, Any], Any]
    factor: Callable[[str, Any], None]
    mask: Callable[[Any], AbstractContextManager]
    dist: ModuleType
    F: Functions

    def __init__(
        self,
        like: Any,
        draws: int | None = None,
        num_data: int | None = None,
        scalars: Mapping[str, Any] | None = None,
    ):
        self._like, self._draws, self._num_data, self._scalars = like, draws, num_data, scalars or {}

    def __getattr__(self, name: str) -> Any:
        raise checks.no_name("ppl", name, dir(self))

    def note(self, made: dict[str, Any]) -> None:
        """From now on note by site what `sample` gets."""
        plain = self.sample

        def sample(name: str, fn: Any, *args: Any, **kwargs: Any) -> Any:
            made[name] = fn
            return plain(name, fn, *args, **kwargs)

        self.sample = sample

    def scalar(self, name: str) -> Any:
        """Return the present value of what `Program.schedules` gives, in training and in every verb.

        Raises
        ------
        ProgramError
            For an unknown name.
        """
        if name not in self._scalars:
            raise ProgramError(
                f"the program has no scalar {name!r}: its schedules() give "
                f"{', '.join(self._scalars) or 'none'} (those of the objective are for the loss alone)"
            )
        return self._scalars[name]

    def minibatch(self, *arrays: Any) -> AbstractContextManager:
        """Return the plate "data" over the rows of the batch, or over the draws asked for where every array
        is None.
        """
        # Compared in turn, not put into a set: the size of a captured graph's batch is a symbol.
        sizes = [array.shape[0] for array in arrays if array is not None]
        if any(size != sizes[0] for size in sizes):
            raise ProgramError(f"the fields of a batch have different numbers of rows: {sorted(set(sizes))}")
        rows = sizes[0] if sizes else self._draws
        if rows is None:
            raise UsageError("no data and no number of draws: call model(x) or model(n=64)")
        return self._rows(rows)

    def _rows(self, rows: int) -> AbstractContextManager:
        """Return the plate over the rows at hand."""
        raise NotImplementedError

    def likelihood(self, named: str | likelihoods.Likelihood, parameters: Any, mask: Any = None) -> Any:
        """Return a likelihood with the parameters of a network `nn.Likelihood` of the same name; what `mask`,
        of rows or of their numbers, says is missing counts nothing.
        """
        if not hasattr(parameters, "event_dim"):
            raise ProgramError(
                "ppl.likelihood takes what a network nn.Likelihood returns, no "
                f"{type(parameters).__name__}: of a decoder of your own make the distribution itself "
                "(ppl.dist.Bernoulli(logits=...), ...)"
            )
        made = likelihoods.parse(named).over(self.dist, parameters, mask)
        under(made)[-1].network = getattr(parameters, "network", None)
        return made

    def standard_normal(self, shape: int | Iterable[int]) -> Any:
        """Return N(0, I) with the event shape `shape`."""
        size = (shape,) if isinstance(shape, int) else tuple(shape)
        zeros, ones = self.F.zeros(size, self._like), self.F.ones(size, self._like)
        return self.dist.Normal(zeros, ones).to_event(len(size))

    def array(self, value: Any) -> Any:
        """Return numbers as an array on the program's device: whole numbers and truth values as they are,
        others in the program's precision.
        """
        raise NotImplementedError

    def stop_gradient(self, value: Any) -> Any:
        """Return the value as a constant."""
        return self.F.stop_gradient(value)
