"""Rows of .csv and .tsv files, every one of which is read whole or named."""

import csv
import itertools
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

SEPARATORS = (",", ";", "\t", "|")
_SPOKEN = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}


class Lines:
    """The lines of an open file as text; how many bytes and lines they were.

    Attributes:
      name: what messages call the file.
      offset: bytes from its begin to the next line.
      number: lines that were read from where the file stood.
    """

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file, self.name, self.offset, self.number = file, name, file.tell(), 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._file.readline()
        if not line:
            raise StopIteration
        start, self.offset = self.offset, self.offset + len(line)
        self.number += 1
        try:
            return line.decode("utf-8" if start else "utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.name}: not UTF-8 text at byte {start:,}") from error


class Style(NamedTuple):
    """How the rows of a file are written.

    Attributes:
      separator: between two fields.
      quoted: a field in quotation marks may hold the separator and line breaks.
      spaced: a separator may have a space after it, which belongs to no field.
    """

    separator: str = ","
    quoted: bool = True
    spaced: bool = False


def style_of(name: str, header: str, separator: str | None = None) -> Style:
    r"""How a file is written, by its name and its first line.

    The separator is the given one, or the one that parts the first line into the most
    columns. A .tsv is not quoted: a lone quotation mark is a part of its text.

    >>> style_of("a.csv", "filepath\ttitle\n").separator, style_of("a.csv", "id; text").spaced
    ('\t', True)
    """
    if separator is None:
        if name.lower().endswith(".tsv"):
            return Style("\t", quoted=False)
        try:
            parts = {mark: len(next(csv.reader([header], delimiter=mark))) for mark in SEPARATORS}
        except csv.Error as error:
            raise ValueError(f"{name}: its first line is no row of a table ({error})") from error
        separator = max(parts, key=parts.__getitem__)
    return Style(separator, spaced=f"{separator} " in header)


def header_of(lines: Lines, separator: str | None) -> tuple[list[str], Style]:
    """The names of the columns, from the first row, and the style of what follows it."""
    first = next(lines, "")
    style = style_of(lines.name, first, separator)
    names = next(_rows(itertools.chain([first], lines), lines, 1, style), [])
    return [name.strip() for name in names], style


def separated(lines: Lines, style: Style) -> Iterator[list[str]]:
    """The rows, without blank lines.

    Raises:
      ValueError: if quotation marks do not match, so that one row would swallow others.
    """
    return _rows(lines, lines, lines.number + 1, style)


def spoken(separator: str) -> str:
    """The separator in a message."""
    return _SPOKEN.get(separator, repr(separator))


def _rows(source: Iterator[str], lines: Lines, start: int, style: Style) -> Iterator[list[str]]:
    """The rows in `source`, which draws on `lines` and begins with its line `start`."""
    rows = csv.reader(
        source,
        delimiter=style.separator,
        quoting=csv.QUOTE_MINIMAL if style.quoted else csv.QUOTE_NONE,
        skipinitialspace=style.spaced,
        strict=True,
    )
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise ValueError(
                f"{lines.name}: a quotation mark in the row that begins at line {start:,} has no "
                f"partner (seen at line {lines.number:,}: {error}); within a quoted field write "
                'each mark twice, as in "a 6"" nail"'
            ) from error
        if row is None:
            return
        if row:
            yield row
        start = lines.number + 1
