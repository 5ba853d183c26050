"""Objects as JSON, Python's literals and Arrow's maps hold them. All of these can give a key twice: which of its values
is meant cannot be told, so none of them is used."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

from rlaif.data.files.raw_rows import Unreadable

#: A value costs Python's compiler a hundred times what it costs a reader of JSON, and what an f-string computes costs
#: more: a literal may have any length, but only so much outside of its quotes.
MAX_SKELETON_CHARS = 100_000
_QUOTED = re.compile(r"""('{3}|"{3}|'|")(?:\\.|(?!\1).)*+(?:\1|\Z)""", re.DOTALL)
_F_STRING = re.compile("[fF][rR]?''")


def given_twice(key: object) -> str:
    return f"field `{key}` is given twice"


def repeated_of(keys: Sequence[Hashable]) -> Any | None:
    """The key that is there more than once; None when there is none."""
    if len(set(keys)) == len(keys):
        return None
    ((repeated, _),) = Counter(keys).most_common(1)
    return repeated


def as_object(value: Any) -> Any:
    """``value``, or the object that a map column of Arrow holds. Raises Unreadable."""
    if not isinstance(value, list) or not value or not all(map(_is_entry, value)):
        return value
    if (repeated := repeated_of([key for key, _ in value])) is not None:
        raise Unreadable(given_twice(repeated))
    return dict(value)


def _is_entry(item: Any) -> bool:
    return isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)


class JsonDecoder:
    """JSON as these files use it. Remembers a key that the last value gave twice: of those, the last would win."""

    def __init__(self, *, strict: bool = True) -> None:
        self.repeated: str | None = None
        self._json = json.JSONDecoder(object_pairs_hook=self._object, parse_int=_number, strict=strict)

    def decode(self, text: str) -> Any:
        """Raises ValueError, or RecursionError."""
        self.repeated = None
        return self._json.decode(text)

    def decode_at(self, text: str, start: int) -> tuple[Any, int]:
        """The value that begins at ``start``, and where it ends. Raises ValueError, or RecursionError."""
        self.repeated = None
        return self._json.raw_decode(text, start)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            self.repeated = repeated_of([name for name, _ in pairs])
        return value


def _number(digits: str) -> int | float:
    """A whole number. Python refuses to convert thousands of digits, and a row may hold them where nobody looks."""
    try:
        return int(digits)
    except ValueError:
        return float(digits)


def python_value(text: str) -> tuple[Any, Any | None]:
    """The value of a Python literal, and a key that one of its dictionaries gives twice.

    Raises ValueError, SyntaxError, TypeError, MemoryError or RecursionError.
    """
    skeleton = _QUOTED.sub("''", text)
    if len(skeleton) > MAX_SKELETON_CHARS or _F_STRING.search(skeleton):
        raise ValueError("no literal, or one with too many values")
    tree = ast.parse(text, mode="eval")
    value = ast.literal_eval(tree)
    repeated = (
        repeated_of([ast.literal_eval(key) for key in node.keys if key is not None])
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
    )
    return value, next((key for key in repeated if key is not None), None)
