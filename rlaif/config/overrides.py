"""What a value means that a user types as ``section.key=value``.

Where the field is text (a path, a source, a model, one of several names), the value is taken as it is:
``in/my #3.jsonl``, ``@x``, ``2024-01-02``, ``off`` need no quotes. What is not text: ``null`` and an empty value where
the field may be null, and ``{...}`` where it may also be keys and values, as a source may. Text in quotes is what is in
them, so ``'null'`` is a text, too. All other values are YAML: numbers, booleans, lists, ``{...}``.
"""

from __future__ import annotations

from types import NoneType
from typing import Annotated, Any, Literal, get_args, get_origin

import yaml

from rlaif.config.keys import alternatives, field_type
from rlaif.config.source import Source
from rlaif.config.strict_yaml import parse_yaml

NULLS = ("", "~", "null", "Null", "NULL")
QUOTES = ("'", '"')


def read_override(key: str, text: str) -> object:
    """The value of the field ``key`` (dotted) that ``text`` means. Raises yaml.YAMLError where it is not YAML.

    The value of an unknown key is its text: that the key is unknown is what the user must hear.
    """
    kinds = alternatives(field_type(key))
    if not any(_is_text(kind) for kind in kinds) and not _is_unknown(key):
        return parse_yaml(text)
    if text in NULLS and NoneType in kinds:
        return None
    if text.startswith("{") and text.endswith("}") and any(_is_mapping(kind) for kind in kinds):
        return parse_yaml(text)
    return _unquoted(text)


def _is_unknown(key: str) -> bool:
    """Whether there is no such field. Below a mapping, such as custom resources, names are the user's own."""
    above = field_type(key.rpartition(".")[0])
    return field_type(key) is None and not any(get_origin(kind) is dict for kind in alternatives(above))


def _is_text(kind: Any) -> bool:
    """Whether a value may be text; a number of a kind that is text in the end is written like one."""
    if get_origin(kind) is Annotated:
        return _is_text(get_args(kind)[0])
    return kind in (str, Source) or (
        get_origin(kind) is Literal and all(isinstance(name, str) for name in get_args(kind))
    )


def _is_mapping(kind: Any) -> bool:
    return get_origin(kind) is dict or hasattr(kind, "model_fields")


def _unquoted(text: str) -> str:
    """``text`` without the quotes round the whole of it, if YAML reads it so."""
    if text[:1] not in QUOTES or text[-1:] != text[:1]:
        return text
    try:
        value = parse_yaml(text)
    except yaml.YAMLError:
        return text
    return value if isinstance(value, str) else text
