"""The configuration reference: every key with its values, default and description, read from the schema."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from rlaif.config.keys import alternatives
from rlaif.config.schema import Config
from rlaif.config.section import Section
from rlaif.config.source import Source

BOUNDS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}
TYPES = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    Source: "a source: text, or keys and values",
}


def reference() -> str:
    """One table for each kind of section; kinds that occur under several keys are described once. A source, which may
    also be a text, is a value of its key."""
    return "\n\n".join(_table(kind, places) for kind, places in _kinds().items() if _own_fields(kind))


def _kinds() -> dict[type[Section], list[str]]:
    """Kind of section -> the keys where it, or a kind derived from it, occurs."""
    kinds: dict[type[Section], list[str]] = {}
    for key, kind in _sections(Config, ""):
        for base in reversed(kind.__mro__):
            if isinstance(base, type) and issubclass(base, Section) and base is not Section:
                kinds.setdefault(base, []).append(key)
    return kinds


def _sections(kind: type[Section], key: str) -> Iterator[tuple[str, type[Section]]]:
    yield key, kind
    for name, field in kind.model_fields.items():
        inner = next((kind for kind in alternatives(field.annotation) if kind is Source), field.annotation)
        if isinstance(inner, type) and issubclass(inner, Section):
            yield from _sections(inner, f"{key}.{name}".lstrip("."))


def _own_fields(kind: type[Section]) -> dict[str, FieldInfo]:
    """Fields that this kind declares itself and that are values, not sections."""
    fields = {name: kind.model_fields[name] for name in kind.__annotations__ if name in kind.model_fields}
    return {name: field for name, field in fields.items() if not _is_section(field)}


def _is_section(field: FieldInfo) -> bool:
    kind = field.annotation
    return isinstance(kind, type) and issubclass(kind, Section) and kind is not Source


def _table(kind: type[Section], places: list[str]) -> str:
    title = ", ".join(f"`{place}`" for place in places) if places != [""] else "At the top"
    text = " ".join((kind.__doc__ or "").split("\n\n")[0].split()).replace("``", "`") if kind is not Config else ""
    rows = [_row(name, field) for name, field in _own_fields(kind).items()]
    head = "| key | values | default | what it is |\n|---|---|---|---|"
    return "\n\n".join(part for part in (f"## {title}", text, "\n".join([head, *rows])) if part)


def _row(name: str, field: FieldInfo) -> str:
    default = "none" if field.is_required() else f"`{_shown(_default(field))}`"
    cells = (f"`{name}`", _values(field.annotation, field.metadata), default, field.description or "")
    return f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in cells)} |"


def _default(field: FieldInfo) -> object:
    return field.get_default(call_default_factory=True, validated_data={})


def _shown(value: object) -> str:
    plain = list(value) if isinstance(value, tuple) else str(value) if isinstance(value, Source) else value
    return yaml.safe_dump(plain, default_flow_style=True, width=1000).removesuffix("...\n").strip()


def _values(annotation: Any, metadata: list[Any]) -> str:
    """What may be written, in words."""
    bounds = ", ".join(
        f"{words} {getattr(m, name):g}" for m in metadata for name, words in BOUNDS.items() if hasattr(m, name)
    )
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{choice}`" for choice in arguments)
    if origin in (Union, types.UnionType):
        inner = next(argument for argument in arguments if argument is not type(None))
        return f"{_values(inner, metadata)}, or null"
    if hasattr(annotation, "__metadata__"):
        return _values(annotation.__origin__, [m for part in annotation.__metadata__ for m in _bounds(part)])
    if origin is tuple:
        return f"list of {_values(arguments[0], [])}"
    if origin is dict:
        return f"names with a {_values(arguments[1], [])}"
    return ", ".join(part for part in (TYPES.get(annotation, str(annotation)), bounds) if part)


def _bounds(part: Any) -> list[Any]:
    return list(part.metadata) if isinstance(part, FieldInfo) else [part]
