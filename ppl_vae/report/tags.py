"""Pieces of HTML: everything that comes from outside is escaped here."""

import base64
import math
from collections.abc import Iterable, Mapping
from html import escape

import numpy as np


def text(value) -> str:
    """A value as escaped text; numbers with six significant digits."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        value = f"{value:.6g}" if math.isfinite(value) else f"{value} (not finite)"
    if isinstance(value, list | tuple):
        value = ", ".join(words(item) for item in value) if value else "none"
    return escape("none" if value is None else words(value))


def words(value) -> str:
    """As `text`, before escaping; for captions that are escaped later."""
    if isinstance(value, float | np.floating):
        return f"{float(value):.6g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {words(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(words, value)) + "]"
    return str(value)


def paragraph(words: str, note: bool = False) -> str:
    """A paragraph; a note is set apart."""
    return f'<p class="note">{escape(words)}</p>' if note else f"<p>{escape(words)}</p>"


def section(title: str, body: str) -> str:
    """A part of the page under a heading."""
    return f"<section>\n<h2>{escape(title)}</h2>\n{body}\n</section>"


def table(rows: Iterable[tuple[str, object]], caption: str) -> str:
    """Names and values, one row each."""
    cells = "\n".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{text(value)}</td></tr>' for name, value in rows
    )
    return f'<div class="scroll"><table>\n<caption>{escape(caption)}</caption>\n{cells}\n</table></div>'


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


def picture(png: bytes, alt: str, caption: str, width: int | None = None) -> str:
    """A PNG with a caption; `width` enlarges small pictures without smoothing."""
    size = f' width="{width}" class="pixels"' if width else ""
    return (
        f'<figure><img src="{data_uri(png, "image/png")}" alt="{escape(alt)}"{size}>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def audio(wav: bytes, label: str) -> str:
    """A player for a WAV file inside the page."""
    source = data_uri(wav, "audio/wav")
    return f'<audio controls preload="metadata" aria-label="{escape(label)}" src="{source}"></audio>'


def side_by_side(*figures: str) -> str:
    """Figures in a row where there is room for it."""
    return f'<div class="row">{"".join(figures)}</div>'
