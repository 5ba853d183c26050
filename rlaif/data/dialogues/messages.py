"""Lists of messages: ``[{"role", "content"}]`` as in TRL and chat APIs, ``[{"from", "value"}]`` as in ShareGPT, and our
own turns, ``[{"role", "text"}]``.

Content may be a list of parts when all of them are text. What these records cannot hold is refused by name: system and
tool turns, images, calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.data.fields import encodable, is_given, kind_of, refusal_of, refuse_beside, trim
from rlaif.data.rows import BadRow, Fields
from rlaif.records import Role, Turn

#: Names of roles, in any case of letters; templates have others besides (``rendered``).
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("human", "user", "prompter"), "human"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai"), "assistant"),
}
REFUSED_ROLES: Mapping[str, str] = {
    **dict.fromkeys(("system", "developer"), "system turn"),
    **dict.fromkeys(("tool", "tools", "function", "function_call", "observation", "ipython"), "tool turn"),
}
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value", "text", "parts")
_TEXT_PARTS = ("text", "input_text", "output_text")
_CALLS = ("tool_calls", "function_call")
#: Keys under which an object holds its messages, as in chat logs: ``{"model": ..., "messages": [...]}``.
MESSAGES_KEYS = ("messages", "conversations", "conversation")


def parse_messages(value: Any, name: str) -> tuple[Turn, ...]:
    """The turns of a list of messages, of one message, or of an object that holds messages. Raises BadRow naming it."""
    if isinstance(value, Mapping):
        return _object_turns(value, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow(f"field `{name}` must be text or a list of messages, not {kind_of(value)}")
    turns = [_turn(message, f"{name}[{index}]") for index, message in enumerate(value)]
    spoken = tuple(turn for turn in turns if turn is not None)
    if not spoken:
        raise BadRow(f"field `{name}` is empty")
    return spoken


def _object_turns(value: Fields, name: str) -> tuple[Turn, ...]:
    """The turns of one message, of a column of roles beside one of contents, or of an object with messages inside."""
    key = next((key for key in MESSAGES_KEYS if isinstance(value.get(key), list)), None)
    if key:
        refuse_beside(value, f"{name}.")
        return parse_messages(value[key], f"{name}.{key}")
    roles, contents = _first(value, ROLE_KEYS), _first(value, CONTENT_KEYS)
    if isinstance(roles, list) and isinstance(contents, list) and len(roles) == len(contents):
        return parse_messages([{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)], name)
    if roles is None or contents is None:
        raise BadRow(f"field `{name}` must be text or a list of messages, not an object")
    return parse_messages([value], name)


def _turn(message: Any, name: str) -> Turn | None:
    """One message as a turn; None for a system turn that says nothing."""
    if isinstance(message, list) and all(isinstance(item, tuple) and len(item) == 2 for item in message):
        message = dict(message)  # a map column of Arrow
    if not isinstance(message, Mapping):
        kind = "text" if isinstance(message, str) else kind_of(message)
        raise BadRow(f"field `{name}` must be a message with role and content, not {kind}")
    role, content = _role(message, name), _content(message, name)
    if role in ROLES:
        return Turn(role=ROLES[role], text=content)
    if role in REFUSED_ROLES and not content and REFUSED_ROLES[role] == "system turn":
        return None
    what = REFUSED_ROLES[role]
    raise BadRow(f"field `{name}.role`: {what}: {refusal_of(what)}")


def _role(message: Fields, name: str) -> str:
    """The role in small letters. Raises BadRow for roles that nobody has, for tool turns and for calls of tools."""
    role = _first(message, ROLE_KEYS)
    key = role.strip().lower() if isinstance(role, str) else ""
    if key not in ROLES and key not in REFUSED_ROLES:
        raise BadRow(f"field `{name}.role` must be user or assistant, not {role!r}")
    if REFUSED_ROLES.get(key) == "tool turn" or any(is_given(message, call) for call in _CALLS):
        raise BadRow(f"field `{name}`: tool turn: {refusal_of('tool turn')}")
    refuse_beside(message, f"{name}.")
    return key


def _content(message: Fields, name: str) -> str:
    content = _first(message, CONTENT_KEYS)
    if isinstance(content, list) and content:
        content = "\n".join(_part(part, f"{name}.content[{index}]") for index, part in enumerate(content))
    if not isinstance(content, str) or not encodable(content):
        raise BadRow(f"field `{name}.content` must be text, not {kind_of(content)}")
    return trim(content)


def _part(part: Any, name: str) -> str:
    if isinstance(part, str):
        return part
    kind = part.get("type") if isinstance(part, Mapping) else kind_of(part)
    if isinstance(part, Mapping) and kind in (None, *_TEXT_PARTS) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRow(f"field `{name}` must be text, not {kind or kind_of(part)}")


def _first(message: Fields, keys: Sequence[str]) -> Any:
    """The first of ``keys`` that is not null: tables united from several sources fill the others with nulls."""
    return next((message[key] for key in keys if message.get(key) is not None), None)
