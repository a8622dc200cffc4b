"""The page of a run: one file that needs nothing beside it."""

from collections.abc import Mapping
from html import escape

import numpy as np

from ppl_vae import checks
from ppl_vae.errors import DataError
from ppl_vae.report import counts, curves, image, sound, tags, vector

KINDS = {"image": image, "vector": vector, "counts": counts, "sound": sound}

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --quiet: #6b6b6b; }
@media (prefers-color-scheme: dark) { :root { --quiet: #a8a8a8; } }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 70rem; padding: 1.5rem; }
h1 { line-height: 1.2; margin-bottom: 0.2rem; overflow-wrap: anywhere; }
h2 { border-bottom: 1px solid var(--line); margin-top: 2.5rem; padding-bottom: 0.2rem; }
table { border-collapse: collapse; min-width: 20rem; }
caption { color: var(--quiet); padding-bottom: 0.3rem; text-align: left; }
th, td { border-bottom: 1px solid var(--line); overflow-wrap: anywhere; padding: 0.25rem 1.5rem 0.25rem 0; }
th { font-weight: 500; text-align: left; vertical-align: top; }
td { font-variant-numeric: tabular-nums; }
figure { margin: 0.8rem 0; }
figcaption, .note { color: var(--quiet); font-size: 0.9rem; }
img { background: #fff; border-radius: 4px; height: auto; max-width: 100%; }
img.pixels { image-rendering: pixelated; }
audio { width: 100%; }
.row { display: grid; gap: 0 2rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); }
.scroll { overflow-x: auto; margin-bottom: 1rem; }
"""


def html(
    run_summary: Mapping,
    history: list[dict],
    samples=None,
    originals=None,
    reconstructions=None,
    kind: str = "image",
) -> str:
    """Write the page of a run.

    Parameters
    ----------
    run_summary : mapping
        What to tell of the run. `title` heads the page, `numbers` (results) and `config` (dotted on the page)
        have their own parts; any other value is listed, any other mapping gets a table of its own.
        For sound `sample_rate`, here or under `data`.
    history : list of dict
        Rows with `step`, `split` and numbers, as in metrics.jsonl. May be empty.
    samples, originals, reconstructions : dict of arrays by field, an array, or None
        Rows first; the field `x`, or else the first, is shown. Reconstructions and originals agree by row.
    kind : {"image", "vector", "counts", "sound"}

    Returns
    -------
    str
        One HTML page without links or scripts; pictures and sound lie inside it. What cannot be shown
        (nothing given, or values that are not finite) is said in its place.

    Raises
    ------
    UsageError
        An unknown kind.
    """
    checks.one_of("kind of data", kind, KINDS)
    drawn, data, made = _main(samples), _main(originals), _main(reconstructions)
    no_samples = "" if drawn is not None else "No samples were drawn."
    no_pairs = "" if made is not None and data is not None else "No rows were reconstructed."
    numbers, config = run_summary.get("numbers"), run_summary.get("config")
    results = "Results, in the units that the names end in"
    parts = [
        _about(run_summary),
        _table("Numbers", numbers, results, "The run has not been evaluated."),
        _curves(history),
        _pictures("Samples", KINDS[kind].samples, drawn, data, run_summary, no_samples),
        _pictures("Reconstructions", KINDS[kind].reconstructions, made, data, run_summary, no_pairs),
        _table(
            "Configuration",
            config,
            "As options are written on the command line",
            "No configuration was recorded.",
        ),
    ]
    return _page(str(run_summary.get("title") or "Run"), parts)


def _main(fields) -> np.ndarray | None:
    """The array to show: field x, or the first."""
    if isinstance(fields, Mapping):
        fields = fields.get("x", next(iter(fields.values()), None))
    return None if fields is None else np.asarray(fields)


def _about(summary: Mapping) -> str:
    parts = {key: value for key, value in summary.items() if key not in ("title", "numbers", "config")}
    single = [(key, value) for key, value in parts.items() if not isinstance(value, Mapping)]
    body = tags.table(single, "What was run") if single else ""
    for key, value in parts.items():
        if isinstance(value, Mapping):
            body += tags.table(tags.flat(value), str(key))
    return tags.section("Run", body) if body else ""


def _table(title: str, values: Mapping | None, caption: str, absent: str) -> str:
    """A section with nested values as one table, or a note that there are none."""
    if not values:
        return tags.section(title, tags.paragraph(absent, note=True))
    return tags.section(title, tags.table(tags.flat(values), caption))


def _curves(history: list[dict]) -> str:
    body = curves.figures(history) or tags.paragraph("No training steps were recorded.", note=True)
    return tags.section("Training", body)


def _pictures(title: str, draw, x, data, summary: Mapping, missing: str) -> str:
    try:
        body = tags.paragraph(missing, note=True) if missing else draw(x, data, summary)
    except DataError as error:
        body = tags.paragraph(f"Not shown: {error}.", note=True)
    return tags.section(title, body)


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
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
{body}
</main>
</body>
</html>
"""
