"""Rules about values: supports, finite densities, seeds, draws, bounds."""

import numpy as np

from ppl_vae import likelihoods
from ppl_vae.contract.case import Case, shown
from ppl_vae.contract.probe import BrokenRule, Call, Seen, Traces

DRAWS = 24
IMPORTANCE_SAMPLES = 16
# Steps away from the first weights, each so far against the sign of the gradient.
MOVES, MOVE = 6, 0.05


def support(case: Case) -> str:
    """Data lie in the support of the likelihood, draws of the guide in that of the prior."""
    for name, site in case.wide.model.items():
        if site.factor or site.supported is None:
            continue
        if site.observed and site.levels and case.data.levels and case.data.levels > 2:
            _same_grid(case, name, site)
        if not site.observed and case.wide.nan and np.isnan(site.value).any():
            raise BrokenRule(case.wide.nan, "finite")
        if not site.supported.all():
            raise BrokenRule(_outside(case, name, site))
    return "data and draws lie in the supports"


def _outside(case: Case, name: str, site: Seen) -> str:
    if not site.observed:
        return (
            f"site {name!r}: draws of the guide lie outside the support of its {site.distribution} in the "
            "model: choose a guide with the same support"
        )
    value = site.value.reshape(-1)
    if site.supported.shape == site.value.shape:
        value = value[~site.supported.reshape(-1)]
    share, kind = 1 - site.supported.mean(), site.distribution
    at = f"site {name!r}: {share:.0%} of the data lies outside the support of {kind}"
    whole = bool((site.value == np.round(site.value)).all())
    values = likelihoods.Values(site.value.min(), site.value.max(), whole, case.data.levels)
    return f"{at} (such as {shown(float(value[0]))}): {likelihoods.remedy(kind, values)}"


def _same_grid(case: Case, name: str, site: Seen) -> None:
    place = site.value * (site.levels - 1)
    if np.abs(place - np.round(place)).max() > 1e-2:
        raise BrokenRule(
            f"site {name!r}: the data has {case.data.levels} grey levels, the likelihood {site.levels}: "
            f"choose {likelihoods.of_distribution(site.distribution).name}:{case.data.levels}"
        )


def finite(case: Case) -> str:
    """Parameters meet their constraints at the start; log densities are finite, and so are the gradients."""
    if case.wide.outside:
        raise BrokenRule(case.wide.outside)
    _finite_sites(case.wide, "evaluation")
    _finite_sites(case.trained, "train")
    with case.mode(train=True) as probe:
        sizes = probe.parameter_gradients(case.rows, case.seed)
    bad = [name for name, size in sizes.items() if size is not None and not np.isfinite(size)]
    if bad:
        last = max(bad, key=lambda name: _last_call(case.trained, name))
        raise BrokenRule(
            f"the gradient of {last} is {sizes[last]} though the densities are finite: look for the square "
            "root, logarithm or division of 0 in its network"
        )
    return f"densities and gradients of {len(next(iter(case.rows.values())))} rows are finite"


def _last_call(traces: Traces, parameter: str) -> int:
    """Return when a parameter's network was called last: the way back from the loss begins there."""
    calls = [place for place, call in enumerate(traces.calls) if parameter.startswith(call.network + ".")]
    return max(calls, default=-1)


def _finite_sites(traces: Traces, mode: str) -> None:
    for label, site in traces.both().items():
        if site.log_prob is None:
            raise BrokenRule(f"site {label}: {site.error}")
        bad = ~np.isfinite(site.log_prob)
        if bad.any():
            worst = shown(float(site.log_prob[bad].reshape(-1)[0]))
            network = next((call.network for call in traces.calls if _spoils(call)), None)
            culprit = (
                f"network {network!r} returns NaN or infinity"
                if network
                else "its parameters are out of range"
            )
            raise BrokenRule(
                f"site {label}: its log density is {worst} for {bad.mean():.0%} of the rows in {mode} mode: "
                f"{culprit}; bound scales from below and logits from both sides"
            )


def _spoils(call: Call) -> bool:
    return all(np.isfinite(a).all() for a in call.inputs) and not all(
        np.isfinite(a).all() for a in call.outputs
    )


def seeds(case: Case) -> str:
    """The seed alone decides first weights and draws."""
    twin = case.make(case.seed)
    try:
        twin.train(False)
        twin.prepare(case.batch())
        mine, theirs = case.probe.weights(), twin.weights()
        for name, array in mine.items():
            if not np.array_equal(array, theirs.get(name), equal_nan=True):
                raise BrokenRule(
                    f"{name} starts elsewhere when bound again with seed {case.seed}: draw first weights "
                    f"with the generator of {case.backend} alone"
                )
        for probe in (case.probe, twin):
            _same_draws(case, probe.trace(case.batch(), case.seed))
    finally:
        twin.close()
    other = case.probe.trace(case.batch(), case.seed + 1).guide
    random = [site for site in case.traces.guide.values() if not site.observed and not site.deterministic]
    if random and all(_same(site, other[site.name]) for site in random if site.name in other):
        raise BrokenRule("another seed gives the same draws: set no seed inside model, guide or networks")
    return "the same seed gives the same weights and draws"


