"""Conversations as people store them: ``\\n\\nHuman:`` / ``\\n\\nAssistant:`` transcripts, lists of messages.

A transcript is cut only where a blank line and a speaker's name with a colon stand together, so that turns
may contain colons, blank lines and the words Human and Assistant. White space around a turn's text does not
count. An empty turn inside a transcript is kept: real ones have them, and dropping it would join its neighbours.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rlaif.data.rows import BadRow
from rlaif.records import Role, Turn

SPEAKER = re.compile(r"\n\n(Human|Assistant):")
OPENING = re.compile(r"\s*Human:")
ROLES: Mapping[str, Role] = {
    "Human": "human",
    "Assistant": "assistant",
    "human": "human",
    "user": "human",
    "assistant": "assistant",
}


def text_of(fields: Mapping[str, Any], name: str) -> str:
    """The text in a field, as it stands. Raises BadRow when it is missing, empty, or not text."""
    return checked_text(present(fields, name), name)


def present(fields: Mapping[str, Any], name: str) -> Any:
    value = fields.get(name)
    if value is None:
        raise BadRow(f"field `{name}` is missing" if name not in fields else f"field `{name}` is null")
    return value


def checked_text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise BadRow(f"field `{name}` must be text, not {_kind(value)}")
    if not value.strip():
        raise BadRow(f"field `{name}` is empty")
    if not _encodable(value):
        raise BadRow(f"field `{name}` is not valid Unicode")
    return value


def conversation_of(value: Any, name: str) -> tuple[Turn, ...]:
    """The turns of a transcript or of a list of messages; plain text is one human turn. Raises BadRow."""
    if isinstance(value, str):
        text = checked_text(value, name)
        return transcript(text) if is_transcript(text) else (Turn(role="human", text=text.strip()),)
    return messages(value, name)


def is_transcript(text: str) -> bool:
    return OPENING.match(text) is not None


def transcript(text: str) -> tuple[Turn, ...]:
    """Cut a transcript into its turns; no character is lost but white space at the edges of turns."""
    _, *pieces = SPEAKER.split(f"\n\n{text.lstrip()}")
    speakers, texts = pieces[::2], pieces[1::2]
    return tuple(Turn(role=ROLES[who], text=said.strip()) for who, said in zip(speakers, texts, strict=True))


def messages(value: Any, name: str) -> tuple[Turn, ...]:
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


def waiting(turns: tuple[Turn, ...], name: str) -> tuple[Turn, ...]:
    """``turns`` as a conversation that waits for the assistant. Raises BadRow when no human ends it."""
    if turns and turns[-1] == Turn(role="assistant", text=""):  # "...\n\nAssistant:" invites the answer
        turns = turns[:-1]
    if not turns or turns[-1].role != "human":
        raise BadRow(f"field `{name}` must end with a human turn")
    if not turns[-1].text:
        raise BadRow(f"field `{name}`: the last human turn is empty")
    return turns


def split_answer(turns: tuple[Turn, ...], name: str) -> tuple[tuple[Turn, ...], str]:
    """A whole dialogue as what came before its last answer, and that answer (may be empty). Raises BadRow."""
    if not turns or turns[-1].role != "assistant":
        raise BadRow(f"field `{name}` must end with an assistant turn")
    return turns[:-1], turns[-1].text


def _encodable(text: str) -> bool:
    """JSON and badly decoded files can hold lone surrogates, which no tokenizer accepts."""
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
