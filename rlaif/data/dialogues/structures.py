"""Structure stored as text: a CSV cell or a field that holds messages as JSON, or as Python prints them.

Such a text must never be read as prose. JSON of messages and Python literals of messages are parsed; what begins like
messages but cannot be parsed (cut short, numpy's print of an array, quoted twice) is refused by name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from typing import Any

from rlaif.data.dialogues.messages import CONTENT_KEYS, MESSAGES_KEYS, ROLE_KEYS
from rlaif.data.files.objects import JsonDecoder, given_twice, python_value
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
    value, repeated = _literal(text)
    if isinstance(value, str):  # quoted twice
        return parse_structure(value, name) if value != text else None
    if value is not None and _is_messages(value):
        _refuse_repeated(repeated, name)
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


def parse_list(value: Any, name: str) -> Any:
    """``value``, or the list that it holds as JSON text, as a CSV cell does. Raises BadRow."""
    parsed, repeated = _literal(value) if isinstance(value, str) else (None, None)
    if not isinstance(parsed, list):
        return value
    _refuse_repeated(repeated, name)
    return parsed


def parse_literal(text: str, name: str | None = None) -> Any | None:
    """The value of ``text`` as JSON or as a Python literal; None when it is neither.

    ``name``: that of the field that holds it, where the value is used. Raises BadRow then for a key that is given
    twice; a text in which nobody looks may hold one.
    """
    value, repeated = _literal(text)
    if name is not None:
        _refuse_repeated(repeated, name)
    return value


def _refuse_repeated(key: Any | None, name: str) -> None:
    if key is not None:
        raise BadRow(f"field `{name}`: {given_twice(key)}")


def _literal(text: str) -> tuple[Any | None, Any | None]:
    """As ``parse_literal``, and a key that is given twice in it."""
    text = text.strip()
    if not text.startswith(_OPENINGS):
        return None, None
    decoder = JsonDecoder(strict=False)
    try:
        return decoder.decode(text), decoder.repeated
    except (ValueError, RecursionError):
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)  # of escapes that Python does not know
            return python_value(text) if text.startswith(("[", "{", "(")) else (None, None)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None, None


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
