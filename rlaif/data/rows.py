"""Rows of a source: the files that it means (``files/sources.py``), each in its format (``files/formats.py``).

Everything streams: memory holds one line or one small batch at a time. Row numbers start at 1; in a file of JSON lines
they are line numbers (blank lines are skipped but counted), so that an editor finds them. A file is read again each
time that its rows are. A row is known by its content (``SourceRow.id_of``), so of each row a digest is remembered.
"""

from __future__ import annotations

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlaif.config.source import DEFAULT_LIMITS, is_data_set
from rlaif.data.files.formats import raw_rows
from rlaif.data.files.hub import hub_rows
from rlaif.data.files.raw_rows import Unreadable, Unusable
from rlaif.data.files.sources import files_of, printable, row_choice
from rlaif.data.files.streams import READ_ERRORS
from rlaif.errors import DataError
from rlaif.ids import fingerprint, place_id, row_id
from rlaif.records import Quarantined
from rlaif.seeds import seed_from

_Record = TypeVar("_Record")
Fields = Mapping[str, Any]  #: a row's columns; their types are whatever the user's file holds
Quarantine = Callable[[Quarantined], None]


def pass_over(row: Quarantined) -> None:
    """The Quarantine of whoever reads a source again, whose bad rows are known already."""


class BadRow(Unusable):
    """A row that cannot be used; the message names the field. It is quarantined, and reading continues."""


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """Row ``number`` of ``file``. When it cannot be read, ``mistake`` says why and ``fields`` is empty.

    ``seen``: how often each content was there before, in the same reading of the whole source.
    """

    file: str
    number: int
    fields: Fields
    mistake: str | None = None
    seen: Counter[int] = field(default_factory=Counter, repr=False, compare=False)

    @property
    def place(self) -> str:
        return place_id(self.file, self.number)

    def id_of(self, *content: object) -> str:
        """The id of a row of which ``content`` is used, all that a record holds of it. Call it once."""
        digest = fingerprint(*content)
        key = int(digest, 16)  # a number takes half the memory of its digits
        self.seen[key] += 1
        return row_id(digest, self.seen[key])


def read_records(
    source: str,
    parse: Callable[[SourceRow], _Record],
    quarantine: Quarantine,
    max_chars: int = DEFAULT_LIMITS.max_chars,
) -> Iterator[_Record]:
    """Every row of ``source`` as a record; rows for which ``parse`` raises BadRow go to ``quarantine``, and so do those
    of more than ``max_chars`` characters.

    Raises DataError when a file is missing or unreadable, when all its rows are bad, and when there is no row at all.
    A part without rows next to others is no mistake.
    """
    _, choice = row_choice(source)
    has_rows = False
    for file, rows in itertools.groupby(
        rows_in(source, max_chars), key=lambda row: row.file if choice is None else source
    ):
        has_rows = True
        num_good, first_mistake = 0, ""
        for row in rows:
            try:
                record = parsed(row, parse)
            except (BadRow, Unreadable) as error:
                first_mistake = first_mistake or f"row {row.number}: {error}"
                quarantine(Quarantined(id=row.place, file=row.file, row=row.number, kind="read", cause=str(error)))
                continue
            num_good += 1
            yield record
        if not num_good:
            raise DataError(f"{file}: every row is unusable; {first_mistake}")
    if not has_rows:
        raise DataError(f"{source}: there are no rows in it")


def parsed(row: SourceRow, parse: Callable[[SourceRow], _Record]) -> _Record:
    """What ``parse`` makes of ``row``. Raises BadRow, and Unreadable."""
    if row.mistake:
        raise BadRow(row.mistake)
    try:
        return parse(row)
    except RecursionError:  # what could be decoded may still be too deep to be compared or shown
        raise BadRow("the row is nested too deeply") from None


def rows_in(source: str, max_chars: int = DEFAULT_LIMITS.max_chars) -> Iterator[SourceRow]:
    """The rows of ``source`` that its ``#ROWS`` choose, in the order of its files. Raises DataError."""
    _, choice = row_choice(source)
    rows = _all_rows(source, max_chars)
    if choice is None:
        return rows
    if choice.first is not None:
        return itertools.islice(rows, choice.first - 1, choice.num)
    return _drawn(source, choice.num, max_chars)


def _all_rows(source: str, max_chars: int) -> Iterator[SourceRow]:
    seen: Counter[int] = Counter()
    return itertools.chain.from_iterable(rows_of(file, seen, max_chars) for file in files_of(source))


def _drawn(source: str, num: int, max_chars: int) -> Iterator[SourceRow]:
    """``num`` rows by lot, in their order: the places with the smallest hashes, so that more are these and others."""
    lots = ((seed_from("rows of a source", place), place) for place, _ in enumerate(_all_rows(source, max_chars)))
    drawn = {place for _, place in heapq.nsmallest(num, lots)}
    yield from (row for place, row in enumerate(_all_rows(source, max_chars)) if place in drawn)


def rows_of(file: str, seen: Counter[int], max_chars: int) -> Iterator[SourceRow]:
    """The rows of one file. Raises DataError when the file as a whole cannot be read."""
    number = 0
    try:
        rows = hub_rows(file, max_chars) if is_data_set(file) else raw_rows(file, max_chars)
        for number, fields, mistake in rows:
            yield SourceRow(file=file, number=number, fields=fields, mistake=mistake, seen=seen)
    except Unreadable as error:
        raise DataError(f"{printable(file)}: {error}") from error
    except READ_ERRORS as error:
        after = f" after row {number}" if number else ""
        raise DataError(f"{printable(file)}: cannot be read{after}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    words = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return words.strip().split("\n")[0] or type(error).__name__
