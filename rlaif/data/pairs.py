"""Human comparisons for the preference model, in the shapes in which they are published.

``data.answers`` lists where a row keeps its two answers and which of them is better. An answer is a text, a message,
or a whole dialogue that ends with it (hh-rlhf, TRL); whole dialogues must agree up to the last answer. The prompt is
the ``prompt`` field, else what precedes the answers in whole dialogues, else what ``data.prompts`` finds in the row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rlaif.config.source import DEFAULT_LIMITS, RowLimits, Source
from rlaif.data.answers import answers_of
from rlaif.data.dialogues.conversations import (
    after_system_column,
    parse_conversation,
    parse_dialogue,
    prompt_turns,
    split_answer,
)
from rlaif.data.fields import is_blank, is_given, refuse_beside, trim
from rlaif.data.mapped_fields import read_mapped
from rlaif.data.prompts import PROMPT_FIELDS, find_prompt, refuse_what_goes_before
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow
from rlaif.records import PreferencePair, Turn

_Side = tuple[tuple[Turn, ...] | None, str]  #: what precedes the answer (None: the field does not say), the answer


def read_pairs(
    source: Source | str, quarantine: Quarantine, limits: RowLimits = DEFAULT_LIMITS
) -> Iterator[PreferencePair]:
    """Stream the pairs of ``source`` (a Source, or its text); a bad row goes to ``quarantine``.

    Pairs whose dialogues differ before the last answer are bad, as are pairs with an empty answer. Raises
    DataError naming file, row and field when a file is missing, unreadable or empty, or has no usable row.
    """
    return read_mapped(source, parse_pair, quarantine, limits)


def parse_pair(row: SourceRow) -> PreferencePair:
    """The pair in one row. Raises BadRow."""
    prompt, chosen, rejected = find_pair(row.fields)
    return PreferencePair(
        id=row.id_of(prompt, chosen, rejected),
        source_file=row.file,
        source_row=row.number,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
    )


def find_pair(fields: Fields) -> tuple[tuple[Turn, ...], str, str]:
    """The prompt, the better and the worse answer of a row. Raises BadRow."""
    refuse_beside(fields)
    chosen, rejected = answers_of(fields)
    before_chosen, chosen_answer = read_answer(*chosen)
    before_rejected, rejected_answer = read_answer(*rejected)
    prompt = prompt_before(fields, before_chosen, before_rejected)
    for (name, _), answer in ((chosen, chosen_answer), (rejected, rejected_answer)):
        if is_blank(answer):
            raise BadRow(f"field `{name}`: the answer is empty")
    return prompt, chosen_answer, rejected_answer


def prompt_before(fields: Fields, *befores: tuple[Turn, ...] | None) -> tuple[Turn, ...]:
    """The ``prompt`` field, else what precedes the answers, else what another field holds. Raises BadRow.

    ``befores``: what precedes each answer, None where its field holds the answer only.
    """
    stated = [before for before in befores if before is not None]
    if not stated and not is_given(fields, "prompt"):
        return find_prompt(fields, _OTHER_FIELDS)
    system = _system_turn(stated)
    stated = [spoken for before in stated if (spoken := _spoken(before))]
    prompt = stated[0] if stated else ()  # may end with an assistant turn: in some dialogues it speaks twice in a row
    if is_given(fields, "prompt"):
        refuse_what_goes_before(fields, "prompt")
        prompt = prompt_turns(parse_conversation(fields["prompt"], "prompt"), "prompt")
        system, prompt = _system_turn([system, prompt]), _spoken(prompt)
        if stated and all(before[0].role == "assistant" for before in stated):  # answers that go on from the prompt
            stated = [(*prompt, *before) for before in stated]
            prompt = stated[0]
    if any(_words(before) != _words(stated[0]) for before in stated):
        raise BadRow("fields `chosen` and `rejected`: the dialogues differ before the last answer")
    if any(_words(before) != _words(prompt) for before in stated):
        raise BadRow("field `prompt` is not what precedes the last answer of `chosen` and `rejected`")
    if not prompt:
        raise BadRow("fields `chosen` and `rejected`: there is no human turn before the answers")
    return after_system_column(fields, (*system, *prompt))


def _system_turn(conversations: Sequence[tuple[Turn, ...]]) -> tuple[Turn, ...]:
    """The system turn of those ``conversations`` that have one, which must be the same. Raises BadRow."""
    systems = [turns[:1] for turns in conversations if turns and turns[0].role == "system"]
    if any(_words(system) != _words(systems[0]) for system in systems):
        raise BadRow("fields `chosen`, `rejected` and `prompt`: their system turns differ")
    return systems[0] if systems else ()


def _spoken(turns: tuple[Turn, ...]) -> tuple[Turn, ...]:
    return tuple(turn for turn in turns if turn.role != "system")


def read_answer(name: str, value: Any) -> _Side:
    """One answer: the last turn of a whole dialogue, or a single message or text itself. Raises BadRow."""
    turns = parse_dialogue(value, name)
    if turns is None:
        return None, trim(value)
    before, answer = split_answer(turns, name)
    return before or None, answer


def _words(turns: tuple[Turn, ...]) -> list[tuple[str, str]]:
    """``turns`` without what files differ in where the same dialogue is stored twice."""
    return [(turn.role, turn.text.strip()) for turn in turns]


_OTHER_FIELDS = tuple(name for name in PROMPT_FIELDS if name not in ("prompt", "chosen"))
