"""The likelihoods that a program may name, the same on every backend.

A likelihood is a name with an optional number behind a colon: `bernoulli`, `normal_fixed:0.1`,
`categorical:10`.
"""

from typing import NamedTuple

from ppl_vae.errors import UsageError


class Likelihood(NamedTuple):
    """A parsed likelihood: its name and its number (a sigma, a number of levels or of classes)."""

    name: str
    number: float | None

    @property
    def count(self) -> int:
        """The number as a count of levels or classes."""
        return int(self.number)


# name -> (what the number means and its default; None: takes no number), description
KNOWN: dict[str, tuple[float | None, str]] = {
    "bernoulli": (None, "bits"),
    "normal": (None, "one learned sigma shared by all dimensions"),
    "normal_fixed": (1.0, "a fixed sigma: the squared error up to a constant"),
    "normal_per_dim": (None, "a learned sigma for each dimension"),
    "normal_predicted": (None, "a sigma for each dimension, predicted by the decoder"),
    "discretized_logistic": (256, "grey levels on an even grid over [0, 1]"),
    "poisson": (None, "counts"),
    "negative_binomial": (None, "overdispersed counts, by mean and a learned concentration a dimension"),
    "categorical": (2, "class labels 0 ... K-1"),
}
DISCRETE = frozenset({"bernoulli", "discretized_logistic", "poisson", "negative_binomial", "categorical"})


def parse(text: str) -> Likelihood:
    """Return the likelihood that a text names.

    Raises
    ------
    UsageError
        For an unknown name, a number that makes no sense, or one where none is taken.
    """
    name, colon, number = text.partition(":")
    if name not in KNOWN:
        raise UsageError(f"unknown likelihood {text!r}: choose one of {', '.join(KNOWN)}")
    default = KNOWN[name][0]
    if not colon:
        return Likelihood(name, default)
    try:
        value = float(number)
    except ValueError:
        value = float("nan")
    if default is None:
        raise UsageError(f"the likelihood {name!r} takes no number, got {text!r}")
    counts = name != "normal_fixed"
    if not value > 0 or (counts and (value < 2 or value != int(value))):
        wanted = "a whole number of at least 2" if counts else "a sigma above 0"
        raise UsageError(f"likelihood {text!r}: {name} takes {wanted} behind the colon")
    return Likelihood(name, value)


def is_discrete(text: str) -> bool:
    """Tell whether the likelihood is a probability mass function (else a density on [0, 1] or the reals)."""
    return parse(text).name in DISCRETE
