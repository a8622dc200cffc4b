"""Tables as text, as pandas, R and spreadsheets write them: what separates, what names, what is a number."""

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ppl_vae import checks, reading
from ppl_vae.errors import DataError, UsageError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars", " ": "spaces"}
MISSING = {"", "na", "n/a", "nan", "null", "none", "#n/a", "#na", "<na>"}
CELL = 80  # bytes that a cell takes until it is a number
LONGEST = 400  # characters of a number
YEAR = 1000  # the first that names a column
SAMPLE = 200  # lines by which the delimiter is chosen
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_WHOLE = re.compile(r"[+-]?\d+")


@dataclass(frozen=True)
class Layout:
    """How a text is to be read; None: as it looks.

    Attributes
    ----------
    delimiter : str, optional
        The character between cells, or comma, semicolon, tab, bar, space.
    decimal : str, optional
        "." or ",".
    header : bool, optional
        Whether the first line names the columns.
    """

    delimiter: str | None = None
    decimal: str | None = None
    header: bool | None = None

    def __post_init__(self):
        if self.delimiter is not None:
            names = {name.removesuffix("s"): character for character, name in DELIMITERS.items()}
            if self.delimiter not in DELIMITERS and self.delimiter not in names:
                raise UsageError(f"unknown delimiter {self.delimiter!r}: choose one of {', '.join(names)}")
            object.__setattr__(self, "delimiter", names.get(self.delimiter, self.delimiter))
        if self.header not in (None, True, False):
            raise UsageError(f"header={self.header!r}: give True or False")
        if self.decimal is not None:
            checks.one_of("decimal", self.decimal, (".", ","))


AS_IT_LOOKS = Layout()


@dataclass(frozen=True)
class Text:
    """The cells of a table, stripped, by row, and how the text was understood.

    Attributes
    ----------
    names : list of str
        Of the columns; "1", "2" ... where the text has none.
    named : bool
        Whether the first line names the columns.
    rows, lines : list
        Cells of each row, and the number of its line in the file.
    labels : list of str or None
        Names of the rows, from a column that has no name of its own.
    decimal : str
        What is before the fraction.
    notes : list of str
        What was taken for what, a sentence each.
    """

    names: list[str]
    named: bool
    rows: list[list[str]]
    lines: list[int]
    labels: list[str] | None
    decimal: str
    notes: list[str] = field(default_factory=list)


def read_text(path: Path, layout: Layout = AS_IT_LOOKS) -> Text:
    """Read a table.

    Raises
    ------
    DataError
        No text, no rows, or lines of different lengths.
    """
    text, notes = _decoded(path)
    delimiter, decimal = _chosen(text, layout)
    _refuse_two_meanings(text, layout, delimiter, path)
    if (delimiter, decimal) != (",", "."):
        numbers = " and commas before fractions" if decimal == "," else ""
        notes.append(f"cells between {DELIMITERS[delimiter]}{numbers} (delimiter=..., decimal=...)")
    reading.refuse_beyond_memory((text.count(delimiter) + text.count("\n")) * CELL, path)
    lines = _parsed(text, delimiter, path)
    if not lines:
        raise DataError(f"{path} is empty: it has no rows")
    first, rest = lines[0][1], lines[1:]
    named = layout.header if layout.header is not None else _names_columns(first, rest, decimal)
    if named and not rest:
        raise DataError(f"{path} is empty: it has a header and no rows")
    if layout.header is None and named and all(_is_number(cell, decimal) for cell in first[1:]):
        shown = ", ".join(first[:4]) + (" ..." if len(first) > 4 else "")
        notes.append(f"the first line ({shown}) as names of columns (header=False: as a row)")
    body, names, labels = rest if named else lines, first, None
    width = max(len(first), len(rest[0][1])) if named and rest else len(first)
    if named and (width == len(first) + 1 or first[0].lower() in ("", "unnamed: 0")):
        names = first if width == len(first) + 1 else first[1:]
        notes.append("the first column, which has no name, as names of rows")
        labels = []
    _refuse_ragged(path, body, width)
    rows = [cells for _, cells in body]
    if labels is not None:
        labels, rows = [cells[0] for cells in rows], [cells[1:] for cells in rows]
    names = names if named else [str(i) for i in range(1, width + 1)]
    _refuse_twice(path, names)
    return Text(names, named, rows, [line for line, _ in body], labels, decimal, notes)


def _decoded(path: Path) -> tuple[str, list[str]]:
    content = reading.whole(path)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding, notes = "utf-16", ["UTF-16 text"]
    else:
        encoding, notes = "utf-8-sig", []
    try:
        return content.decode(encoding), notes
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no UTF-8 text (byte {error.start}): save it as CSV in UTF-8") from error


