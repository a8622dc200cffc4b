"""The sentence at the head of the page: the bound, its error, and what it is compared to."""

import math

from ppl_vae.report import tags
from ppl_vae.report.contents import Comparison, Finding

_SPLITS = {
    "test": ("test row", "which training never saw"),
    "valid": ("validation row", "not trained on, though possibly used to choose the weights"),
    "train": ("training row", "which the run has seen"),
    "all": ("row", "those of the training among them, which the run has seen"),
}


def html(finding: Finding | None) -> str:
    """The sentence and how to read it."""
    if finding is None:
        return tags.paragraph("No bound on validation or test rows was recorded for this run.", "lead")
    compared = finding.comparison if isinstance(finding.comparison, Comparison) else None
    sentence = _bound(finding) + (f": {_verdict(compared)}." if compared else ".")
    return tags.paragraph(sentence, "lead") + tags.note(_how(finding))


def _bound(finding: Finding) -> str:
    row, seen = _SPLITS.get(finding.split, ("row", f"of the split {finding.split}"))
    number = _error(finding.nats, finding.stderr)
    bits = "" if finding.bits_per_dim is None else f" ({finding.bits_per_dim:.3f} bits per dimension)"
    over = f"over {finding.n:,} {row if finding.n == 1 else f'{row}s'}, {seen}"
    kind = f"importance weighted bound (k = {finding.k:,})" if finding.k else "ELBO"
    return (
        f"The {kind} of {finding.program}, a lower bound on log p(x), is {number} nats per row{bits}, {over}"
    )


def _verdict(compared: Comparison) -> str:
    other = f"independent columns without latents, which give {_error(compared.nats, None)}"
    difference = f"{_error(abs(compared.better), compared.stderr)} nats"
    if compared.stderr is not None and abs(compared.better) < 2 * compared.stderr:
        return f"no clear difference ({_error(compared.better, compared.stderr)} nats) from {other}"
    return f"{difference} {'better' if compared.better > 0 else 'worse'} than {other}"


def _how(finding: Finding) -> str:
    parts = ["Higher is better."]
    if finding.stderr is not None:
        parts.append("\N{PLUS-MINUS SIGN} is one standard error over rows.")
    if finding.k:
        parts.append(f"The bound takes {finding.k:,} draws of the guide per row; more draws make it tighter.")
    else:
        parts.append("The ELBO takes one draw of the guide per row; it is at most log p(x).")
    compared = finding.comparison
    if isinstance(compared, Comparison):
        parts.append(
            f"Independent columns: {_each(compared.columns)} {compared.family}, fitted in closed form to "
            f"{compared.fitted:,} training rows"
            + (
                " and scored on the same rows."
                if compared.n == finding.n
                else f"; both sides of the difference are over the first {compared.n:,} of the rows."
            )
        )
    elif compared:
        parts.append(f"There is nothing to compare with: {compared}.")
    return " ".join(parts)


def _each(columns: int) -> str:
    if columns == 1:
        return "the one number of a row has a"
    return f"each of the {columns:,} numbers of a row has its own"


def _error(value: float, error: float | None) -> str:
    """A value to two digits of its error."""
    if not math.isfinite(value):
        return f"{value} (not finite)"
    if error is None or not math.isfinite(error) or error <= 0:
        digits = max(0, min(6, 3 - math.floor(math.log10(abs(value) or 1))))
        return tags.signed(value, min(digits, 2) if abs(value) >= 1 else digits)
    digits = max(0, min(9, 1 - math.floor(math.log10(error))))
    return f"{tags.signed(value, digits)} \N{PLUS-MINUS SIGN} {tags.signed(error, digits)}"