def _same_draws(case: Case, again: Traces) -> None:
    other = again.both()
    for label, site in case.traces.both().items():
        if label not in other or not _same(site, other[label]):
            raise BrokenRule(
                f"site {label} is another one in a second run with seed {case.seed}: draw random numbers "
                "with ppl.sample alone, and keep no counters in networks"
            )


def _same(a: Seen, b: Seen) -> bool:
    same_value = np.array_equal(a.value, b.value, equal_nan=a.value.dtype.kind == "f")
    return same_value and np.array_equal(a.log_prob, b.log_prob, equal_nan=True)


def draws(case: Case) -> str:
    """Gradients pass through every draw of the guide."""
    stock = case.probe.stock
    for name, site in case.traces.guide.items():
        if site.observed:
            continue
        if site.enumerated:
            raise BrokenRule(f"site {name!r} is enumerated: train with the objective {stock['enumerated']}")
        if not site.reparametrised:
            raise BrokenRule(
                f"site {name!r}: {site.distribution} has no reparametrised draw, so no gradient reaches the "
                "encoder: use a continuous distribution, or train with the objective "
                f"{stock['unreparametrised']}"
            )
    return "every draw of the guide is reparametrised"


def bound(case: Case) -> str:
    """Closed forms of the KL agree with samples, and the importance weighted bound is not below the ELBO."""
    _kl_agrees(case)
    with case.mode(train=False) as probe:
        # At the first weights a wrong term may vanish.
        for number in range(MOVES):
            probe.parameter_gradients(case.rows, case.seed + number, MOVE)
        _kl_agrees(case)
    late = case.probe.drawn_late(case.batch(), case.seed)
    agrees = "KL agrees with samples"
    if late:
        agrees += (
            f"; that of {', '.join(map(repr, late))} is taken at the draws, as its prior depends on latents "
            "that the guide draws later"
        )
    if case.plain:
        return agrees
    scores = case.probe.score(case.rows, IMPORTANCE_SAMPLES, case.seed)
    if scores.iw is None:
        return f"{agrees}; {scores.iw_note}"
    above_elbo(scores.elbo, scores.iw, IMPORTANCE_SAMPLES)
    elbo, iw = shown(scores.elbo.mean()), shown(scores.iw.mean())
    return f"{agrees}; ELBO {elbo}, IW-{IMPORTANCE_SAMPLES} {iw} nats at the start"


def _kl_agrees(case: Case) -> None:
    drawn = [case.probe.kl(case.rows, case.seed + number) for number in range(DRAWS)]
    for name in drawn[0][0]:
        closed, sampled = (np.stack([pair[part][name] for pair in drawn]) for part in (0, 1))
        _right_kl(case.traces.model[name], case.traces.guide[name].distribution, closed, sampled)


def _right_kl(site: Seen, guide: str, closed: np.ndarray, sampled: np.ndarray) -> None:
    lowest, pair = float(closed.min()), f"KL({guide} || {site.distribution})"
    if lowest < -1e-4 * site.dims and not np.array_equal(closed, sampled):
        raise BrokenRule(
            f"site {site.name!r}: {pair} in closed form is {shown(lowest)} nats, a KL is never below 0"
        )
    gap = (closed - sampled).reshape(len(closed), -1).mean(1)
    noise = 6 * gap.std(ddof=1) / np.sqrt(len(gap)) + 1e-4 * max(site.dims, abs(float(closed.mean())))
    if abs(gap.mean()) > noise:
        raise BrokenRule(
            f"site {site.name!r}: {pair} in closed form is {shown(closed.mean())} nats, log q - log p on "
            f"average {shown(sampled.mean())} over {len(gap)} draws: its KL, log_prob or sampler is wrong"
        )


def above_elbo(elbo: np.ndarray, iw: np.ndarray, samples: int) -> None:
    """Refuse an importance weighted bound that lies below the ELBO beyond its noise; both [N], in nats."""
    gap = iw - elbo
    noise = 5 * (gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else 0.0)
    if gap.mean() < -noise - 1e-4 * max(1.0, float(np.abs(elbo).mean())):
        raise BrokenRule(
            f"the bound with {samples} importance samples, {shown(iw.mean())} nats, lies below the ELBO, "
            f"{shown(elbo.mean())}: several samples at once give other densities than one"
        )
