"""Rows of a source, whatever holds them: .jsonl, .csv or .parquet files, directories of them, ``hf:NAME``.

Everything streams: memory holds one line (.jsonl, .csv) or one small batch (.parquet) at a time. Row numbers
start at 1; in a .jsonl file the number is the line's (blank lines are skipped but counted), so that an editor
finds it.
"""

from __future__ import annotations

import csv
import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlaif.errors import DataError
from rlaif.records import Quarantined

SUFFIXES = (".jsonl", ".csv", ".parquet")
PARQUET_BATCH_ROWS = 256
MAX_CSV_FIELD_CHARS = 2**31 - 1  #: the csv module's own limit of 128 Ki would refuse long transcripts

Record = TypeVar("Record")
Quarantine = Callable[[Quarantined], None]


class BadRow(ValueError):
    """One row that cannot be used; the message names the field. It is quarantined and reading goes on."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """Row ``number`` of ``file``; ``problem`` says why ``fields`` is empty when the row cannot be read."""

    file: str
    number: int
    fields: dict[str, Any]
    problem: str | None = None

    @property
    def id(self) -> str:
        return f"{self.file}:{self.number}"


def read_records(source: str, parse: Callable[[Row], Record], quarantine: Quarantine) -> Iterator[Record]:
    """Every row of ``source`` as a record; rows that ``parse`` refuses with BadRow go to ``quarantine``.

    Raises DataError when a file is missing, unreadable or empty, or when every one of its rows is bad.
    """
    for file in files_of(source):
        num_good, first_problem = 0, None
        for row in rows_of(file):
            try:
                record = _parsed(row, parse)
            except BadRow as error:
                first_problem = first_problem or f"row {row.number}: {error}"
                quarantine(Quarantined(id=row.id, file=file, row=row.number, stage="read", cause=str(error)))
                continue
            num_good += 1
            yield record
        if not num_good:
            raise DataError(f"{file}: {_nothing_usable(first_problem)}")


def _parsed(row: Row, parse: Callable[[Row], Record]) -> Record:
    if row.problem:
        raise BadRow(row.problem)
    return parse(row)


def _nothing_usable(first_problem: str | None) -> str:
    return f"every row is unusable; {first_problem}" if first_problem else "the file has no rows"


def files_of(source: str) -> list[str]:
    """The files of a source in a fixed order, named as the user named them; ``hf:NAME`` stands for itself."""
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


def rows_of(file: str) -> Iterator[Row]:
    """The rows of one file. Raises DataError when the file as a whole cannot be read."""
    if file.startswith("hf:"):
        return _hub_rows(file)
    read = {".jsonl": _jsonl_rows, ".csv": _csv_rows, ".parquet": _parquet_rows}[Path(file).suffix]
    return read(file)


def _jsonl_rows(file: str) -> Iterator[Row]:
    try:
        with Path(file).open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if line.strip():
                    yield _jsonl_row(file, number, line)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _jsonl_row(file: str, number: int, line: bytes) -> Row:
    try:
        value = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return Row(file=file, number=number, fields={}, problem="the row is not UTF-8 text")
    except (json.JSONDecodeError, RecursionError) as error:
        return Row(file=file, number=number, fields={}, problem=f"the row is not JSON: {error}")
    if not isinstance(value, dict):
        return Row(file=file, number=number, fields={}, problem="the row is not a JSON object")
    return Row(file=file, number=number, fields=value)


def _csv_rows(file: str) -> Iterator[Row]:
    csv.field_size_limit(MAX_CSV_FIELD_CHARS)
    try:
        # Undecodable bytes become lone surrogates, which the text check of a field refuses: that row alone is lost.
        with Path(file).open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
            reader = csv.DictReader(lines, strict=True)
            for number in itertools.count(1):
                try:
                    yield _csv_row(file, number, next(reader))
                except StopIteration:
                    return
                except csv.Error as error:
                    yield _unreadable_csv_row(file, number, reader.line_num, error)
    except OSError as error:
        raise DataError(f"{file}: cannot be read: {error.strerror}") from error


def _unreadable_csv_row(file: str, number: int, line: int, error: csv.Error) -> Row:
    if "unexpected end of data" in str(error):  # an open quote has swallowed the rest: how many rows, nobody knows
        raise DataError(f"{file}: row {number}: a quote is opened and never closed") from error
    return Row(file=file, number=number, fields={}, problem=f"the row is not CSV (line {line}): {error}")


def _csv_row(file: str, number: int, fields: dict[str | Any, Any]) -> Row:
    if None in fields:
        return Row(file=file, number=number, fields={}, problem="the row has more cells than the header")
    missing = [name for name, value in fields.items() if value is None]
    if missing:
        return Row(file=file, number=number, fields={}, problem=f"the row ends before column `{missing[0]}`")
    return Row(file=file, number=number, fields=fields)


def _parquet_rows(file: str) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    yield Row(file=file, number=number, fields=fields)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: cannot be read as parquet after row {number}: {error}") from error


def _hub_rows(source: str) -> Iterator[Row]:
    """The ``train`` split of a Hugging Face data set, streamed."""
    import datasets

    number = 0
    try:
        for fields in datasets.load_dataset(source.removeprefix("hf:"), split="train", streaming=True):
            number += 1
            yield Row(file=source, number=number, fields=dict(fields))
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise DataError(f"{source}: cannot be read after row {number}: {error}") from error
