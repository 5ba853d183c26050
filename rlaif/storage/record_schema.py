"""Records as JSON bytes (for the journal) and as Arrow rows (for parquet), both derived from the dataclasses."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import TypeAdapter

R = TypeVar("R")

SCALARS = {int: pa.int64(), float: pa.float64(), str: pa.string(), bool: pa.bool_()}


@cache
def _adapter(record_type: Any) -> TypeAdapter:
    return TypeAdapter(record_type)


def to_json(record: Any) -> bytes:
    return _adapter(type(record)).dump_json(record)  # type: ignore[arg-type]  # mypy: type[Any] is hashable


def from_json(record_type: type[R], data: bytes) -> R:
    return _adapter(record_type).validate_json(data)  # type: ignore[arg-type]


def to_row(record: Any) -> Mapping[str, Any]:
    """The record as plain values that ``arrow_schema(type(record))`` accepts."""
    return _adapter(type(record)).dump_python(record, mode="json")  # type: ignore[arg-type]


def from_row(record_type: type[R], row: Mapping[str, Any]) -> R:
    """The record that ``to_row`` or a parquet row holds."""
    return _adapter(record_type).validate_python(row)  # type: ignore[arg-type]


@cache
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
