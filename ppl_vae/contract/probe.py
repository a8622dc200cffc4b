"""What the rules ask of a backend, as NumPy arrays."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from ppl_vae.diagnostics.evidence import Scores
from ppl_vae.faults import Fault

Arrays = Mapping[str, np.ndarray]


class BrokenRule(Exception):
    """A rule does not hold.

    Parameters
    ----------
    message : str
        One line.
    rule : str or None
        The rule it belongs to, where that is not the one being checked.
    calls : sequence of Call
        The calls of networks until then.
    """

    def __init__(self, message: str, rule: str | None = None, calls: Sequence["Call"] = ()):
        super().__init__(message)
        self.rule, self.calls = rule, calls


class NotApplicable(Exception):
    """A rule means nothing for this program; the text says why."""


class ProgramFailure(Exception):
    """A program's own code raised an error.

    Parameters
    ----------
    who : str
        "the model", "the guide" or "the method networks", where the error does not say.
    error : Exception
    """

    def __init__(self, who: str, error: BaseException):
        super().__init__(str(error if isinstance(error, Fault) else Fault(who, error)))


def other_event(site: str, guide: tuple[int, ...], model: tuple[int, ...]) -> str:
    """Say that a site has another event shape in the guide than in the model."""
    return (
        f"site {site!r} has event shape {guide} in the guide and {model} in the model: give both the same "
        "shape, with .to_event(number of its axes)"
    )


@dataclass(frozen=True, eq=False)
class Seen:
    """One sample site of a trace, copied to the host.

    Attributes
    ----------
    name, distribution : str
    observed : bool
        Its value was given. A factor is observed.
    factor : bool
    plates : dict of str to int
        The plates around it and their dims.
    batch_shape, event_shape : tuple of int
    value : array
        [*batch, *event].
    log_prob : array or None
        In nats, [*batch]; scale 1. None where it cannot be computed; `error` says why.
    error : str
    supported : array or None
        Which entries of the value lie in the support; None where that is not known.
    levels : int or None
        Number of grey levels that the distribution counts.
    reparametrised, enumerated, auxiliary, deterministic : bool
        How its values are drawn.
    """

    name: str
    distribution: str
    observed: bool
    factor: bool
    plates: Mapping[str, int]
    batch_shape: tuple[int, ...]
    event_shape: tuple[int, ...]
    value: np.ndarray
    log_prob: np.ndarray | None
    error: str = ""
    supported: np.ndarray | None = None
    levels: int | None = None
    reparametrised: bool = True
    enumerated: bool = False
    auxiliary: bool = False
    deterministic: bool = False

    @property
    def local(self) -> bool:
        """It lies in a plate over the rows."""
        return -1 in self.plates.values()

    @property
    def dims(self) -> int:
        """Numbers in one event."""
        return max(1, math.prod(self.event_shape))


class Call(NamedTuple):
    """One call of a network: its name, and the arrays that went in and came out."""

    network: str
    inputs: tuple[np.ndarray, ...]
    outputs: tuple[np.ndarray, ...]


class Traces(NamedTuple):
    """The sites of one run of guide and model, by name, the calls of networks in order, and what to say of a
    parameter outside its constraint, and of one that is NaN.
    """

    guide: dict[str, Seen]
    model: dict[str, Seen]
    calls: list[Call]
    outside: str = ""
    nan: str = ""

    def latent(self) -> dict[str, np.ndarray]:
        """Return the values that the guide drew."""
        return {name: site.value for name, site in self.guide.items() if not site.observed}

    def both(self) -> dict[str, Seen]:
        """Return every site under the role and its name."""
        roles = {"guide": self.guide, "model": self.model}
        return {
            f"{name!r} of the {role}": site for role, sites in roles.items() for name, site in sites.items()
        }


class Probe(Protocol):
    """A program bound to a backend, looked at from outside.

    No method changes the backend's global state. Every method raises ProgramFailure where the program's
    own code raises an error.
    """

    backend: str
    fields: tuple[str, ...]
    stock: Mapping[str, str]

    def prepare(self, rows: Arrays) -> None:
        """Make every parameter exist, where the first run does."""

    def trace(self, rows: Arrays, seed: int = 0, values: Arrays | None = None, particles: int = 1) -> Traces:
        """Run the guide, and the model on what it drew; `values` replace draws by site."""

    def draw(self, n: int, seed: int = 0, rows: Arrays | None = None, values: Arrays | None = None) -> Traces:
        """Run the model alone without the fields that it observes: from the prior, or on given latents."""

    def row_gradients(self, rows: Arrays, row: int, seed: int = 0) -> dict[str, np.ndarray]:
        """Return, by field of floats, the largest gradient of one row's densities by each input row, [B]."""

    def parameter_gradients(self, rows: Arrays, seed: int = 0, step: float = 0.0) -> dict[str, float | None]:
        """Return the largest gradient of the loss by trainable parameter; then step against its sign.

        None: not reached. A step of 0 changes nothing.
        """

    def kl(self, rows: Arrays, seed: int = 0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Return the KL by latent site at one draw: closed form where there is one, and sampled."""

    def drawn_late(self, rows: Arrays, seed: int = 0) -> list[str]:
        """Return the latent sites whose prior depends on latents that the guide draws later."""

    def score(self, rows: Arrays, importance_samples: int, seed: int = 0) -> Scores:
        """Return the bounds as an evaluation reports them."""

    def reconstruct(self, rows: Arrays, seed: int = 0) -> dict[str, np.ndarray]:
        """Return the centre of the likelihood of every row, by observed field."""

    def readings(self, rows: Arrays, seed: int = 0) -> Mapping[str, Any]:
        """Return, of `ppl_vae.contract.reading.Reading`, one for each field that its own density reads."""

    def unregistered(self) -> list[str]:
        """Return the networks that model or guide name and that nothing trains."""

    def train(self, mode: bool) -> None:
        """Set train mode or evaluation mode."""

    def weights(self) -> dict[str, np.ndarray]:
        """Return parameters and buffers by name, as copies."""

    def load_weights(self, weights: Arrays) -> None:
        """Set parameters and buffers."""

    def close(self) -> None:
        """Give back what the program owned before: modes and buffers of its modules."""


class Maker(Protocol):
    """How a backend makes a probe."""

    def __call__(self, program: Any, fields: tuple[str, ...], num_data: int, seed: int) -> Probe:
        """Bind a program to the backend; `fields` are the data's, `seed` that of the weights."""
