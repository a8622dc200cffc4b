"""Pieces of HTML: everything that comes from outside is escaped here."""

import base64
import math
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np

LONGEST = 40
MOST = 100


def text(value) -> str:
    """A value as escaped text; numbers with six significant digits."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        value = f"{value:.6g}" if math.isfinite(value) else f"{value} (not finite)"
    if isinstance(value, list | tuple):
        value = _listed(value) if value else "none"
    return escape("none" if value is None else words(value))


def words(value) -> str:
    """As `text`, before escaping; for captions that are escaped later."""
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {words(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return f"[{_listed(value)}]"
    return str(value)


def _listed(values) -> str:
    """Values, the first of very many."""
    more = f" ... ({len(values):,} in all)" if len(values) > MOST else ""
    return ", ".join(map(words, values[:MOST])) + more


def attribute(value: str) -> str:
    """Text for an attribute in double quotes."""
    return escape(value)


def short(value, most: int = LONGEST) -> str:
    """A name that fits beside others."""
    value = str(value)
    return value if len(value) <= most else value[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def signed(value: float, digits: int) -> str:
    """A number with a true minus sign."""
    return f"{value:,.{digits}f}".replace("-", "\N{MINUS SIGN}")


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph; of kind lead or note."""
    return f'<p class="{kind}">{escape(words)}</p>' if kind else f"<p>{escape(words)}</p>"


def note(words: str) -> str:
    """A paragraph that is set apart."""
    return paragraph(words, "note")


def section(title: str, body: str) -> str:
    """A part of the page under a heading; nothing where it holds nothing."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>" if body else ""


def folded(title: str, body: str) -> str:
    """A part of the page that opens on demand; nothing where it holds nothing."""
    return f"<details>\n<summary>{escape(title)}</summary>\n{body}\n</details>" if body else ""


def table(rows: Iterable[tuple[str, object]], caption: str) -> str:
    """Names and values, one row each."""
    cells = "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{text(value)}</td></tr>' for name, value in rows
    )
    return f"<table>\n<caption>{escape(caption)}</caption>\n{cells}\n</table>" if cells else ""


def flat(values: Mapping, prefix: str = "") -> Iterable[tuple[str, object]]:
    """Nested mappings as dotted names, as options are written on the command line."""
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{name}.")
        else:
            yield name, value


def data_uri(content: bytes, kind: str) -> str:
    """Content inside the page."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def figure(body: str, caption: str, legend: Mapping[str, str] | None = None) -> str:
    """What is shown, with the colours' names and a caption."""
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f"<figure>{body}{_legend(legend or {})}{below}</figure>"


def _legend(colours: Mapping[str, str]) -> str:
    if not colours:
        return ""
    items = "".join(
        f'<li><span style="background: {colour}"></span>{escape(short(name))}</li>'
        for name, colour in colours.items()
    )
    return f'<ul class="legend">{items}</ul>'


def picture(png: bytes, alt: str, width: int) -> str:
    """A PNG that small pixels are enlarged in without smoothing."""
    return f'<img src="{data_uri(png, "image/png")}" alt="{attribute(alt)}" width="{width}" class="pixels">'


def audio(wav: bytes, label: str) -> str:
    """A player for a WAV file inside the page."""
    source = data_uri(wav, "audio/wav")
    return f'<audio controls preload="metadata" aria-label="{attribute(label)}" src="{source}"></audio>'


def side_by_side(*figures: str) -> str:
    """Figures in a row where there is room for it."""
    return f'<div class="row">{"".join(figures)}</div>'


def tiles(*figures: str) -> str:
    """Small figures, as many beside each other as fit."""
    return f'<div class="tiles">{"".join(figures)}</div>'
