"""The page of a run: one file that needs nothing beside it."""

from html import escape

import numpy as np

from ppl_vae import checks
from ppl_vae.errors import DataError
from ppl_vae.report import counts, curves, finding, image, latents, sequence, sound, tags, vector
from ppl_vae.report.contents import Contents, Row
from ppl_vae.report.style import STYLE

KINDS = {"image": image, "vector": vector, "counts": counts, "sound": sound}


def html(about: Contents) -> str:
    """Write the page of a run: what it found first, then what shows it, then how it was made.

    Parameters
    ----------
    about : Contents

    Returns
    -------
    str
        One HTML page without links or scripts; pictures and sound lie inside it. What is not there has no
        place on it; what cannot be shown (values that are not finite) is said in its place.

    Raises
    ------
    UsageError
        An unknown kind.
    """
    checks.one_of("kind of data", about.kind, KINDS)
    kind = KINDS[about.kind]
    shown = (about.samples, about.originals, about.reconstructions)
    if kind is vector and any(sequence.are(x) for x in shown):
        kind = sequence
    parts = [
        finding.html(about.finding),
        _section("Samples", about.samples is not None, lambda: _samples(kind, about)),
        _section("Rows and their reconstructions", _has_pairs(about), lambda: _pairs(kind, about)),
        _section("Where the latents lie", about.latents, lambda: latents.maps(about)),
        _section("The rows that the run finds least likely", about.worst, lambda: _worst(kind, about)),
        _section("Training", about.history, lambda: curves.figures(about.history)),
        *(tags.note(f"Not shown: {reason}.") for reason in about.missing),
        _folded(about),
    ]
    return _page(about.title, parts)


def _section(title: str, there: object, draw) -> str:
    if not there:
        return ""
    try:
        return tags.section(title, draw())
    except DataError as error:
        return tags.section(title, tags.note(f"Not shown: {error}."))


def _has_pairs(about: Contents) -> bool:
    return about.originals is not None and about.reconstructions is not None


def _samples(kind, about: Contents) -> str:
    return kind.samples(np.asarray(about.samples), about.originals, about)


def _pairs(kind, about: Contents) -> str:
    return kind.reconstructions(np.asarray(about.reconstructions), np.asarray(about.originals), about)


def _worst(kind, about: Contents) -> str:
    words = f"The lowest bounds of {about.judged:,} rows: look for broken rows, rare kinds and wrong labels."
    return tags.note(words) + tags.tiles(*(_row(kind, row, about) for row in about.worst))


def _row(kind, row: Row, about: Contents) -> str:
    said = [f"Row {row.number:,}", *filter(None, (tags.short(row.name), tags.short(row.label)))]
    bound = f"{tags.signed(row.nats, 2)} nats" if np.isfinite(row.nats) else f"{row.nats} nats"
    return tags.figure(kind.pair(row, about), f"{', '.join(said)}: {bound}")


def _folded(about: Contents) -> str:
    made = (tags.folded(title, tags.table(tags.flat(held), title)) for title, held in about.details.items())
    body = "\n".join(filter(None, made))
    return f'<div class="folded">\n{body}\n</div>' if body else ""


def _page(title: str, parts: list[str]) -> str:
    body = "\n".join(part for part in parts if part)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""
