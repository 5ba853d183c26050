"""Conversations as people store them, whatever the field holds: a transcript, messages, text that is either of them.

What a text holds is found in this order: messages stored as text (``structures``), a chat template's output
(``rendered``), a transcript (``transcripts``). Everything else is prose, and for a prompt a single human turn. Where a
text may be one or the other, the row is refused by name.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from rlaif.data.dialogues.messages import one_system_turn, parse_messages, with_system
from rlaif.data.dialogues.rendered import parse_rendered
from rlaif.data.dialogues.structures import parse_structure, refuse_messages, refuse_structure
from rlaif.data.dialogues.transcripts import parse_transcript, refuse_unclear
from rlaif.data.fields import check_text, is_blank, kind_of, system_column, trim
from rlaif.data.rows import BadRow, Fields
from rlaif.records import Turn

_Parsed = TypeVar("_Parsed")


def parse_conversation(value: Any, name: str) -> tuple[Turn, ...]:
    """The turns of a text or of messages; prose is a single human turn. Raises BadRow."""
    turns = parse_dialogue(value, name)
    if turns is not None:
        return turns
    refuse_structure(value, name)
    _named(name, refuse_unclear, value)
    return (Turn(role="human", text=trim(value)),)


def parse_dialogue(value: Any, name: str) -> tuple[Turn, ...] | None:
    """The turns of a transcript or of messages; None when ``value`` is prose. At most the first is a system turn.
    Raises BadRow."""
    turns = _dialogue(value, name)
    return None if turns is None else one_system_turn(turns, name)


def _dialogue(value: Any, name: str) -> tuple[Turn, ...] | None:
    if not isinstance(value, str):
        return _messages(value, name)
    text = check_text(value, name)
    messages = parse_structure(text, name)
    if messages is not None:
        return _messages(messages, name)
    rendered = _named(name, parse_rendered, text)
    return rendered if rendered is not None else _named(name, parse_transcript, text)


def form_of(value: Any, name: str) -> str:
    """In what form a field holds what ``parse_dialogue`` reads, for people. Raises BadRow as it does."""
    if not isinstance(value, str):
        return "messages" if isinstance(value, list | dict) else kind_of(value)
    if parse_structure(value, name) is not None:
        return "messages stored as text"
    if _named(name, parse_rendered, value) is not None:
        return "a rendered chat template"
    return "plain text" if _named(name, parse_transcript, value) is None else "a transcript"


def _messages(value: Any, name: str) -> tuple[Turn, ...]:
    turns = parse_messages(value, name)
    for index, turn in enumerate(turns):
        where = f"{name}[{index}].content"
        refuse_messages(turn.text, where)
        if turn.role == "human" and _is_dialogue(turn.text):
            raise BadRow(f"field `{where}`: one message holds a whole dialogue; make each turn a message")
    return turns


def _is_dialogue(text: str) -> bool:
    """Whether a text is the output of a chat template, or a transcript with turns of both roles."""
    try:
        turns = parse_rendered(text) or parse_transcript(text) or ()
    except BadRow:  # what may be one is the content of a message all the same
        return False
    return {"human", "assistant"} <= {turn.role for turn in turns}


def _named(name: str, parse: Callable[[str], _Parsed], text: str) -> _Parsed:
    """What ``parse`` makes of ``text``; its BadRow names the field."""
    try:
        return parse(text)
    except BadRow as error:
        raise BadRow(f"field `{name}`: {error}") from None


def prompt_turns(turns: tuple[Turn, ...], name: str) -> tuple[Turn, ...]:
    """``turns`` as a conversation that awaits the assistant's answer. Raises BadRow unless a human turn ends it."""
    if turns and turns[-1] == Turn(role="assistant", text=""):  # "...\n\nAssistant:" invites the answer
        turns = turns[:-1]
    if not turns or turns[-1].role != "human":
        raise BadRow(f"field `{name}` must end with a human turn")
    if is_blank(turns[-1].text):
        raise BadRow(f"field `{name}`: the last human turn is empty")
    return turns


def after_system_column(fields: Fields, turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    """``turns`` after the system turn that a row has in a column of its own. Raises BadRow."""
    column = system_column(fields)
    return with_system(turns, fields[column], column) if column else turns


def split_answer(turns: tuple[Turn, ...], name: str) -> tuple[tuple[Turn, ...], str]:
    """A whole dialogue, split into what precedes its last answer and that answer (may be empty). Raises BadRow."""
    if not turns or turns[-1].role != "assistant":
        raise BadRow(f"field `{name}` must end with an assistant turn")
    return turns[:-1], turns[-1].text
