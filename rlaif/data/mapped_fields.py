"""Fields that a configuration names: where in a row the parts are that a reader asks for.

A dotted path goes into objects by key and into lists by index, from 0; -1 is the last. A key that has dots is taken
whole, and text that holds JSON is what it holds. A row then has the named fields only.
"""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from rlaif.config.source import RowLimits, Source
from rlaif.data.dialogues.structures import parse_literal
from rlaif.data.excess import LimitedRecord, refuse_excess
from rlaif.data.files.objects import as_object
from rlaif.data.files.raw_rows import Unreadable
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow, read_records
from rlaif.errors import DataError, format_value

_Record = TypeVar("_Record", bound=LimitedRecord)
_MISSING = object()
_MAX_ROWS = 100  #: rows whose columns are remembered for the message
_MAX_NAMES = 500
_MAX_SHOWN = 12
_MAX_DEPTH = 4


def read_mapped(
    source: Source | str, parse: Callable[[SourceRow], _Record], quarantine: Quarantine, limits: RowLimits
) -> Iterator[_Record]:
    """As ``read_records``, with the fields that ``source`` names. Raises DataError for one that is in no row."""

    def parsed(row: SourceRow) -> _Record:
        record = parse(fields.row(row))
        refuse_excess(record, limits)
        return record

    fields = MappedFields(Source.of(source).fields)
    try:
        yield from read_records(str(source), parsed, quarantine, limits.max_chars)
    except DataError:
        fields.check(str(source))  # of two mistakes, this one is the cause
        raise
    fields.check(str(source))


class MappedFields:
    """``paths``: field that readers know -> dotted path. Without any, rows stay as they are."""

    def __init__(self, paths: Mapping[str, str]) -> None:
        self._paths = paths
        self._unseen = dict(paths)  #: those that no row has had so far
        self._columns: dict[str, None] = {}  #: of the first rows; an ordered set
        self._known: dict[str, None] = {}  #: every path that leads somewhere in them
        self._num_noted = 0

    def row(self, row: SourceRow) -> SourceRow:
        """``row`` with the named fields only. Raises BadRow when it has none of them, and Unreadable."""
        if not self._paths or row.mistake:
            return row
        values = {name: value_at(row.fields, path) for name, path in self._paths.items()}
        found = {name: value for name, value in values.items() if value is not _MISSING}
        for name in found:
            self._unseen.pop(name, None)
        if self._unseen and self._num_noted < _MAX_ROWS:
            self._note(row.fields)
        if not found:
            named = ", ".join(f"{name}={path}" for name, path in self._paths.items())
            raise BadRow(f"{named}: not in this row, which has {_listed(list(map(str, row.fields)))}")
        return replace(row, fields=found)

    def check(self, source: str) -> None:
        """Raises DataError when there were rows, and none of them had a field that is named."""
        for name, path in self._unseen.items():
            if self._columns:
                near = difflib.get_close_matches(path, self._known, n=1)
                hint = f"did you mean {format_value(near[0])}? " if near else ""
                columns = _listed(list(self._columns))
                raise DataError(f"{source}: {name}={path}: no row has this field; {hint}The rows have {columns}")

    def _note(self, fields: Fields) -> None:
        self._num_noted += 1
        self._columns.update(dict.fromkeys(map(str, fields)))
        try:
            self._known.update(dict.fromkeys(itertools.islice(_paths_in(fields), _MAX_NAMES)))
        except Unreadable:  # a column that may not be asked for
            self._known.update(self._columns)


def value_at(value: Any, path: str) -> Any:
    """What is at ``path`` in a row; ``_MISSING`` when nothing is. Raises BadRow, and Unreadable."""
    if isinstance(value, str):
        value = parse_literal(value, path)
    value = as_object(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return _in_list(value, path)
    if not isinstance(value, Mapping):
        return _MISSING
    if path in value:
        return value[path]
    dots = [place for place, char in enumerate(path) if char == "."]
    inner = (value_at(value[path[:dot]], path[dot + 1 :]) for dot in reversed(dots) if path[:dot] in value)
    return next((found for found in inner if found is not _MISSING), _MISSING)


def _in_list(items: Sequence[Any], path: str) -> Any:
    index, dot, rest = path.partition(".")
    if not index.removeprefix("-").isdecimal() or not -len(items) <= int(index) < len(items):
        return _MISSING
    return value_at(items[int(index)], rest) if dot else items[int(index)]


def _paths_in(value: Any, depth: int = 0) -> Iterator[str]:
    """The paths that lead somewhere in ``value``; of a list, into its first item."""
    if isinstance(value, str) and depth:
        value = parse_literal(value)
    if isinstance(value, Mapping):
        items = [(str(key), value[key]) for key in value]
    else:
        items = [("0", value[0])] if isinstance(value, list) and value else []
    for key, inner in items:
        yield key
        if depth < _MAX_DEPTH:
            yield from (f"{key}.{path}" for path in _paths_in(inner, depth + 1))


def _listed(names: list[str]) -> str:
    few = ", ".join(f"`{format_value(name)}`" for name in names[:_MAX_SHOWN])
    return f"{few} and {len(names) - _MAX_SHOWN} more" if len(names) > _MAX_SHOWN else few or "no fields"
