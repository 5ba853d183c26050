"""Conversations as people store them: ``\\n\\nHuman:`` / ``\\n\\nAssistant:`` transcripts, lists of messages.

A transcript is split only where a blank line is followed by a speaker's name and a colon, so that turns may contain
colons, blank lines and the words Human and Assistant. White space around a turn is stripped. An empty turn inside a
transcript is kept: real data has them, and dropping one would join its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.data.rows import BadRow, Fields
from rlaif.records import Role, Turn

TURN_START = re.compile(r"\n\n(Human|Assistant):")
TRANSCRIPT_START = re.compile(r"\s*Human:")
ROLES: Mapping[str, Role] = {
    "Human": "human",
    "Assistant": "assistant",
    "human": "human",
    "user": "human",
    "assistant": "assistant",
}


def require_text(fields: Fields, name: str) -> str:
    """The text in a field, unchanged. Raises BadRow when it is missing, empty, or not text."""
    return check_text(require(fields, name), name)


def require(fields: Fields, name: str) -> Any:
    """The value of a field. Raises BadRow when it is missing or null."""
    value = fields.get(name)
    if value is None:
        raise BadRow(f"field `{name}` is missing" if name not in fields else f"field `{name}` is null")
    return value


def check_text(value: Any, name: str) -> str:
    """``value``, unchanged. Raises BadRow when it is empty or not text."""
    if not isinstance(value, str):
        raise BadRow(f"field `{name}` must be text, not {_kind(value)}")
    if not value.strip():
        raise BadRow(f"field `{name}` is empty")
    if not _encodable(value):
        raise BadRow(f"field `{name}` is not valid Unicode")
    return value


def parse_conversation(value: Any, name: str) -> tuple[Turn, ...]:
    """The turns of a transcript or of a list of messages; plain text is a single human turn. Raises BadRow."""
    if isinstance(value, str):
        text = check_text(value, name)
        return parse_transcript(text) if is_transcript(text) else (Turn(role="human", text=text.strip()),)
    return parse_messages(value, name)


def is_transcript(text: str) -> bool:
    return TRANSCRIPT_START.match(text) is not None


def parse_transcript(text: str) -> tuple[Turn, ...]:
    """Split a transcript into its turns; nothing is lost but white space at the edges of turns."""
    _, *pieces = TURN_START.split(f"\n\n{text.lstrip()}")
    speakers, texts = pieces[::2], pieces[1::2]
    return tuple(Turn(role=ROLES[name], text=text.strip()) for name, text in zip(speakers, texts, strict=True))


def parse_messages(value: Any, name: str) -> tuple[Turn, ...]:
    """The turns of ``[{"role": ..., "content": ...}]``. Raises BadRow naming the message."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise BadRow(f"field `{name}` must be text or a list of messages, not {_kind(value)}")
    if not value:
        raise BadRow(f"field `{name}` is empty")
    return tuple(_message(message, f"{name}[{index}]") for index, message in enumerate(value))


def _message(message: Any, name: str) -> Turn:
    if not isinstance(message, Mapping):
        raise BadRow(f"field `{name}` must be a message with role and content, not {_kind(message)}")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise BadRow(f"field `{name}.role` must be user or assistant, not {role!r}")
    content = message.get("content", message.get("text"))  # our own records say text
    if not isinstance(content, str) or not _encodable(content):
        raise BadRow(f"field `{name}.content` must be text, not {_kind(content)}")
    return Turn(role=ROLES[role], text=content.strip())


def prompt_turns(turns: tuple[Turn, ...], name: str) -> tuple[Turn, ...]:
    """``turns`` as a conversation that awaits the assistant's answer. Raises BadRow unless a human turn ends it."""
    if turns and turns[-1] == Turn(role="assistant", text=""):  # "...\n\nAssistant:" invites the answer
        turns = turns[:-1]
    if not turns or turns[-1].role != "human":
        raise BadRow(f"field `{name}` must end with a human turn")
    if not turns[-1].text:
        raise BadRow(f"field `{name}`: the last human turn is empty")
    return turns


def split_answer(turns: tuple[Turn, ...], name: str) -> tuple[tuple[Turn, ...], str]:
    """A whole dialogue, split into what precedes its last answer and that answer (may be empty). Raises BadRow."""
    if not turns or turns[-1].role != "assistant":
        raise BadRow(f"field `{name}` must end with an assistant turn")
    return turns[:-1], turns[-1].text


def _encodable(text: str) -> bool:
    """Whether a tokenizer accepts ``text``: JSON and badly decoded files can hold lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: Any) -> str:
    kinds = {
        dict: "an object",
        list: "a list",
        str: "invalid text",
        bool: "a truth value",
        type(None): "null",
    }
    return kinds.get(type(value), "a number" if isinstance(value, int | float) else type(value).__name__)
