"""Lists of messages: ``[{"role", "content"}]`` as in TRL and chat APIs, ``[{"from", "value"}]`` as in ShareGPT, and our
own turns, ``[{"role", "text"}]``.

Content may be a list of parts when all of them are text. A message's thoughts (``reasoning_content``) are not read:
what was thought is no part of what was said. What these records cannot hold is refused by name: tool turns, images,
calls.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.data.fields import (
    check_text,
    encodable,
    is_blank,
    is_given,
    kind_of,
    quoted,
    refusal_of,
    refuse_beside,
    system_column,
    trim,
)
from rlaif.data.files.objects import as_object
from rlaif.data.rows import BadRow, Fields
from rlaif.errors import format_value
from rlaif.records import Role, Turn

#: Names of roles, in any case of letters; templates have others besides (``rendered``).
ROLES: Mapping[str, Role] = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("human", "user", "prompter"), "human"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "model", "bot", "ai"), "assistant"),
}
TOOL_ROLES = ("tool", "tools", "function", "function_call", "observation", "ipython")
#: Where a message keeps what the model thought before it spoke.
THOUGHT_KEYS = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts")
ROLE_KEYS, CONTENT_KEYS = ("role", "from"), ("content", "value", "text", "parts")
_TEXT_PARTS = ("text", "input_text", "output_text")
_CALLS = ("tool_calls", "function_call")
#: Keys under which an object holds its messages, as in chat logs: ``{"model": ..., "messages": [...]}``.
MESSAGES_KEYS = ("messages", "conversations", "conversation")


def parse_messages(value: Any, name: str, *, may_be_empty: bool = False) -> tuple[Turn, ...]:
    """The turns of a list of messages, of one message, or of an object that holds messages. Raises BadRow naming it."""
    value = as_object(value)
    if isinstance(value, Mapping):
        return _object_turns(value, name)
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow(f"field `{name}` must be text or a list of messages, not {kind_of(value)}")
    turns = [_turn(message, f"{name}[{index}]") for index, message in enumerate(value)]
    spoken = tuple(turn for turn in turns if turn is not None)
    if not spoken and not may_be_empty:
        raise BadRow(f"field `{name}` is empty")
    return spoken


def _object_turns(value: Fields, name: str) -> tuple[Turn, ...]:
    """The turns of one message, of a column of roles beside one of contents, or of an object with messages inside."""
    key = next((key for key in MESSAGES_KEYS if isinstance(value.get(key), list)), None)
    if key:
        refuse_beside(value, f"{name}.")
        turns = parse_messages(value[key], f"{name}.{key}")
        column = system_column(value)
        return with_system(turns, value[column], f"{name}.{column}") if column else turns
    roles, contents = _first(value, ROLE_KEYS), _first(value, CONTENT_KEYS)
    if isinstance(roles, list) and isinstance(contents, list) and len(roles) == len(contents):
        return parse_messages([{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)], name)
    if roles is None or contents is None:
        raise BadRow(f"field `{name}` must be text or a list of messages, not an object")
    return parse_messages([value], name)


def with_system(turns: tuple[Turn, ...], text: Any, name: str) -> tuple[Turn, ...]:
    """``turns`` after the system turn in field ``name``. Raises BadRow when they have another one, or it is no text."""
    system = Turn(role="system", text=trim(check_text(text, name)))
    if turns and turns[0].role == "system":
        if turns[0].text.strip() != system.text.strip():
            raise BadRow(f"field `{name}`: the conversation has another system turn")
        return turns
    return (system, *turns)


def one_system_turn(turns: tuple[Turn, ...], name: str) -> tuple[Turn, ...]:
    """``turns`` with the system turns that begin them joined to one. Raises BadRow for one that comes later."""
    num = next((index for index, turn in enumerate(turns) if turn.role != "system"), len(turns))
    if any(turn.role == "system" for turn in turns[num:]):
        raise BadRow(f"field `{name}`: a system turn after the first human or assistant turn")
    if num < 2:
        return turns
    return (Turn(role="system", text="\n\n".join(turn.text for turn in turns[:num])), *turns[num:])


def begins_with_system_turn(messages: Sequence[Any]) -> bool:
    first = as_object(messages[0]) if messages else None
    role = _first(first, ROLE_KEYS) if isinstance(first, Mapping) else None
    return isinstance(role, str) and ROLES.get(role.strip().lower()) == "system"


def has_thoughts(value: Any) -> bool:
    """Whether messages hold what the model thought, which is not read."""
    value = as_object(value)
    if isinstance(value, Mapping):
        inner = next((value[key] for key in MESSAGES_KEYS if isinstance(value.get(key), list)), None)
        return any(is_given(value, key) for key in THOUGHT_KEYS) if inner is None else has_thoughts(inner)
    return isinstance(value, list) and any(map(has_thoughts, value))


def _turn(message: Any, name: str) -> Turn | None:
    """One message as a turn; None for a system turn that says nothing."""
    message = as_object(message)
    if not isinstance(message, Mapping):
        kind = "text" if isinstance(message, str) else kind_of(message)
        raise BadRow(f"field `{name}` must be a message with role and content, not {kind}")
    role, content = _role(message, name), _content(message, name)
    if ROLES[role] == "system" and is_blank(content):
        return None
    return Turn(role=ROLES[role], text=content)


def _role(message: Fields, name: str) -> str:
    """The role in small letters. Raises BadRow for roles that nobody has, for tool turns and for calls of tools."""
    role = _first(message, ROLE_KEYS)
    key = role.strip().lower() if isinstance(role, str) else ""
    if key not in ROLES and key not in TOOL_ROLES:
        raise BadRow(f"field `{name}.role` must be system, user or assistant, not {quoted(role)}")
    if key in TOOL_ROLES or any(is_given(message, call) for call in _CALLS):
        raise BadRow(f"field `{name}`: tool turn: {refusal_of('tool turn')}")
    refuse_beside(message, f"{name}.")
    if column := system_column(message):
        raise BadRow(f"field `{name}.{column}`: a system turn within a message; make it a message of its own")
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
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind in (None, *_TEXT_PARTS) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise BadRow(f"field `{name}` must be text, not {format_value(kind) if isinstance(kind, str) else kind_of(part)}")


def _first(message: Fields, keys: Sequence[str]) -> Any:
    """The first of ``keys`` that is not null: tables united from several sources fill the others with nulls."""
    return next((message[key] for key in keys if message.get(key) is not None), None)
