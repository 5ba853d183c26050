"""Human comparisons for the preference model, in the shapes in which they are published.

hh-rlhf: ``chosen`` and ``rejected`` are whole transcripts · TRL: lists of messages, with or without ``prompt``
· explicit: ``{"prompt", "chosen", "rejected"}`` as texts. Whole dialogues must agree up to the last answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.data.conversations import parse_conversation, parse_dialogue, prompt_turns, split_answer
from rlaif.data.fields import require, trim
from rlaif.data.rows import BadRow, Quarantine, SourceRow, read_records
from rlaif.records import PreferencePair, Turn

PairSide = tuple[tuple[Turn, ...] | None, str]  #: what precedes the answer (None: the field does not say), the answer


def read_pairs(source: str, quarantine: Quarantine) -> Iterator[PreferencePair]:
    """Stream the pairs of ``source`` (file, directory or ``hf:NAME``); a bad row goes to ``quarantine``.

    Pairs whose dialogues differ before the last answer are bad, as are pairs with an empty answer. Raises
    DataError naming file, row and field when a file is missing, unreadable or empty, or has no usable row.
    """
    return read_records(source, parse_pair, quarantine)


def parse_pair(row: SourceRow) -> PreferencePair:
    """The pair in one row. Raises BadRow."""
    before_chosen, chosen = _side(row, "chosen")
    before_rejected, rejected = _side(row, "rejected")
    prompt = _prompt(row, before_chosen)
    if any(before is not None and before != prompt for before in (before_chosen, before_rejected)):
        raise BadRow("fields `chosen` and `rejected`: the dialogues differ before the last answer")
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise BadRow(f"field `{name}`: the answer is empty")
    return PreferencePair(
        id=row.id,
        source_file=row.file,
        source_row=row.number,
        prompt=prompt,
        chosen=chosen,
        rejected=rejected,
    )


def _prompt(row: SourceRow, before: tuple[Turn, ...] | None) -> tuple[Turn, ...]:
    """The ``prompt`` field, else what precedes the chosen answer."""
    if row.fields.get("prompt") is not None:
        return prompt_turns(parse_conversation(row.fields["prompt"], "prompt"), "prompt")
    if before is None:
        raise BadRow("field `prompt` is missing, and `chosen` is not a whole dialogue")
    return before  # may end with an assistant turn: in some dialogues it speaks twice in a row


def _side(row: SourceRow, name: str) -> PairSide:
    """One answer: the last turn of a whole dialogue, or a single message or text itself."""
    value = require(row.fields, name)
    turns = parse_dialogue(value, name)
    if turns is None:
        return None, trim(value)
    before, answer = split_answer(turns, name)
    return before or None, answer
