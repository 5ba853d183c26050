"""Rows of a source: .jsonl, .csv or .parquet files, directories of them, ``hf:NAME``.

Everything streams: memory holds one line (.jsonl, .csv) or one small batch (.parquet) at a time. Row numbers
start at 1; in a .jsonl file they are line numbers (blank lines are skipped but counted), so that an editor finds them.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlaif.errors import DataError
from rlaif.ids import row_id
from rlaif.records import Quarantined

PARQUET_BATCH_ROWS = 256
MAX_CSV_FIELD_CHARS = 2**31 - 1  #: the csv module's default of 128 Ki would refuse long transcripts

_Record = TypeVar("_Record")
Fields = Mapping[str, Any]  #: a row's columns; their types are whatever the user's file holds
Quarantine = Callable[[Quarantined], None]


class BadRow(ValueError):
    """A row that cannot be used; the message names the field. It is quarantined, and reading continues."""


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """Row ``number`` of ``file``. When it cannot be read, ``mistake`` says why and ``fields`` is empty."""

    file: str
    number: int
    fields: Fields
    mistake: str | None = None

    @property
    def id(self) -> str:
        return row_id(self.file, self.number)


def read_records(source: str, parse: Callable[[SourceRow], _Record], quarantine: Quarantine) -> Iterator[_Record]:
    """Every row of ``source`` as a record; rows for which ``parse`` raises BadRow go to ``quarantine``.

    Raises DataError when a file is missing, unreadable or empty, or when all its rows are bad.
    """
    for file in files_of(source):
        num_good, first_mistake = 0, None
        for row in rows_of(file):
            try:
                record = _parsed(row, parse)
            except BadRow as error:
                first_mistake = first_mistake or f"row {row.number}: {error}"
                quarantine(Quarantined(id=row.id, file=file, row=row.number, kind="read", cause=str(error)))
                continue
            num_good += 1
            yield record
        if not num_good:
            raise DataError(f"{file}: {_nothing_usable(first_mistake)}")


def _parsed(row: SourceRow, parse: Callable[[SourceRow], _Record]) -> _Record:
    if row.mistake:
        raise BadRow(row.mistake)
    return parse(row)


def _nothing_usable(first_mistake: str | None) -> str:
    return f"every row is unusable; {first_mistake}" if first_mistake else "the file has no rows"


def files_of(source: str) -> list[str]:
    """The files of a source in a fixed order, named as the user named them; ``hf:NAME`` is returned as it is."""
    path = Path(source)
    if source.startswith("hf:"):
        return [source]
    if path.is_dir():
        files = sorted(str(p) for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
        if not files:
            raise DataError(f"{source}: no {', '.join(SUFFIXES)} files in this directory")
        return files
    if not path.is_file():
        raise DataError(f"{source}: no such file or directory")
    if path.suffix not in SUFFIXES:
        raise DataError(f"{source}: unknown kind of file; use one of {', '.join(SUFFIXES)}")
    return [source]


def rows_of(file: str) -> Iterator[SourceRow]:
    """The rows of one file. Raises DataError when the file as a whole cannot be read."""
    if file.startswith("hf:"):
        return _hub_rows(file)
    return _FORMATS[Path(file).suffix](file)


def _jsonl_rows(file: str) -> Iterator[SourceRow]:
    try:
        with Path(file).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _jsonl_row(file, number, line)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _jsonl_row(file: str, number: int, line: bytes) -> SourceRow:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return SourceRow(file=file, number=number, fields={}, mistake="the row is not UTF-8 text")
    except (json.JSONDecodeError, RecursionError) as error:
        return SourceRow(file=file, number=number, fields={}, mistake=f"the row is not JSON: {error}")
    if not isinstance(value, dict):
        return SourceRow(file=file, number=number, fields={}, mistake="the row is not a JSON object")
    return SourceRow(file=file, number=number, fields=value)


def _csv_rows(file: str, delimiter: str = ",") -> Iterator[SourceRow]:
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    try:
        # Undecodable bytes become lone surrogates, which the check of a text field refuses: only that row is lost.
        with Path(file).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
            for number in itertools.count(1):
                try:
                    yield _csv_row(file, number, next(reader))
                except StopIteration:
                    return
                except csv.Error as error:
                    yield _unreadable_csv_row(file, number, reader.line_num, error)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _unreadable_csv_row(file: str, number: int, line: int, error: csv.Error) -> SourceRow:
    if "unexpected end of data" in str(error):  # an open quote has swallowed an unknown number of rows
        raise DataError(f"{file}: row {number}: a quote is opened and never closed") from error
    return SourceRow(file=file, number=number, fields={}, mistake=f"the row is not CSV (line {line}): {error}")


def _csv_row(file: str, number: int, fields: dict[str | Any, Any]) -> SourceRow:
    if None in fields:
        return SourceRow(file=file, number=number, fields={}, mistake="the row has more cells than the header")
    missing = [name for name, value in fields.items() if value is None]
    if missing:
        return SourceRow(file=file, number=number, fields={}, mistake=f"the row ends before column `{missing[0]}`")
    return SourceRow(file=file, number=number, fields=fields)


def _parquet_rows(file: str) -> Iterator[SourceRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield SourceRow(file=file, number=number, fields=fields)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as parquet after row {number}: {error}") from error


def _hub_rows(source: str) -> Iterator[SourceRow]:
    """The ``train`` split of a Hugging Face data set, streamed."""
    import datasets

    number = 0
    try:
        for fields in datasets.load_dataset(source.removeprefix("hf:"), split="train", streaming=True):
            number += 1
            yield SourceRow(file=source, number=number, fields=dict(fields))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source}: cannot be read after row {number}: {error}") from error


#: How a file is read, by its suffix.
_FORMATS: Mapping[str, Callable[[str], Iterator[SourceRow]]] = {
    ".jsonl": _jsonl_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}
SUFFIXES = tuple(_FORMATS)
