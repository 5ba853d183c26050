"""Prompts: conversations that await the assistant's answer, in the shapes in which they are published.

``_SHAPES`` lists them. Where a row holds answers as well (SFT sets, pairs, red-team transcripts), the prompt is what
precedes the last answer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial

from rlaif.config.source import DEFAULT_LIMITS, RowLimits, Source
from rlaif.data.dialogues.conversations import (
    after_system_column,
    parse_conversation,
    parse_dialogue,
    prompt_turns,
    split_answer,
)
from rlaif.data.dialogues.messages import begins_with_system_turn, parse_messages
from rlaif.data.dialogues.structures import parse_list
from rlaif.data.fields import check_text, given_name, is_given, refuse_beside, require, trim
from rlaif.data.mapped_fields import read_mapped
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow
from rlaif.records import Axis, Prompt, Turn


def read_prompts(
    source: Source | str, axis: Axis, quarantine: Quarantine, limits: RowLimits = DEFAULT_LIMITS
) -> Iterator[Prompt]:
    """Stream the prompts of ``source`` (a Source, or its text); a bad row goes to ``quarantine``.

    The id is that of the turns; equal prompts stay two rows. Raises DataError naming file, row and field when a
    file is missing, unreadable or empty, or has no usable row.
    """

    return read_mapped(source, partial(parse_prompt, axis=axis), quarantine, limits)


def parse_prompt(row: SourceRow, axis: Axis) -> Prompt:
    """The prompt in one row. Raises BadRow."""
    turns = find_prompt(row.fields, _SHAPES)
    return Prompt(id=row.id_of(turns), source_file=row.file, source_row=row.number, axis=axis, turns=turns)


def refuse_what_goes_before(fields: Fields, name: str) -> None:
    """Raises BadRow for earlier turns, or a context, next to a field that does not take them in: they are never left
    out."""
    if name != "instruction" and is_given(fields, "history"):
        raise BadRow(f"fields `{name}` and `history`: give the whole conversation in `messages`")
    if name not in ("instruction", "context") and is_given(fields, "context"):
        raise BadRow(
            f"fields `{name}` and `context`: join them in `prompt`, in the order in which they are to be read, "
            "or name the field that is to be read"
        )


def find_prompt(fields: Fields, names: Collection[str]) -> tuple[Turn, ...]:
    """The prompt of a row, in the first of the fields ``names`` that holds one. Raises BadRow."""
    refuse_beside(fields)
    found = _found(fields, names)
    if found:
        name, turns = found
        refuse_what_goes_before(fields, name)
        turns = prompt_turns(turns, name)
        if turns[0].role != "system":
            turns = (*_system_beside(fields), *turns)
        return after_system_column(fields, turns)
    name = next((name for name in _SHAPES if name in names and name in fields), "")
    if name and not is_given(fields, name):
        raise BadRow(f"field `{name}` is {'empty' if isinstance(require(fields, name), str | list) else 'null'}")
    raise BadRow(f"field `prompt` is missing, and no other field holds a prompt; the row has {_columns(fields)}")


def prompt_field(fields: Fields) -> str | None:
    """The field in which ``find_prompt`` finds the prompt of a row, None when it finds none. Raises BadRow."""
    found = _found(fields, _SHAPES)
    return found[0] if found else None


def _found(fields: Fields, names: Collection[str]) -> tuple[str, tuple[Turn, ...]] | None:
    for name, read in _SHAPES.items():
        turns = read(fields, name) if name in names and is_given(fields, name) else None
        if turns is not None:
            return name, turns
    return None


def _system_beside(fields: Fields) -> tuple[Turn, ...]:
    """The system turn of the whole conversation beside its prompt, as SFT sets have it in ``messages``."""
    for name in ("messages", "conversations", "chosen"):
        messages = parse_list(fields[name], name) if is_given(fields, name) else None
        if isinstance(messages, list) and begins_with_system_turn(messages):
            return parse_messages(messages[:1], name, may_be_empty=True)
    return ()


def _columns(fields: Fields) -> str:
    names = [f"`{name}`" for name in fields]
    return ", ".join(names[:8]) + (" ..." if len(names) > 8 else "")


def _conversation(fields: Fields, name: str) -> tuple[Turn, ...]:
    return parse_conversation(fields[name], name)


def _before_answer(fields: Fields, name: str) -> tuple[Turn, ...]:
    """A dialogue up to its last answer; one that ends with a human turn awaits it already."""
    turns = parse_conversation(fields[name], name)
    return turns[:-1] if turns and turns[-1].role == "assistant" else turns


def _before_chosen(fields: Fields, name: str) -> tuple[Turn, ...] | None:
    """What precedes the chosen answer; None when the field is the answer and nothing else."""
    turns = parse_dialogue(fields[name], name)
    if turns is None:
        return None
    before, _ = split_answer(turns, name)
    return before or None


def _instruction(fields: Fields, name: str) -> tuple[Turn, ...]:
    """An instruction and what it is about (``input``, in Dolly ``context``), after the earlier turns (``history``)."""
    turns = parse_conversation(fields[name], name)
    about = given_name(fields, ("input", "context"))
    if len(turns) > 1 and is_given(fields, "history"):
        raise BadRow(f"fields `{name}` and `history`: both hold turns; which is the prompt?")
    if about and len(turns) > 1:
        raise BadRow(f"fields `{name}` and `{about}`: a whole dialogue and an input; which is the prompt?")
    if about:
        turns = (Turn(role="human", text=f"{turns[0].text}\n\n{trim(check_text(fields[about], about))}"),)
    return (*_history(fields), *turns)


def _history(fields: Fields) -> Iterator[Turn]:
    """The turns of ``[[asked, answered], ...]``."""
    if not is_given(fields, "history"):
        return
    history = parse_list(fields["history"], "history")
    if not isinstance(history, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in history):
        raise BadRow("field `history` must be a list of pairs of texts")
    for asked, answered in history:
        yield Turn(role="human", text=trim(check_text(asked, "history")))
        yield Turn(role="assistant", text=trim(check_text(answered, "history")))


#: How a row is read, by the field that identifies its shape. In a row with several of them, the first counts that is
#: given (null and blank fields are not) and that holds a prompt.
_SHAPES: Mapping[str, Callable[[Fields, str], tuple[Turn, ...] | None]] = {
    "prompt": _conversation,  # text or messages; next to it answers of any kind (TRL, KTO, PKU-SafeRLHF, HelpSteer)
    "messages": _before_answer,  # chat logs, SFT sets
    "chosen": _before_chosen,  # whole dialogues (hh-rlhf, TRL)
    "conversations": _before_answer,  # ShareGPT
    "conversation": _before_answer,
    "conversation_a": _before_answer,  # two answers in an arena
    "transcript": _before_answer,  # hh-rlhf's red-team attempts
    "instruction": _instruction,  # Alpaca, Dolly, UltraFeedback
    "question": _conversation,
    "query": _conversation,
    "forbidden_prompt": _conversation,  # StrongREJECT
    "prompts_final": _conversation,  # SimpleSafetyTests
    "context": _conversation,  # NeMo, HelpSteer3
    "input": _conversation,  # OpenAI's preference format: {"messages": [...]}
    "request": _conversation,  # logs of an API: {"messages": [...]}
    "body": _conversation,
}
PROMPT_FIELDS = tuple(_SHAPES)
