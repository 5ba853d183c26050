"""Human comparisons for the preference model, from the shapes in which they are published.

hh-rlhf: ``chosen`` and ``rejected`` are whole transcripts · TRL: lists of messages, with or without ``prompt``
· explicit: ``{"prompt", "chosen", "rejected"}`` with texts. Whole dialogues must agree up to the last answer.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.data.conversations import (
    checked_text,
    conversation_of,
    is_transcript,
    present,
    split_answer,
    waiting,
)
from rlaif.data.rows import BadRow, Quarantine, Row, read_records
from rlaif.records import PreferencePair, Turn

Side = tuple[tuple[Turn, ...] | None, str]  #: what came before the answer (None: it is not said), the answer


def read_pairs(source: str, quarantine: Quarantine) -> Iterator[PreferencePair]:
    """Stream the pairs of ``source`` (file, directory or ``hf:NAME``); a bad row goes to ``quarantine``.

    Bad are also pairs whose dialogues differ before the last answer and pairs with an empty answer. Raises
    DataError naming file, row and field when a file is missing, unreadable or empty, or has no usable row.
    """
    return read_records(source, pair_of, quarantine)


def pair_of(row: Row) -> PreferencePair:
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


def _prompt(row: Row, before: tuple[Turn, ...] | None) -> tuple[Turn, ...]:
    """The stated prompt, else what came before the chosen answer."""
    if row.fields.get("prompt") is not None:
        return waiting(conversation_of(row.fields["prompt"], "prompt"), "prompt")
    if before is None:
        raise BadRow("field `prompt` is missing, and `chosen` is not a whole dialogue")
    return before  # may end with the assistant: some dialogues have it speak twice, and both answers follow that


def _side(row: Row, name: str) -> Side:
    """One answer: of a whole dialogue the last turn, of a lone message or a text itself."""
    value = present(row.fields, name)
    if isinstance(value, str) and not is_transcript(value):
        return None, checked_text(value, name).strip()
    before, answer = split_answer(conversation_of(value, name), name)
    return before or None, answer
