"""The evidence lower bound."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ppl_vae.errors import UsageError
from ppl_vae.objectives.base import Objective, scheduled


@dataclass(frozen=True)
class ELBO(Objective):
    """Evidence lower bound: E_q[log p(x | z)] - beta KL(q(z | x) || p(z)), in nats.

    Attributes
    ----------
    beta : float, str or schedule
        Weight of the KL; 0 is allowed. Its text form is that of `ppl_vae.schedules.as_schedule`.
    warm_up : int
        Steps over which the weight rises linearly from 0 (0: none). Multiplies `beta`.
    analytic_kl : bool
        Use the closed form of a site's KL where it applies, samples elsewhere.
    particles : int
        Draws of the guide per row.

    References
    ----------
    Kingma & Welling, arXiv:1312.6114, eq. 3; Higgins et al. 2017 (beta); Sonderby et al., arXiv:1602.02282
    (warm-up).
    """

    beta: Any = scheduled(1.0)
    warm_up: int = field(default=0, metadata={"least": 0})
    analytic_kl: bool = True
    particles: int = 1

    def loss(self, F: Any, terms: Any, scalars: Mapping[str, Any]) -> Any:
        return terms.distortion + scalars["beta"] * terms.rate + terms.penalty

    def scalars(self, step: int) -> dict[str, float]:
        """Return the weight of the KL at a step."""
        rise = min(1.0, step / self.warm_up) if self.warm_up else 1.0
        return {"beta": super().scalars(step)["beta"] * rise}

    def check_fits(self, max_steps: int) -> None:
        """Refuse a warm-up or a schedule that does not end within the run."""
        super().check_fits(max_steps)
        if self.warm_up > max_steps:
            raise UsageError(
                f"the warm-up of {self.warm_up} steps is longer than the run of {max_steps} steps"
            )
