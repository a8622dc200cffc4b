"""What training asks for. Each objective is a frozen dataclass; each backend computes it, per datum and per
site, in nats.

Evaluation never uses these weights: it always reports the plain bound.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ppl_vae.errors import ProgramError, UsageError
from ppl_vae.schedules import as_schedule


def _check_particles(name: str, value: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UsageError(f"{name}={value!r}: a number of samples is a whole number of at least 1")


@dataclass(frozen=True)
class ELBO:
    """Evidence lower bound: E_q[log p(x | z)] - beta KL(q(z | x) || p(z)), in nats.

    Attributes
    ----------
    beta : float, str or schedule
        Weight of the KL; a schedule maps the step to a weight, 0 is allowed. Its text form is that of
        `ppl_vae.schedules.as_schedule`.
    warm_up : int
        Steps over which the weight rises linearly from 0 (0: none). Multiplies `beta`.
    analytic_kl : bool
        Use the closed form where one is registered, samples elsewhere.
    particles : int
        Samples of the guide a datum.

    References
    ----------
    Kingma & Welling, arXiv:1312.6114, eq. 3; Higgins et al. 2017 (beta); Sonderby et al., arXiv:1602.02282
    (warm-up).
    """

    beta: Any = 1.0
    warm_up: int = 0
    analytic_kl: bool = True
    particles: int = 1

    def __post_init__(self) -> None:
        _check_particles("particles", self.particles)
        if not isinstance(self.warm_up, int) or self.warm_up < 0:
            raise UsageError(f"warm_up={self.warm_up!r}: a number of steps is a whole number of at least 0")
        schedule = as_schedule(self.beta)
        if schedule(0) < 0:
            raise UsageError(f"beta={self.beta!r}: the weight of the KL cannot be negative")

    def weight(self, step: int) -> float:
        """Return the weight of the KL at a step."""
        ramp = min(1.0, step / self.warm_up) if self.warm_up else 1.0
        return float(as_schedule(self.beta)(step)) * ramp

    def check_fits(self, max_steps: int) -> None:
        """Refuse a warm-up that would not end within the run."""
        if self.warm_up > max_steps:
            raise UsageError(
                f"the warm-up of {self.warm_up} steps is longer than the run of {max_steps} steps"
            )
        as_schedule(self.beta).check_fits(max_steps)


@dataclass(frozen=True)
class IWAE:
    """Importance weighted bound with k samples: E[log 1/k sum_k p(x, z_k) / q(z_k | x)], in nats a datum.

    For programs whose latents all belong to one datum. With k=1 it is the ELBO with a sampled KL.

    References
    ----------
    Burda, Grosse & Salakhutdinov, arXiv:1509.00519, eq. 8.
    """

    k: int = 5

    def __post_init__(self) -> None:
        _check_particles("k", self.k)

    def weight(self, step: int) -> float:
        """Return 1: the bound has no KL weight."""
        return 1.0

    def check_fits(self, max_steps: int) -> None:
        """Accept any length of run."""


def check_plates(site: str, plates: Sequence[tuple[str, int, int]], rows: int) -> None:
    """Refuse a site that lies in another plate than the one over the rows of the batch.

    Parameters
    ----------
    site : str
    plates : sequence of (name, dim, size)
        The plates that the site lies in.
    rows : int
        Rows of the batch.

    Raises
    ------
    ProgramError
        The terms of the bound are numbers a row: other plates would be averaged instead of summed.
    """
    for name, dim, size in plates:
        if dim != -1 or size != rows:
            raise ProgramError(
                f"site {site!r} lies in the plate {name!r}, which is not the one over the rows of the batch: "
                "make its axis part of the event with .to_event, or use a stock ELBO as the objective"
            )


class Latent(NamedTuple):
    """What the objectives need to know of a latent site of a guide."""

    enumerated: bool
    reparametrised: bool


def check_sites(guide: Mapping[str, Latent], model: Collection[str], library: str) -> None:
    """Refuse what these objectives cannot estimate, by the name of the site.

    Parameters
    ----------
    guide : dict of str to Latent
        The guide's latent sites.
    model : collection of str
        Names of the model's latent sites.
    library : str
        Whose stock objective is the remedy.

    Raises
    ------
    ProgramError
        For an enumerated site, a guide site without a reparametrised draw, or latent sites that guide and
        model do not share.
    """
    for name in sorted(set(model) - set(guide)):
        raise ProgramError(
            f"site {name!r} of the model has no site in the guide: sample it there, or observe it"
        )
    for name in sorted(set(guide) - set(model)):
        raise ProgramError(
            f"site {name!r} of the guide is not in the model: remove it, or sample it in the model too"
        )
    for name, site in sorted(guide.items()):
        if site.enumerated:
            raise ProgramError(
                f"site {name!r} is enumerated: use {library}.infer.TraceEnum_ELBO as the objective"
            )
        if not site.reparametrised:
            raise ProgramError(
                f"site {name!r} has no reparametrised draw: "
                f"use {library}.infer.TraceGraph_ELBO as the objective"
            )


OBJECTIVES = {"elbo": ELBO, "iwae": IWAE}


def parse(text: str) -> ELBO | IWAE:
    """Return the objective that a text names: `elbo`, `elbo(beta=4,warm_up=1000)`, `iwae(k=50)`."""
    name, options = parts(text)
    kind = OBJECTIVES.get(name.lower())
    if kind is None:
        raise UsageError(f"unknown objective {text!r}: write elbo, elbo(beta=4,warm_up=1000) or iwae(k=50)")
    for key, value in options.items():
        if key not in kind.__dataclass_fields__:
            raise UsageError(f"{name} has no option {key!r}: it takes {', '.join(kind.__dataclass_fields__)}")
        if isinstance(value, str) and key != "beta":
            raise UsageError(f"{key}={value!r} is not a number")
    return kind(**options)


def parts(text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the options of `name(option=value,...)`; a value is a number, a truth value or
    text.
    """
    name, bracket, rest = text.strip().partition("(")
    if bracket and not rest.endswith(")"):
        raise UsageError(f"objective {text!r} is not closed: write name(option=value,...)")
    items = [item.partition("=") for item in rest.removesuffix(")").split(",") if item.strip()]
    return name.strip(), {key.strip(): _value(value.strip()) for key, _, value in items}


def names_stock(text: str) -> bool:
    """Tell whether a text names an ELBO of the backend's library, such as `Trace_ELBO(num_particles=2)`."""
    name, _ = parts(text)
    return name.endswith("ELBO") and name.lower() not in OBJECTIVES


def text_of(name: str, options: Mapping[str, Any]) -> str:
    """Return what `parts` reads."""
    return f"{name}({','.join(f'{key}={value}' for key, value in options.items())})" if options else name


def _value(text: str) -> Any:
    words = {"true": True, "false": False}
    if text.lower() in words:
        return words[text.lower()]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            continue
    return text
