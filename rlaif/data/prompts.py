"""Prompts: conversations that await the assistant's answer, in the shapes in which they are published.

``{"prompt": text}`` (plain, or a transcript) · ``{"prompt": [messages]}`` · ``{"messages": [messages]}`` ·
``{"chosen": ..., "rejected": ...}``: everything before the last answer of ``chosen``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from rlaif.data.conversations import parse_conversation, prompt_turns, split_answer
from rlaif.data.fields import require
from rlaif.data.rows import BadRow, Fields, Quarantine, SourceRow, read_records
from rlaif.records import Axis, Prompt, Turn


def read_prompts(source: str, axis: Axis, quarantine: Quarantine) -> Iterator[Prompt]:
    """Stream the prompts of ``source`` (file, directory or ``hf:NAME``); a bad row goes to ``quarantine``.

    The id is ``FILE:ROW``, so equal prompts stay two rows. Raises DataError naming file, row and field when a
    file is missing, unreadable or empty, or has no usable row.
    """

    def parse(row: SourceRow) -> Prompt:
        return Prompt(id=row.id, source_file=row.file, source_row=row.number, axis=axis, turns=_turns(row.fields))

    return read_records(source, parse, quarantine)


def _turns(fields: Fields) -> tuple[Turn, ...]:
    name = next((name for name in _SHAPES if name in fields), None)
    if name is None:
        first, *others = (f"`{name}`" for name in _SHAPES)
        raise BadRow(f"field {first} is missing (as are {' and '.join(others)})")
    return prompt_turns(_SHAPES[name](fields, name), name)


def _conversation(fields: Fields, name: str) -> tuple[Turn, ...]:
    return parse_conversation(require(fields, name), name)


def _before_answer(fields: Fields, name: str) -> tuple[Turn, ...]:
    turns, _ = split_answer(_conversation(fields, name), name)
    return turns


#: How a row is read, by the field that identifies its shape; in a row with several of them, the first counts.
_SHAPES: Mapping[str, Callable[[Fields, str], tuple[Turn, ...]]] = {
    "prompt": _conversation,
    "messages": _conversation,
    "chosen": _before_answer,
}