def _chosen(text: str, layout: Layout) -> tuple[str, str]:
    """Return the delimiter and the decimal sign with which the first lines look most like a table of numbers:
    equally long lines of several cells first, then the share of numbers, then the number of columns.
    """
    sample = "\n".join(text.splitlines()[:SAMPLE])
    delimiters = [layout.delimiter] if layout.delimiter else list(DELIMITERS)
    decimals = [layout.decimal] if layout.decimal else [".", ","]
    candidates = [(a, b) for b in decimals for a in delimiters if layout.delimiter or a != b]

    def score(candidate: tuple[str, str]) -> tuple[bool, float, int]:
        delimiter, decimal = candidate
        try:
            lines = [cells for _, cells in _cells(sample, delimiter)]
        except csv.Error:
            return False, 0.0, 0
        body = lines[1:] or lines
        if not body:
            return False, 0.0, 0
        width = len(body[0])
        even = all(len(cells) == width for cells in body) and len(lines[0]) in (width, width - 1)
        flat = [cell for cells in body for cell in cells]
        return even and width > 1, sum(_is_number(cell, decimal) for cell in flat) / len(flat), width

    return max(candidates, key=score)


def _refuse_two_meanings(text: str, layout: Layout, delimiter: str, path: Path) -> None:
    """Refuse one name above pairs of whole numbers: names of rows and a column, or fractions after commas."""
    lines = text.split()[:SAMPLE]
    if (layout.delimiter, layout.decimal) != (None, None) or delimiter != "," or len(lines) < 2:
        return
    if "," not in lines[0] and all(re.fullmatch(r"[+-]?\d+,\d+", line) for line in lines[1:]):
        raise DataError(
            f"{path}: {lines[1]} under one name may be the name of a row and a number (delimiter=','), or a "
            "fraction after a comma (decimal=','): say which"
        )


def _cells(text: str, delimiter: str) -> list[tuple[int, list[str]]]:
    """Return the stripped cells of every line that is not blank, with its number."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True)
    lines = []
    for cells in reader:
        if cells:  # a quoted nothing is a cell, a blank line has none
            lines.append((reader.line_num, [cell.strip() for cell in cells]))
    return lines


def _parsed(text: str, delimiter: str, path: Path) -> list[tuple[int, list[str]]]:
    try:
        return _cells(text, delimiter)
    except csv.Error as error:
        raise DataError(f"{path} is no CSV text ({error})") from error


def _names_columns(first: Sequence[str], rest: Sequence[tuple[int, list[str]]], decimal: str) -> bool:
    """Tell a header: a first line with a cell that is no number, with numbers that count the columns, or of
    years, one after the other, above columns with fractions.
    """
    if not rest:
        return not any(_is_number(cell, decimal) for cell in first)
    shorter = len(rest[0][1]) == len(first) + 1
    if shorter or not all(_is_number(cell, decimal) for cell in first):
        return True
    cells = list(first[1:] if not first[0] else first)  # pandas gives its index no name
    if not all(_WHOLE.fullmatch(cell) for cell in cells) or len(cells) < 2:
        return False
    numbers = [int(cell) for cell in cells]
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        return False
    below = list(zip(*(row[-len(cells) :] for _, row in rest if len(row) == len(first)), strict=True))
    fractions = [any(_is_fraction(cell, decimal) for cell in column) for column in below]
    columns_are_counted = numbers[0] in (0, 1) and (any(fractions) or not first[0])
    return columns_are_counted or (numbers[0] >= YEAR and bool(fractions) and all(fractions))


def _is_fraction(cell: str, decimal: str) -> bool:
    return isinstance(number(cell, decimal), float)


def is_missing(cell: str) -> bool:
    """Tell a cell without a value."""
    return cell.lower() in MISSING


def _is_number(cell: str, decimal: str) -> bool:
    return is_missing(cell) or cell.lower() in ("true", "false") or number(cell, decimal) is not None


def number(cell: str, decimal: str = ".") -> int | float | None:
    """Return the number in a cell, whole ones as int; None for other text."""
    if len(cell) > LONGEST:
        return None
    if _WHOLE.fullmatch(cell):
        return int(cell)
    if decimal == ",":
        cell = "no number" if "." in cell else cell.replace(",", ".")
    if _NUMBER.fullmatch(cell):
        return float(cell)
    return float(cell) if cell.lower().lstrip("+-") in ("inf", "infinity") else None


def _refuse_ragged(path: Path, body: Sequence[tuple[int, list[str]]], width: int) -> None:
    for line, cells in body:
        if len(cells) != width:
            raise DataError(f"{path}, line {line}: {len(cells)} cells, but {width} in the first line")


def _refuse_twice(path: Path, names: Sequence[str]) -> None:
    twice = repeated(names)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}: rename one")


def repeated(names: Iterable[str]) -> str | None:
    """Return the first name that comes twice, where one does."""
    return next((name for name, times in Counter(names).items() if times > 1), None)
