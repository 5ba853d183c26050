"""Prompts: conversations that wait for the assistant, from the shapes in which they are published.

``{"prompt": text}`` (plain, or a transcript) · ``{"prompt": [messages]}`` · ``{"messages": [messages]}`` ·
``{"chosen": ..., "rejected": ...}``: what came before the last answer of ``chosen``.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlaif.data.conversations import conversation_of, present, split_answer, waiting
from rlaif.data.rows import BadRow, Quarantine, Row, read_records
from rlaif.records import Axis, Prompt, Turn


def read_prompts(source: str, axis: Axis, quarantine: Quarantine) -> Iterator[Prompt]:
    """Stream the prompts of ``source`` (file, directory or ``hf:NAME``); a bad row goes to ``quarantine``.

    The id is ``FILE:ROW``, so equal prompts stay two rows. Raises DataError naming file, row and field when a
    file is missing, unreadable or empty, or has no usable row.
    """

    def parse(row: Row) -> Prompt:
        return Prompt(id=row.id, source_file=row.file, source_row=row.number, axis=axis, turns=_turns(row))

    return read_records(source, parse, quarantine)


def _turns(row: Row) -> tuple[Turn, ...]:
    name = next((name for name in ("prompt", "messages", "chosen") if name in row.fields), None)
    if name is None:
        raise BadRow("field `prompt` is missing (as are `messages` and `chosen`)")
    turns = conversation_of(present(row.fields, name), name)
    if name == "chosen":
        turns, _ = split_answer(turns, name)
    return waiting(turns, name)
