"""The terms of the bound, per row and per site, in nats: what an objective works with."""

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

from ppl_vae.backends.common.site import Pair, Trace
from ppl_vae.errors import ProgramError
from ppl_vae.functions import Functions


class Densities:
    """Log densities of one run of guide and model.

    In nats, at the latents that were drawn or given. That of rows is [B], or [P, B] with P > 1 particles;
    that of a global site [] or [P].
    """

    def __init__(self, guide: Trace, model: Trace):
        self.guide, self.model = guide, model

    @cached_property
    def log_joint(self) -> Any:
        """Log p(x, z) over all sites, [B] or [P, B]; see `log_rows`."""
        return log_rows(self.model, scaled=True)

    @cached_property
    def log_guide(self) -> Any:
        """Log q(z | x) over all latent sites, [B] or [P, B]; see `log_rows`."""
        return log_rows(self.guide.latent, scaled=True)

    @cached_property
    def log_weights(self) -> Any:
        """Log p(x, z) - log q(z | x), guide factors left out, [B] or [P, B]."""
        return self.log_joint - self.log_guide


class Terms(Densities):
    """What an objective works with.

    Parameters
    ----------
    F : Functions
    pair : Pair
    num_data : int
        Rows of the whole data set, which share the global sites.
    analytic_kl : bool
        Use the closed form of a site's KL where it applies; else log q - log p at the draws.
    """

    def __init__(self, F: Functions, pair: Pair, num_data: int, analytic_kl: bool = True):
        super().__init__(pair.guide, pair.model)
        self.F, self.pair, self.num_data, self.analytic_kl = F, pair, num_data, analytic_kl

    @cached_property
    def log_likelihood(self) -> Any:
        """Sum over the observed sites, per row."""
        seen = self.model.observed.local
        if not seen:
            first = next(iter((*self.model.values(), *self.guide.values())))
            return self.F.zeros((), self.F.to_float(first.value))
        return log_rows(seen, scaled=True)

    @cached_property
    def kl(self) -> dict[str, Any]:
        """By local latent site."""
        return {name: self._divergence(name) for name in self.model.latent.local} | self._made_of(local=True)

    @cached_property
    def kl_global(self) -> dict[str, Any]:
        """By site outside the plate over the rows, for the whole data set."""
        terms = {
            name: -site.summed(site.log_prob) if site.observed else self._divergence(name)
            for name, site in self.model.items()
            if not site.local
        } | self._made_of(local=False)
        return {name: term.sum(-1) if term.ndim else term for name, term in terms.items()}

    @cached_property
    def auxiliary(self) -> dict[str, Any]:
        """Factors of the guide, such as the commitment of a VQ guide: penalties that no reported bound
        contains.
        """
        return {name: site.summed(site.log_prob) for name, site in self.guide.observed.items()}

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """Numbers that the guide's distributions report of themselves."""
        return {name: value for site in self.guide.values() for name, value in site.metrics().items()}

    @cached_property
    def distortion(self) -> Any:
        """Minus the log-likelihood, its mean over rows and particles, []."""
        return -self.log_likelihood.mean()

    @cached_property
    def rate(self) -> Any:
        """The KL of all sites in nats per row, global ones shared out over the data set, []."""
        return _mean(self.kl) + _mean(self.kl_global) / self.num_data

    @cached_property
    def penalty(self) -> Any:
        """The guide's factors, their mean over rows and particles, []."""
        return _mean(self.auxiliary)

    @cached_property
    def parameters_stopped(self) -> Densities:
        """The same densities with all parameters as constants: gradients pass through the draws alone."""
        return _Stopped(self.pair, "parameters")

    @cached_property
    def draws_stopped(self) -> Densities:
        """The same densities with the draws as constants: gradients reach the densities' own parameters."""
        return _Stopped(self.pair, "draws")

    @cached_property
    def closed(self) -> frozenset[str]:
        """The latent sites whose closed-form KL is a term of the bound."""
        return drawn_in_order(self.guide, self.model)

    def _made_of(self, local: bool) -> dict[str, Any]:
        """Return log q of what the guide makes its latents of, which have the rest of it."""
        sites = {name: self.guide[name] for name in self.guide.auxiliary - set(self.model)}
        return {name: site.summed(site.log_prob) for name, site in sites.items() if site.local == local}

    def _divergence(self, name: str) -> Any:
        q, p = self.guide[name], self.model[name]
        # The closed form of a point forgets the density that an autoguide gives it.
        point = q.distribution == "Delta"
        if self.analytic_kl and name in self.closed and not p.marginal and not point:
            kl = q.closed_kl(p)
            if kl is not None:
                return q.summed(q.scaled(kl))
        return q.summed(q.log_prob) - p.summed(p.log_prob)


class _Stopped(Densities):
    """Densities of a further run at the same draws; each role runs when it is first asked for."""

    def __init__(self, pair: Pair, what: str):
        self._pair, self._what = pair, what

    @cached_property
    def guide(self) -> Trace:
        return self._pair.again("guide", self._what)

    @cached_property
    def model(self) -> Trace:
        return self._pair.again("model", self._what)


def drawn_in_order(guide: Trace, model: Trace) -> frozenset[str]:
    """Return the latent sites that the guide draws after every latent that precedes them in the model.

    Only for these is E_q[log q(z | .) - log p(z | .)] the mean of KL(q(z | .) || p(z | .)): else the prior's
    parameters depend on a latent that the guide draws later, given the site itself.
    """
    places = {name: place for place, name in enumerate(guide.latent)}
    in_order, latest = set(), -1
    for name in model.latent:
        place = places.get(name, -1)
        if latest < place:
            in_order.add(name)
        latest = max(latest, place)
    return frozenset(in_order)


def log_rows(sites: Trace, *, scaled: bool) -> Any:
    """Return the summed log densities of sites per row, in nats, [B] or [P, B]; 0.0 of no sites.

    With `scaled` under the scale that handlers ask for, as losses weigh them, else with scale 1. Refuses a
    global site with a ProgramError: a number per row would count it once per row.
    """
    for name, site in sites.items():
        if not site.local:
            raise ProgramError(
                f"site {name!r} is global: importance weights per row are wrong for it; use the ELBO"
            )
    return added(site.summed(site.log_prob if scaled else site.log_density) for site in sites.values())


def added(terms: Iterable[Any]) -> Any:
    """Return the sum of arrays; 0.0 of none."""
    # Not from 0.0 on: a captured graph would hold one more node.
    first, *rest = [*terms] or [0.0]
    return sum(rest, start=first)


def _mean(terms: Mapping[str, Any]) -> Any:
    return sum((term.mean() for term in terms.values()), start=0.0)
