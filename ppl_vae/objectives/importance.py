"""Importance weighted bounds and gradients of lower variance for them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ppl_vae.objectives.base import Loss, Objective


@dataclass(frozen=True)
class _Weighted(Objective):
    """k draws per row, weighed by p(x, z) / q(z | x), for programs whose latents all belong to a row."""

    k: int = 5

    analytic_kl: ClassVar[bool] = False

    @property
    def particles(self) -> int:
        """Draws per row."""
        return self.k

    def check(self, terms: Any) -> None:
        """Refuse global latents: one weight per row would count them once per row."""
        _ = terms.log_weights

    def over_draws(self, F: Any, weights: Any) -> Any:
        """Return log of the mean over draws of exp(weights): [k, B], or [B] with one draw, to [B]."""
        return weights if self.k == 1 else F.logsumexp(weights, 0) - math.log(self.k)


@dataclass(frozen=True)
class IWAE(_Weighted):
    """Importance weighted bound with k samples: E[log 1/k sum_k p(x, z_k) / q(z_k | x)], in nats per row.

    With k=1 it is the ELBO with a sampled KL.

    References
    ----------
    Burda, Grosse & Salakhutdinov, arXiv:1509.00519, eq. 8.
    """

    def loss(self, F: Any, terms: Any, scalars: Mapping[str, Any]) -> Loss:
        bound = self.over_draws(F, terms.log_weights).mean()
        return Loss(terms.penalty - bound, {"iw_nats": bound})


@dataclass(frozen=True)
class STL(_Weighted):
    """The importance weighted bound without the score of the guide ("sticking the landing").

    The guide's parameters are constants in log q: its gradient passes through the draws alone, which removes
    a term of mean zero at k=1. For k above 1 the term has another mean, so that the gradient of the guide is
    biased; `DReG` is not.

    References
    ----------
    Roeder, Wu & Duvenaud, arXiv:1703.09194, eq. 7; Tucker et al., arXiv:1810.04152, section 5 (the bias).
    """

    k: int = 1

    def loss(self, F: Any, terms: Any, scalars: Mapping[str, Any]) -> Loss:
        weights = terms.log_joint - terms.parameters_stopped.log_guide
        bound = self.over_draws(F, weights).mean()
        return Loss(terms.penalty - bound, {"iw_nats": bound})


@dataclass(frozen=True)
class DReG(_Weighted):
    """The importance weighted bound with doubly reparametrised gradients.

    With normalised weights w_k, the model's parameters get sum_k w_k d log p(x, z_k), and the guide's,
    through the draws, sum_k w_k^2 d log(p(x, z_k) / q(z_k | x)): unbiased, with a variance that does not grow
    with k.

    References
    ----------
    Tucker et al., arXiv:1810.04152, eq. 8.
    """

    def loss(self, F: Any, terms: Any, scalars: Mapping[str, Any]) -> Loss:
        log_weights = F.stop_gradient(terms.log_weights)
        bound = self.over_draws(F, log_weights).mean()
        share = F.softmax(log_weights, 0) if self.k > 1 else F.ones(log_weights.shape, log_weights)
        paths = terms.parameters_stopped
        surrogate = share * terms.draws_stopped.log_joint + share**2 * (paths.log_joint - paths.log_guide)
        surrogate = surrogate.sum(0).mean() if self.k > 1 else surrogate.mean()
        # The value of the bound, with the gradient of the surrogate.
        return Loss(terms.penalty - bound - (surrogate - F.stop_gradient(surrogate)), {"iw_nats": bound})
