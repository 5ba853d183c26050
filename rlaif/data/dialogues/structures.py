"""Structure stored as text: a CSV cell or a field that holds messages as JSON, or as Python prints them.

Such a text must never be read as prose. JSON of messages and Python literals of messages are parsed; what begins like
messages but cannot be parsed (cut short, numpy's print of an array, quoted twice) is refused by name.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Mapping
from typing import Any

from rlaif.data.dialogues.messages import CONTENT_KEYS, MESSAGES_KEYS, ROLE_KEYS
from rlaif.data.rows import BadRow

_QUOTE = r"""(?:\\*["']|&quot;|&\#0?3[49];|“|”){1,4}"""
#: How messages in text begin, however they were quoted: ``[{"role": ``, ``array([{'from': ``, ``- role: ``.
_LOOKS_LIKE_MESSAGES = re.compile(
    rf"(?:{_QUOTE})?\s*(?:```\w*\s*)?(?:(?:np\.|numpy\.)?array\s*\(\s*)?[\[({{][\[({{\s]*"
    rf"{_QUOTE}(?:role|from|content|value|messages|conversations?){_QUOTE}\s*(?:[:=,]|\Z)"
    r"|-\s+(?:role|from|content|value)\s*:\s"
    r"|(?:\[\s*)?(?:\w+\.)*\w{0,30}(?:Message|Turn)\w{0,30}\(\s*(?:role|content|text)\s*="
)
_OPENINGS = ("[", "{", '"', "(")


def parse_structure(text: str, name: str) -> Any | None:
    """The list or object of messages that ``text`` holds, None when it holds none. Raises BadRow when it seems to hold
    messages but cannot be parsed."""
    value = parse_literal(text)
    if isinstance(value, str):  # quoted twice
        return parse_structure(value, name) if value != text else None
    if value is not None and _is_messages(value):
        return value
    if _has_message(value) if value is not None else _LOOKS_LIKE_MESSAGES.match(text.strip()):
        raise BadRow(f"field `{name}` looks like messages stored as text, but is not JSON of messages")
    return None


def refuse_structure(text: str, name: str) -> None:
    """Raises BadRow when ``text`` is JSON (or a Python literal) of something else than messages: no prompt is that."""
    value = parse_literal(text)
    if isinstance(value, list | dict | tuple):
        raise BadRow(f"field `{name}` holds {'an object' if isinstance(value, dict) else 'a list'} stored as text")


def refuse_messages(text: str, name: str) -> None:
    """Raises BadRow when the text of a message is itself messages, or parts of text, stored as text."""
    if parse_structure(text, name) is not None or _is_parts(parse_literal(text)):
        raise BadRow(f"field `{name}` holds messages stored as text")


def parse_list(value: Any) -> Any:
    """``value``, or the list that it holds as JSON text, as a CSV cell does."""
    parsed = parse_literal(value) if isinstance(value, str) else None
    return parsed if isinstance(parsed, list) else value


def parse_literal(text: str) -> Any | None:
    """The value of ``text`` as JSON or as a Python literal; None when it is neither."""
    text = text.strip()
    if not text.startswith(_OPENINGS):
        return None
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of escapes that Python does not know
            return ast.literal_eval(text) if text.startswith(("[", "{", "(")) else None
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None


def _is_messages(value: Any) -> bool:
    """Whether ``value`` is a message, a list of messages, or an object that holds messages."""
    if isinstance(value, Mapping):
        return _is_message(value) or any(isinstance(value.get(key), list) for key in MESSAGES_KEYS)
    return isinstance(value, list | tuple) and bool(value) and all(map(_is_message, value))


def _is_parts(value: Any) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) and "type" in part for part in value)
    )


def _has_message(value: Any) -> bool:
    return isinstance(value, list | tuple) and any(map(_is_message, value))


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and all(any(key in value for key in keys) for keys in (ROLE_KEYS, CONTENT_KEYS))
