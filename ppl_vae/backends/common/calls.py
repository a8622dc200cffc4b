"""How a program's networks are called while guide and model run."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PLAIN = (str, int, float, bool, type(None))


@dataclass
class Calls:
    """What holds for all calls of one run.

    Attributes
    ----------
    frozen : bool
        Statistics and codebooks stay as they are.
    stopped : bool
        Parameters are constants: no gradient reaches them.
    remembered : dict or None
        Results by network and arguments, where a network is computed once for the same arguments: a ladder's
        guide and model walk the same way down.
    """

    frozen: bool = False
    stopped: bool = False
    remembered: dict[Any, Any] | None = None

    def once(
        self, network: Any, stateful: bool, call: Callable[..., Any], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        """Call a network, or return what it has answered to the very same arrays.

        A network that keeps a state of its own may answer otherwise once that has moved: without an argument
        it is called again.
        """
        if self.remembered is None or (stateful and not (args or kwargs)):
            return call(*args, **kwargs)
        key = id(network), _key(args), _key(tuple(sorted(kwargs.items())))
        if key not in self.remembered:
            # The arguments are kept alive, so that no other array gets their identity.
            self.remembered[key] = call(*args, **kwargs), args, kwargs
        return self.remembered[key][0]


def _key(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(map(_key, value))
    return value if isinstance(value, PLAIN) else id(value)
