"""The numbers of a result as rows to read: name, value, error, unit."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

from ppl_vae.summaries import Row, aligned, number

# What a result may tell, in the order in which it is shown; `_nats` are per row.
NAMES = {
    "elbo_nats": "ELBO",
    "iw_nats": "IW bound",
    "rate_nats": "rate",
    "distortion_nats": "distortion",
    "bits_per_dim": "bound per dimension",
    "mse": "mean squared error",
    "mse_over_variance": "error / variance",
    "perplexity": "codebook perplexity",
    "usage": "codebook usage",
}
UNITS = {"bits_per_dim": "bits", "perplexity": "codes", "usage": "of the codes"}
BY_SITE = "rate_nats_by_site"


def measures(result: Mapping[str, Any]) -> list[Row]:
    """Return rows (name, value, "± error", unit) of the measured numbers of a result that are there."""
    rows = []
    for key, name in NAMES.items():
        if _is_number(result.get(key)):
            error = result.get(key.removesuffix("_nats") + "_stderr")
            error = error if _is_number(error) else None
            if key == "iw_nats" and result.get("k"):
                name = f"{name} (k = {result['k']})"
            unit = "nats per row" if key.endswith("_nats") else UNITS.get(key, "")
            rows.append(
                (name, number(result[key], error), "" if error is None else number(error, error), unit)
            )
        if key == "rate_nats" and len(sites := result.get(BY_SITE) or {}) > 1:
            rows += [(f"  of {site}", number(value), "", "nats per row") for site, value in sites.items()]
    values, errors = (aligned([row[i] for row in rows]) for i in (1, 2))
    marked = [f"± {error}" if error.strip() else "" for error in errors]
    return [(row[0], value, error, row[3]) for row, value, error in zip(rows, values, marked, strict=True)]


def is_shown(key: str) -> bool:
    """Tell whether a key of a result is among what `measures` shows."""
    return key in (*NAMES, BY_SITE) or key.endswith("_stderr")


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
