"""How a file is read, by its suffix (in any case), with or without the suffix of a compression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath

from rlaif.data.files.arrow_rows import arrow_rows, parquet_rows
from rlaif.data.files.csv_rows import csv_rows, tsv_rows
from rlaif.data.files.json_rows import json_line_rows, json_rows
from rlaif.data.files.raw_rows import RawRow
from rlaif.data.files.streams import COMPRESSIONS

_FORMATS: Mapping[str, Callable[[str], Iterator[RawRow]]] = {
    ".jsonl": json_line_rows,
    ".ndjson": json_line_rows,
    ".json": json_rows,
    ".csv": csv_rows,
    ".tsv": tsv_rows,
    ".parquet": parquet_rows,
    ".arrow": arrow_rows,
}
SUFFIXES = tuple(_FORMATS)
FILE_KINDS = f"{', '.join(SUFFIXES)}, each also with {', '.join(COMPRESSIONS)}"  #: for messages


def has_format(file: str) -> bool:
    return _suffix(file) in _FORMATS


def raw_rows(file: str) -> Iterator[RawRow]:
    """The rows of a file that has a format. Raises Unreadable, and one of READ_ERRORS."""
    return _FORMATS[_suffix(file)](file)


def _suffix(file: str) -> str:
    path = PurePath(file.lower())
    return PurePath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
