"""Records as JSON bytes (for the journal) and as Arrow rows (for parquet), both derived from the dataclasses."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter

_R = TypeVar("_R")

SCALARS = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


_adapter: Callable[[Any], TypeAdapter[Any]] = cache(TypeAdapter)


def to_json(record: Any) -> bytes:
    return _adapter(type(record)).dump_json(record)


def from_json(record_type: type[_R], data: bytes) -> _R:
    record: _R = _adapter(record_type).validate_json(data)
    return record


def to_row(record: Any) -> Mapping[str, Any]:
    """The record as plain values that ``arrow_schema(type(record))`` accepts."""
    row: Mapping[str, Any] = _adapter(type(record)).dump_python(record, mode="json")
    return row


def from_row(record_type: type[_R], row: Mapping[str, Any]) -> _R:
    """The record that ``to_row`` or a parquet row holds."""
    record: _R = _adapter(record_type).validate_python(row)
    return record


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
