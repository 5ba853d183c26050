"""Records as JSON bytes (for the journal) and as Arrow rows (for parquet), both derived from the dataclasses."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from rlaif.config.strict_yaml import rule_of
from rlaif.errors import DataError

_R = TypeVar("_R")

SCALARS = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def to_json(record: Any) -> bytes:
    """Raises DataError, naming the field, for what could not be read back: NaN, infinity, text that is not Unicode."""
    if flaw := _not_finite(record):
        raise DataError(f"cannot be stored: {flaw}")
    try:
        return _adapter(type(record)).dump_json(record)
    except PydanticSerializationError as error:
        raise DataError(f"cannot be stored: {error}") from error


def _not_finite(value: Any, name: str = "") -> str | None:
    """Which number of a record is NaN or infinite, as ``judgements.0.logprob_a is nan``."""
    if isinstance(value, float):
        return None if math.isfinite(value) else f"{name} is {value}"
    if isinstance(value, tuple):
        parts: Iterable[tuple[Any, Any]] = enumerate(value) if not _are_integers(value) else ()
    elif is_dataclass(value):
        parts = ((field.name, getattr(value, field.name)) for field in fields(value))
    else:
        return None
    flaws = (_not_finite(part, f"{name}.{key}".lstrip(".")) for key, part in parts)
    return next((flaw for flaw in flaws if flaw), None)


def _are_integers(values: tuple[Any, ...]) -> bool:
    return bool(values) and isinstance(values[0], int)  # token ids: too many to look at each


def from_json(record_type: type[_R], data: bytes) -> _R:
    """Raises DataError, naming the field, for bytes that hold no such record, or one that ``to_json`` would refuse."""
    try:
        record: _R = _adapter(record_type).validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise DataError(f"cannot be read: {where + ': ' if where else ''}{first['msg']}") from error
    if flaw := _not_finite(record):
        raise DataError(f"cannot be read: {flaw}")
    return record


def to_row(record: Any) -> Mapping[str, Any]:
    """The record as plain values that ``arrow_schema(type(record))`` accepts."""
    row: Mapping[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return row


def from_row(record_type: type[_R], row: Mapping[str, Any]) -> _R:
    """The record that ``to_row`` or a parquet row holds."""
    record: _R = _adapter(record_type).validate_python(row)
    return record


def check_column(record_type: type, name: str, column: pa.Array, first_row: int) -> None:
    """Raises ValueError, naming the row, unless each value of ``column`` is one that the field ``name`` may have."""
    values = _columns(record_type)[name]
    try:
        found = values.validate_python(column.to_pylist())
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        row, *place = first["loc"]
        where = ".".join(map(str, [name, *place]))
        raise ValueError(f"row {first_row + int(row)}, {where}: {rule_of(first)[0]}") from error
    for number, value in enumerate(found):
        if flaw := _not_finite(value, name):
            raise ValueError(f"row {first_row + number}, {flaw}")


@cache
def _columns(record_type: type) -> Mapping[str, TypeAdapter[Any]]:
    """Field -> what a column of its values is."""
    hints = typing.get_type_hints(record_type, include_extras=True)
    return {name: _adapter(types.GenericAlias(tuple, (hint, ...))) for name, hint in hints.items()}


def arrow_schema(record_type: Any) -> pa.Schema:
    hints = typing.get_type_hints(record_type)
    return pa.schema([(field.name, _arrow_type(hints[field.name])) for field in fields(record_type)])


def _arrow_type(annotation: Any) -> pa.DataType:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in SCALARS:
        return SCALARS[annotation]
    if origin is typing.Literal:
        return SCALARS[type(arguments[0])]
    if origin in (typing.Union, types.UnionType):  # only X | None occurs; every Arrow column is nullable
        return _arrow_type(next(a for a in arguments if a is not type(None)))
    if origin is tuple:  # only tuple[X, ...] occurs
        return pa.list_(_arrow_type(arguments[0]))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return pa.string()
    if is_dataclass(annotation):
        hints = typing.get_type_hints(annotation)
        return pa.struct([(field.name, _arrow_type(hints[field.name])) for field in fields(annotation)])
    raise TypeError(f"no Arrow type for {annotation}")
