"""Rows of text tables: .csv and .tsv as spreadsheets and people write them."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence
from typing import TextIO

from rlaif.data.files.raw_rows import RawRow, Unreadable, bad_row, too_long
from rlaif.data.files.streams import open_text
from rlaif.data.files.tables import Cells, Header, header_of

MAX_CSV_FIELD_CHARS = 2**31 - 1  #: the csv module's default of 128 Ki would refuse long transcripts

_DELIMITERS = ",;\t"
_PART_CHARS = 2**20
_SAMPLE_CHARS = 2**16  #: what the delimiter is judged by
_SEPARATOR_LINE = re.compile(r'\ufeff?"?sep=(?P<delimiter>[^\r\n"\w])"?[;,\t]*\r?\n', re.IGNORECASE)  #: for Excel


class _TextCells(Cells):
    def __init__(self, header: Header, cells: Sequence[str]) -> None:
        super().__init__(header)
        self._cells = cells

    def has(self, place: int) -> bool:
        return bool(self._cells[place])

    def value(self, place: int) -> str:
        return self._cells[place]


def csv_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """Rows below the header, numbered from 1; blank lines are not counted."""
    return _rows(file, ",", max_chars)


def tsv_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """As ``csv_rows``, for a name that says how the cells are separated."""
    return _rows(file, "\t", max_chars)


def _rows(file: str, usual: str, max_chars: int) -> Iterator[RawRow]:
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    delimiter, is_stated = separator_of(file, usual)
    with open_text(file, newline="", code_pages=True) as text:
        if is_stated:
            next(text)
        lines = _Lines(text, delimiter, max_chars)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        columns = _columns(lines, reader)
        header = header_of(columns)
        for number in itertools.count(1):
            try:
                cells = _next_row(lines, reader)
            except StopIteration:
                return
            except _TooLong:
                yield bad_row(number, too_long(max_chars))
            except csv.Error as error:
                yield _unreadable(number, lines.number + is_stated, error)
            else:
                yield _row(number, columns, header, cells)


def _next_row(lines: _Lines, reader: Iterator[list[str]]) -> list[str]:
    """The cells of the next row that is not blank. Raises StopIteration, csv.Error and _TooLong."""
    while True:
        lines.begin_row()
        if cells := next(reader):
            return cells


class _TooLong(Exception):
    """The row has too many characters; it has been passed over."""


class _Lines:
    """The lines that the csv module asks for, as long as the row that they make is not too long."""

    def __init__(self, text: TextIO, delimiter: str, max_chars: int) -> None:
        self._text, self._delimiter, self._max_chars = text, delimiter, max_chars
        self._row: list[str] = []
        self._num_chars = 0
        self.number = 0

    def begin_row(self) -> None:
        self._row.clear()
        self._num_chars = 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._max_chars + 2)
        if not line:
            raise StopIteration
        self._row.append(line)
        self._num_chars += len(line)
        self.number += 1
        if self._num_chars - len(line) + len(line.rstrip("\r\n")) > self._max_chars:
            self._pass_over()
            raise _TooLong
        return line

    def _pass_over(self) -> None:
        """Go to the end of the row, holding no more than a part of it."""
        cell = _CellState(self._delimiter)
        ends = [cell.goes_on_after(line) for line in self._row]
        goes_on = ends[-1]
        while goes_on and (part := self._text.readline(_PART_CHARS)):
            goes_on = cell.goes_on_after(part)


class _CellState:
    """Where in a row the text stands, as the csv module sees it."""

    def __init__(self, delimiter: str) -> None:
        self._marks = re.compile(rf'["{re.escape(delimiter)}]')
        self._delimiter = delimiter
        self._at_start, self._is_quoted, self._is_closed = True, False, False

    def goes_on_after(self, part: str) -> bool:
        """Whether the row goes on after a part of it, in which a line may end only at its end."""
        end = 0
        for mark in self._marks.finditer(part):
            if mark.start() > end:
                self._at_start = self._is_closed = False
            end = mark.end()
            if mark[0] == '"':  # behind one that has closed the cell, it is a quote within it
                was_quoted = self._is_quoted
                self._is_quoted = not was_quoted and (self._at_start or self._is_closed)
                self._is_closed, self._at_start = was_quoted, False
            elif not self._is_quoted:
                self._at_start, self._is_closed = True, False
        if end < len(part):
            self._at_start = self._is_closed = False
        return self._is_quoted or not part.endswith(("\n", "\r"))


def separator_of(file: str, usual: str) -> tuple[str, bool]:
    """What separates the cells of ``file``, and whether its first line states it. Raises what ``open_text`` does."""
    with open_text(file, newline="", code_pages=True) as text:
        sample = text.read(_SAMPLE_CHARS)
    stated = _SEPARATOR_LINE.match(sample)
    return (stated["delimiter"], True) if stated else (_delimiter(sample, usual), False)


def _columns(lines: _Lines, reader: Iterator[list[str]]) -> list[str]:
    try:
        return _next_row(lines, reader)
    except StopIteration:
        return []
    except _TooLong as error:
        raise Unreadable("the header is longer than a row may be (data.limits.max_chars)") from error
    except csv.Error as error:
        raise Unreadable(f"the header is not CSV: {error}") from error


def _unreadable(number: int, line: int, error: csv.Error) -> RawRow:
    if "unexpected end of data" in str(error):  # an open quote has swallowed an unknown number of rows
        raise Unreadable(f"row {number}: a quote is opened and never closed") from error
    return bad_row(number, f"the row is not CSV (line {line}): {error}")


def _row(number: int, columns: Sequence[str], header: Header, cells: Sequence[str]) -> RawRow:
    if len(cells) > len(columns):
        return bad_row(number, "the row has more cells than the header")
    if len(cells) < len(columns):
        return bad_row(number, f"the row ends before column `{columns[len(cells)].strip()}`")
    return RawRow(number, _TextCells(header, cells))


def _delimiter(sample: str, usual: str) -> str:
    """The one that splits every row of ``sample`` as it splits the header; in doubt the usual one."""
    delimiters = (usual, *(char for char in _DELIMITERS if char != usual))
    widths = {delimiter: _widths(sample, delimiter) for delimiter in delimiters}
    even = [delimiter for delimiter in delimiters if widths[delimiter][0] > 1 and len(set(widths[delimiter])) == 1]
    if even:
        return even[0]
    return usual if widths[usual][0] > 1 else max(delimiters, key=lambda delimiter: widths[delimiter][0])


def _widths(sample: str, delimiter: str) -> list[int]:
    """The numbers of cells of the rows of ``sample``; a last row that it cuts off does not count."""
    widths = []
    with contextlib.suppress(csv.Error):
        widths = [len(cells) for cells in csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter) if cells]
    return (widths[:-1] if len(sample) == _SAMPLE_CHARS else widths) or [0]
