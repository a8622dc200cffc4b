"""What a likelihood is: from a decoder's outputs to a distribution of the data."""

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from ppl_vae.errors import UsageError

Array = Any
Shape = tuple[int, ...]
SCALE_FLOOR = 1e-4


class Values(NamedTuple):
    """What a remedy depends on: the range of the data, whether its numbers are whole, and its grey levels,
    where it has such.
    """

    low: float
    high: float
    whole: bool = False
    levels: int | None = None

    @property
    def counts(self) -> bool:
        """They may be counts or labels."""
        return self.whole and self.low >= 0


class Start(NamedTuple):
    """First values of a likelihood.

    Attributes
    ----------
    outputs : array
        Of the decoder, [outputs, *x_shape]: the biases of its last layer.
    free : array or None
        What all rows share, of the shape that `Likelihood.free` says.
    """

    outputs: Array
    free: Array | None = None


def positive(F: Any, raw: Array) -> Array:
    """Map the reals to scales: softplus with a floor, in single precision or better."""
    return F.softplus(F.to_single(raw)) + SCALE_FLOOR


def whole(default: int, least: int = 2) -> Any:
    """Declare a field that is a whole number, of levels or classes."""
    return field(default=default, metadata={"wanted": f"a whole number of at least {least}", "least": least})


def above_zero(default: float) -> Any:
    """Declare a field that is a number above 0."""
    return field(default=default, metadata={"wanted": "a number above 0"})


@dataclass(frozen=True)
class Likelihood:
    """A likelihood by name; its fields are the numbers that may stand behind the name, each after a colon.

    A user's own is a subclass, an object of which goes to `nn.Likelihood` and `ppl.likelihood` in place of a
    text.

    Attributes
    ----------
    name : str
        What it is called in texts.
    takes : str
        Its data: bits, grey (levels on an even grid over [0, 1]), unit (numbers in [0, 1]), reals, counts or
        labels.
    discrete : bool
        It is a probability mass, not a density.
    distributions : tuple of str
        Names that its distribution has in the libraries, by which messages find it.
    needs : str
        What data must be, for messages.
    """

    name: ClassVar[str] = ""
    takes: ClassVar[str] = "reals"
    discrete: ClassVar[bool] = False
    distributions: ClassVar[tuple[str, ...]] = ()
    needs: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for declared in fields(self):
            value, least = getattr(self, declared.name), declared.metadata.get("least")
            if "wanted" not in declared.metadata:
                continue
            fits = value > 0 if least is None else value >= least and float(value).is_integer()
            if not (fits and math.isfinite(value)):
                raise UsageError(
                    f"likelihood {self.name}: {declared.name}={value} must be {declared.metadata['wanted']}"
                )

    def __str__(self) -> str:
        """Return the text that names it, with all its numbers."""
        return ":".join([self.name, *(str(getattr(self, declared.name)) for declared in fields(self))])

    @property
    def outputs(self) -> int:
        """How many numbers the decoder gives for each number of an observation."""
        return 1

    def free(self, x_shape: Shape) -> Shape | None:
        """Return the shape of a learned array that all rows share; None: there is none.

        Raises
        ------
        UsageError
            Where the likelihood is not for rows of this shape.
        """
        return None

    def parameters(self, F: Any, outputs: Array, free: Array | None) -> tuple[Array, ...]:
        """Return the distribution's parameters, each [..., *x_shape] with further axes on the right.

        Parameters
        ----------
        outputs : [outputs, ..., *x_shape]
            Of the decoder, any real numbers.
        free : array or None
            The array of shape `free(x_shape)`, which starts at 0.
        """
        return (outputs[0],)

    def start(self, fitted: Any, x: Array) -> Start | None:
        """Return the values at which training starts: those that fit rows without latents, each dimension by
        itself. None: the decoder starts at random about 0, what all rows share at 0.

        Parameters
        ----------
        fitted : module
            `ppl_vae.likelihoods.starts`: moments and frequencies, as decoders give them.
        x : [N, *x_shape]
            Rows to train on; a masked array where some of their numbers are missing.
        """
        return None

    def distribution(self, dist: Any, *parameters: Array) -> Any:
        """Return the distribution, of `ppl.dist`, of single numbers or of events of several axes."""
        raise NotImplementedError(f"{type(self).__name__} says no distribution(self, dist, *parameters)")

    def over(self, dist: Any, parameters: Any, mask: Array | None = None) -> Any:
        """Return the distribution of whole observations, from what a network `nn.Likelihood` returns; what a
        mask of rows, or of their numbers, says is missing counts nothing.

        Raises
        ------
        UsageError
            For a mask where several numbers are one draw.
        """
        made = self.distribution(dist, *parameters.values)
        if mask is not None and made.event_dim:
            raise UsageError(
                f"likelihood {self.name}: it draws several numbers at once, and none can be masked: choose "
                "another"
            )
        if mask is not None:
            made = made.mask(mask[(..., *(None,) * (1 + parameters.event_dim - mask.ndim))])
        return made.to_event(parameters.event_dim - made.event_dim)

    @classmethod
    def remedy(cls, data: Values) -> str:
        """Say what to do with data outside the support."""
        if not cls.needs:
            return "transform the data, or choose another likelihood"
        other = "poisson" if data.counts else "normal"
        return f"it needs {cls.needs}: scale the data, or choose the likelihood {other}"
