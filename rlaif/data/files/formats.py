"""How a file is read, by its suffix (in any case), with or without the suffix of a compression."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePath

from rlaif.data.files.arrow_rows import arrow_rows, parquet_rows
from rlaif.data.files.csv_rows import csv_rows, separator_of, tsv_rows
from rlaif.data.files.json_rows import json_line_rows, json_rows, layout_of
from rlaif.data.files.raw_rows import RawRow
from rlaif.data.files.streams import COMPRESSIONS, compression_of, encoding_of

_FORMATS: Mapping[str, Callable[[str, int], Iterator[RawRow]]] = {
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


def raw_rows(file: str, max_chars: int) -> Iterator[RawRow]:
    """The rows of a file that has a format; those of more than ``max_chars`` characters are bad, and are not held.

    Raises Unreadable, and one of READ_ERRORS.
    """
    return _FORMATS[_suffix(file)](file, max_chars)


def describe_file(file: str) -> str:
    """Format, encoding and compression of a file that has a format, for people. Raises as ``raw_rows`` does."""
    suffix = _suffix(file)
    if suffix in (".parquet", ".arrow"):
        words = [suffix.removeprefix(".")]
    else:
        is_table = suffix in (".csv", ".tsv")
        encoding = encoding_of(file, code_pages=is_table).removesuffix("-sig")
        words = [_table_words(file, suffix) if is_table else _JSON_LAYOUTS[layout_of(file)], encoding]
    compression = compression_of(file)
    return ", ".join([*words, compression] if compression else words)


def _table_words(file: str, suffix: str) -> str:
    separator, _ = separator_of(file, "\t" if suffix == ".tsv" else ",")
    return f"table of text, cells separated by {_SEPARATORS.get(separator, separator)}"


_SEPARATORS = {",": "commas", ";": "semicolons", "\t": "tabs"}
_JSON_LAYOUTS = {"lines": "JSON, an object per line", "array": "JSON array", "pretty": "JSON over several lines"}


def _suffix(file: str) -> str:
    path = PurePath(file.lower())
    return PurePath(path.stem).suffix if path.suffix in COMPRESSIONS else path.suffix
