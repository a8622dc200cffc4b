"""A few lines about an object: a title, and rows of names, numbers with errors, and units."""

import html
import math
from collections.abc import Sequence
from typing import Any

Row = tuple[str, ...]


class Summarised:
    """Shows itself as a short summary, in a notebook as a table."""

    def _summary(self) -> tuple[str, list[Row]]:
        """Return a title, and rows of the same number of cells."""
        raise NotImplementedError

    def __repr__(self) -> str:
        return text(*self._summary())

    def _repr_html_(self) -> str:
        return as_html(*self._summary())


def text(title: str, rows: Sequence[Row]) -> str:
    """Return a title and below it the rows, in columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)) for row in rows]
    return readable("\n".join([title, *(f"  {line.rstrip()}" for line in lines)]))


def readable(text: str) -> str:
    """Return lines with what is no character to read written out, as in a text of Python: names may hold what
    a terminal obeys.
    """
    return "".join(c if c == "\n" or c.isprintable() else repr(c)[1:-1] for c in text)


def as_html(title: str, rows: Sequence[Row]) -> str:
    """Return a title and rows as a table."""
    cells = ("".join(f"<td>{html.escape(cell.strip())}</td>" for cell in row) for row in rows)
    lines = "".join(f"<tr>{line}</tr>" for line in cells)
    return f"<table><caption>{html.escape(title)}</caption>{lines}</table>"


def decimals(value: float, error: float | None = None) -> int:
    """Return how many decimals a number is given: two digits of its error, else four of its own."""
    size = value if error is None else error
    if not (math.isfinite(size) and size):
        return 2
    return min(max((1 if error is not None else 3) - math.floor(math.log10(abs(size))), 0), 6)


def number(value: float, error: float | None = None) -> str:
    """Return a number with as many decimals as its error allows."""
    if isinstance(value, int):
        return f"{value:,}"
    if error is None and 0 < abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:.{decimals(value, error)}f}"


def with_error(value: float, error: float | None) -> str:
    """Return a number and its standard error."""
    return number(value) if error is None else f"{number(value, error)} ± {number(error, error)}"


def aligned(texts: Sequence[str]) -> list[str]:
    """Return numbers of one width, their points below each other."""
    after = [len(text) - text.find(".") if "." in text else 0 for text in texts]
    padded = [text + " " * (max(after, default=0) - own) for text, own in zip(texts, after, strict=True)]
    width = max(map(len, padded), default=0)
    return [text.rjust(width) for text in padded]


def shape_text(shape: Sequence[Any]) -> str:
    """Return a shape such as 1 x 28 x 28."""
    return " x ".join(map(str, shape)) or "one number"
