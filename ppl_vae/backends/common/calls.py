"""How a program's networks are called while guide and model run, and a record of who was asked what."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from ppl_vae.backends.common.folding import Folded
from ppl_vae.contract.probe import Call
from ppl_vae.errors import ProgramError
from ppl_vae.faults import note_network

VALUES = (str, int, float, bool, type(None))


@dataclass
class Calls:
    """What holds for all of one run.

    Attributes
    ----------
    scaled : bool
        Rows are scaled up to those of the data set.
    frozen : bool
        Statistics and codebooks stay as they are.
    stopped : bool
        Parameters are constants: no gradient reaches them.
    remembered : dict or None
        Results by network and arguments, where a network is computed once for the same arguments: a ladder's
        guide and model walk the same way down.
    made : dict or None
        Filled in, by site, with the distributions that `ppl.sample` gets, which a plate may expand to others.
    particles, depth : int
        Draws of the guide per row, and the batch axes to the right of theirs.
    """

    scaled: bool = False
    frozen: bool = False
    stopped: bool = False
    remembered: dict[Any, Any] | None = None
    made: dict[str, Any] | None = None
    particles: int = 1
    depth: int = 1

    def once(self, network: Any, made: "NetworkCall", args: tuple, kwargs: dict[str, Any]) -> Any:
        """Call a network, or return what it has answered to the very same arrays.

        A network that keeps a state of its own may answer otherwise once that has moved: without an argument
        it is called again.
        """
        if self.remembered is None or (made.stateful and not (args or kwargs)):
            return made.function(*args, **kwargs)
        key = id(network), _key(args), _key(tuple(sorted(kwargs.items())))
        if key not in self.remembered:
            # The arguments stay alive, so that no other array gets their identity.
            self.remembered[key] = made.function(*args, **kwargs), args, kwargs
        return self.remembered[key][0]


def _key(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_key, value))
    return value if isinstance(value, VALUES) else id(value)


class NetworkCall(NamedTuple):
    """A network as a function, whether it has a state of its own, and whether it holds modules that are none
    of ppl_vae, which need not keep leading axes.
    """

    function: Callable[..., Any]
    stateful: bool
    foreign: bool = False


class Networks:
    """What a program sees as `net` in one run of guide or model: its networks as attributes.

    Statistics of a network that the guide calls are written by the guide alone, else they would move twice
    per step.

    Parameters
    ----------
    bound : DeclaredBound
    writes : bool
        It is the guide that runs.
    rows : int or None
        Rows of the batch, or drawn.
    """

    def __init__(self, bound: Any, writes: bool, rows: int | None = None):
        self._bound, self._writes, self._rows, self._made = bound, writes, rows, {}

    def __getattr__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self._named(name)
        return self._made[name]

    def _named(self, name: str) -> Any:
        bound = self._bound
        if name not in bound.parts:
            raise ProgramError(
                f"the program has no network {name!r}: it declares {', '.join(bound.parts) or 'none'}"
            )
        if self._writes:
            bound.written.add(name)
        frozen = bound.calls.frozen or (not self._writes and name in bound.written)
        return self._callable(name, bound.parts[name], frozen)

    def _callable(self, name: str, part: Any, frozen: bool) -> Any:
        if isinstance(part, list):
            return [self._callable(f"{name}.{index}", one, frozen) for index, one in enumerate(part)]
        made, once = self._bound.network_call(part, frozen), self._bound.calls.once
        if made.foreign:
            made = made._replace(function=self._folded(name, made.function))

        def call(*args: Any, **kwargs: Any) -> Any:
            try:
                answer = once(part, made, args, kwargs)
                if answer is None:
                    raise ProgramError("it returns None: end its forward (on flax its __call__) with return")
                return answer
            except Exception as error:
                note_network(error, name, (*args, *kwargs.values()))
                raise

        return call

    def _folded(self, name: str, function: Callable[..., Any]) -> Folded:
        bound = self._bound
        axes = bound.axes.setdefault(name, {})
        return Folded(bound.F, function, axes, bound.calls.particles, bound.calls.depth, self._rows)


def flat(name: str, part: Any) -> Iterator[tuple[str, Any]]:
    """Yield the networks of one of a program's `parts` by name; those in a list by their number."""
    if isinstance(part, list):
        for index, one in enumerate(part):
            yield from flat(f"{name}.{index}", one)
    else:
        yield name, part


class Recorder:
    """Watches the networks of a declared program; two functions have none that could be named.

    Parameters
    ----------
    bound : Bound

    Attributes
    ----------
    calls : list of Call
        Since the last `start`.
    """

    def __init__(self, bound: Any):
        self.start()
        for name, parts in getattr(bound, "parts", {}).items():
            for number, part in flat(name, parts):
                self._watch(number, part)

    def _watch(self, name: str, part: Any) -> None:
        """Note the calls of a network by `_running` and `calls`."""
        raise NotImplementedError

    @property
    def running(self) -> str | None:
        """The network that was entered and not left."""
        return self._running[-1] if self._running else None

    def start(self) -> None:
        """Forget what was seen."""
        self.calls: list[Call] = []
        self._running: list[str] = []
