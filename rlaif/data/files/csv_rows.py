"""Rows of text tables: .csv and .tsv as spreadsheets and people write them."""

from __future__ import annotations

import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator, Sequence

from rlaif.data.files.raw_rows import RawRow, Unreadable, bad_row
from rlaif.data.files.streams import open_text
from rlaif.data.files.tables import Cells, Header, header_of

MAX_CSV_FIELD_CHARS = 2**31 - 1  #: the csv module's default of 128 Ki would refuse long transcripts

_DELIMITERS = ",;\t"
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


def csv_rows(file: str) -> Iterator[RawRow]:
    """Rows below the header, numbered from 1; blank lines are not counted."""
    return _rows(file, ",")


def tsv_rows(file: str) -> Iterator[RawRow]:
    """As ``csv_rows``, for a name that says how the cells are separated."""
    return _rows(file, "\t")


def _rows(file: str, usual: str) -> Iterator[RawRow]:
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    delimiter, is_stated = separator_of(file, usual)
    with open_text(file, newline="", code_pages=True) as lines:
        if is_stated:
            next(lines)
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        columns = _columns(reader)
        header = header_of(columns)
        for number in itertools.count(1):
            try:
                cells = next(cells for cells in reader if cells)
            except StopIteration:
                return
            except csv.Error as error:
                yield _unreadable(number, reader.line_num, error)
            else:
                yield _row(number, columns, header, cells)


def separator_of(file: str, usual: str) -> tuple[str, bool]:
    """What separates the cells of ``file``, and whether its first line states it. Raises what ``open_text`` does."""
    with open_text(file, newline="", code_pages=True) as text:
        sample = text.read(_SAMPLE_CHARS)
    stated = _SEPARATOR_LINE.match(sample)
    return (stated["delimiter"], True) if stated else (_delimiter(sample, usual), False)


def _columns(reader: Iterator[list[str]]) -> list[str]:
    try:
        return next((cells for cells in reader if cells), [])
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
